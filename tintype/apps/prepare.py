"""`tintype prepare`: a source of pictures becomes a data set to train on, with a report."""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from tqdm import tqdm

from tintype.common.config import counted, to_json
from tintype.data.pictures import MAX_PIXELS
from tintype.data.preparation.findings import LEFT_OUT, NOTED
from tintype.data.preparation.origins import SourceOptions
from tintype.data.preparation.processing import PictureOptions
from tintype.data.preparation.run import PrepareOptions, Result
from tintype.data.preparation.run import prepare as run
from tintype.data.prepared import damaged, read_info
from tintype.data.shards import FINDINGS

DONE, FAILED = 0, 1


def prepare(arguments: argparse.Namespace) -> int:
    source = Path(arguments.source)
    if arguments.verify:
        if arguments.out is not None:
            raise ValueError("--verify checks one prepared folder; leave out OUT")
        return _verify(source, as_json=arguments.json)
    if arguments.out is None:
        raise ValueError("no OUT; expected a folder to prepare into, such as: tintype prepare photos prepared")
    out = Path(arguments.out)
    logging.getLogger("tintype.data").setLevel(logging.WARNING if arguments.json else logging.INFO)
    with tqdm(unit="pictures", leave=False, disable=arguments.json or not sys.stderr.isatty()) as bar:

        def progress(kept: int) -> None:
            bar.update(kept - bar.n)

        result = run(source, out, _options(arguments), progress=progress)
    if arguments.json:
        print(json.dumps({"out": str(out), "samples": result.info.samples, **result.report}, ensure_ascii=False))
    else:
        for line in _summary(out, result):
            print(line)
    if result.info.samples:
        return DONE
    print(f"tintype prepare: nothing in {source} can be used, so {out} has no samples", file=sys.stderr)
    return FAILED


def _options(arguments: argparse.Namespace) -> PrepareOptions:
    source = SourceOptions(
        kind=arguments.kind,
        captions=arguments.captions,
        tables=tuple(arguments.tables),
        file_column=arguments.file_column,
        caption_column=arguments.caption_column,
        annotations=tuple(arguments.annotations),
        masks=arguments.masks,
    )
    pictures = PictureOptions(
        size=arguments.size,
        crop=arguments.crop,
        encoding=arguments.format,
        min_size=arguments.min_size,
        max_aspect=arguments.max_aspect,
        max_pixels=MAX_PIXELS if arguments.max_pixels is None else arguments.max_pixels,
        require_caption=arguments.require_caption,
    )
    return PrepareOptions(source=source, pictures=pictures, shard_size=arguments.shard_size, workers=arguments.workers)


def _summary(out: Path, result: Result) -> Iterator[str]:
    info = result.info
    classes = f", {counted(len(info.classes), 'class', 'classes')}" if info.classes else ""
    samples, shards = counted(info.samples, "sample"), counted(len(info.shards), "shard")
    yield f"{out}: {samples} in {shards}{classes} (from {info.options['kind']})"
    counts = cast("Mapping[str, Mapping[str, int]]", result.report["counts"])
    for kind, count in counts.items():
        verb = "kept" if kind == "picture" else "used"
        yield f"  {kind:8} {count['found']:9} found {count['used']:9} {verb} {count['left_out']:9} left out"
    for title, table in (("left_out", LEFT_OUT), ("noted", NOTED)):
        reasons = cast("Mapping[str, int]", result.report[title])
        if reasons:
            yield "left out:" if title == "left_out" else "noted of what is used:"
        for reason, count in reasons.items():
            yield f"  {count:9}  {reason} ({table[reason][0]}: {table[reason][1]})"
    if result.report["left_out"] or result.report["noted"]:
        yield f"each of them by name: {out / FINDINGS}"


def _verify(folder: Path, *, as_json: bool) -> int:
    faults = dict(damaged(folder))
    if as_json:
        print(json.dumps({"folder": str(folder), "damaged": to_json(faults)}))
    else:
        for name, fault in faults.items():
            print(f"{folder / name}: {fault}")
        info = read_info(folder)
        found = f"{len(faults)} damaged" if faults else "all good"
        print(f"{counted(len(info.shards), 'shard')}, {counted(info.samples, 'sample')}: {found}")
    return FAILED if faults else DONE
