"""`tintype prepare`: any source becomes shards, an index and a report, shard by shard, so that it can go on where it
was stopped. The same source with the same options gives the same bytes, whatever the number of workers."""

import errno
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

from tintype.common.config import Json, from_json, to_json
from tintype.common.files import load_metadata, load_tensors, reserved, save_tensors, whole_file
from tintype.data.preparation.findings import Finding, Tally, Used
from tintype.data.preparation.folders import FolderSource, Tree
from tintype.data.preparation.items import Event, Item
from tintype.data.preparation.origins import SourceKind, SourceOptions, open_source
from tintype.data.preparation.processing import Kept, PictureOptions, process, record_bytes
from tintype.data.preparation.tars import TarSource
from tintype.data.prepared import fault_of, file_sha256, read_info
from tintype.data.shards import (
    DATASET,
    FINDINGS,
    INDEX,
    REPORT,
    DatasetInfo,
    Row,
    Shard,
    ShardWriter,
    columns,
)

logger = logging.getLogger(__name__)
PARTS = ".parts"
BEGUN = "begun.json"
AHEAD = 4  # items read ahead for each worker


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareOptions:
    """`shard_size`: samples in a shard. `workers`: threads that read and decode; it changes nothing but the time."""

    source: SourceOptions = field(default_factory=SourceOptions)
    pictures: PictureOptions = field(default_factory=PictureOptions)
    shard_size: int = 1000
    workers: int = 0

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ValueError(f"shard size {self.shard_size}: expected 1 or more samples")
        if self.workers < 0:
            raise ValueError(f"workers {self.workers}: expected 1 or more, or 0 for one for each processor")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What is kept of a finished shard until all are: `position` counts the source's events up to its end."""

    position: int
    shard: Shard | None
    used: dict[str, int]
    reasons: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """`report`: the content of report.json."""

    info: DatasetInfo
    report: dict[str, Json]


def prepare(
    root: Path, out: Path, options: PrepareOptions, *, progress: Callable[[int], None] = lambda kept: None
) -> Result:
    """Write the samples of `root` to the folder `out`, going on where an earlier call was stopped.

    `progress` is told of each shard how many samples are there. Raises `ValueError` for a source that is none, for
    options it does not fit, and where `out` holds anything else; `OSError` where the disk is full.
    """
    _apart(root, out)
    kind, tree, source = open_source(root, options.source)
    classes = source.classes  # read now: annotations that contradict each other are refused before anything is made
    begun = _begun(kind, tree, options)
    _clear_empty(out)
    _check_folder(out, begun)
    if (out / DATASET).exists():
        return _finished(out)
    out.mkdir(parents=True, exist_ok=True)
    with reserved(out, what="tintype prepare"), _room(out), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with a picture is in the report
        (out / PARTS).mkdir(exist_ok=True)
        for leftover in chain(out.glob(".*.tmp"), (out / PARTS).glob(".*.tmp")):  # of a run that was killed
            leftover.unlink()
        with whole_file(out / PARTS / BEGUN) as path:
            path.write_text(json.dumps(begun))
        parts = _kept_parts(out)
        kept = {part.shard.name for part in parts if part.shard}
        for unfinished in (path for path in out.glob("*.tar") if path.name not in kept):
            unfinished.unlink()
        if parts:
            logger.info("going on after %d finished shards", len(parts))
        for part in _new_parts(out, source, options, parts):
            parts.append(part)
            progress(sum(one.shard.samples for one in parts if one.shard))
        return _finish(out, parts, classes, begun)


# What is there already


def _apart(root: Path, out: Path) -> None:
    inner, outer = out.resolve(), root.resolve()
    if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ValueError(f"{out} and {root} lie within each other; expected an output folder apart from the source")


def _begun(kind: SourceKind, tree: Tree, options: PrepareOptions) -> dict[str, str]:
    """What must be the same for a run to go on: options, and a digest of all names and sizes."""
    digest = hashlib.sha256()
    for name, size in tree.files.items():
        digest.update(os.fsencode(name) + b"\0" + str(size).encode() + b"\0")
    told = {"source": digest.hexdigest(), "kind": kind}
    for part in (options.source, options.pictures):
        written = to_json(part)
        assert isinstance(written, dict)
        told |= {name: json.dumps(value) for name, value in written.items() if name != "kind"}
    return told | {"shard_size": str(options.shard_size)}


def _clear_empty(out: Path) -> None:
    """A data set without samples is made anew, also with other options: nobody wants to keep it."""
    if (out / DATASET).exists() and read_info(out).samples == 0:
        for name in (DATASET, INDEX, REPORT, FINDINGS):  # first the one that says it is there
            (out / name).unlink(missing_ok=True)


def _check_folder(out: Path, begun: dict[str, str]) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; expected a folder, there or to be made")
    if (out / DATASET).exists():
        info = read_info(out)
        earlier: dict[str, str] | None = {"source": info.source, **info.options}
    elif (out / PARTS / BEGUN).exists():
        if not (out / PARTS / f"{0:05d}.safetensors").exists():
            return  # nothing is finished that could be otherwise
        earlier = from_json(dict[str, str], json.loads((out / PARTS / BEGUN).read_bytes()))
    elif set(os.listdir(out)) - {".lock", PARTS}:
        raise ValueError(f"{out} holds other files; expected an empty folder, or one to be made")
    else:
        return
    other = sorted(name for name in {*begun, *earlier} if begun.get(name) != earlier.get(name))
    if other:
        told = ", ".join(
            "the source's files" if name == "source" else f"{name} {earlier.get(name)}, now {begun.get(name)}"
            for name in other
        )
        raise ValueError(f"{out} was prepared otherwise: {told} differ; expected the same, or name another folder")


def _finished(out: Path) -> Result:
    if (out / PARTS).exists():  # the last thing a run removes
        shutil.rmtree(out / PARTS)
    try:
        report = cast("dict[str, Json]", json.loads((out / REPORT).read_bytes()))
    except (OSError, ValueError) as error:
        raise ValueError(f"{out / REPORT} cannot be read ({error}); remove {out} and prepare it again") from error
    return Result(info=read_info(out), report=report)


def _kept_parts(out: Path) -> list[Part]:
    """The finished parts from the first on, as far as their shards are as they were written."""
    parts: list[Part] = []
    while (path := out / PARTS / f"{len(parts):05d}.safetensors").exists():
        part = from_json(Part, cast("Json", load_metadata(path)))
        if part.shard is not None and (fault := fault_of(out, part.shard)):
            logger.warning("%s is made again: %s", part.shard.name, fault)
            break
        parts.append(part)
    return parts


@contextmanager
def _room(out: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) and "No space left" not in str(error):
            raise
        done = len(list(out.glob("[0-9]*.tar")))
        raise OSError(
            f"no space left for {out}; {done} finished shards are kept: make room, and the same command goes on",
        ) from error


# What is made


def _new_parts(
    out: Path, source: FolderSource | TarSource, options: PrepareOptions, done: list[Part]
) -> Generator[Part]:
    """Each part appears as a whole: first its shard, then its findings, last the file that says it is there."""
    number, position = len(done), done[-1].position if done else 0
    first = sum(part.shard.samples for part in done if part.shard)
    results = _processed(islice(source.events(), position, None), source.classes, options)
    while True:
        part, rows = _write_part(out, number, results, first, position, options.shard_size)
        if part.position == position:
            return
        save_tensors(out / PARTS / f"{number:05d}.safetensors", columns(rows, number), to_json(part))
        yield part
        number, position, first = number + 1, part.position, first + len(rows)


Said = Finding | Used


def _processed(
    events: Iterator[Event], classes: tuple[str, ...], options: PrepareOptions
) -> Iterator[Kept | tuple[Said, ...]]:
    """One result for each event, in order; pictures are worked on ahead, only so many that memory stays bounded."""
    workers = options.workers or os.cpu_count() or 1
    waiting: deque[Future[Kept | tuple[Finding, ...]] | Said] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for event in events:
                is_item = isinstance(event, Item)
                waiting.append(pool.submit(process, event, classes, options.pictures) if is_item else event)
                if len(waiting) >= AHEAD * workers:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _result(waiting: "Future[Kept | tuple[Finding, ...]] | Said") -> Kept | tuple[Said, ...]:
    return waiting.result() if isinstance(waiting, Future) else (waiting,)


def _write_part(
    out: Path, number: int, results: Iterator[Kept | tuple[Said, ...]], first: int, position: int, most: int
) -> tuple[Part, list[Row]]:
    """Write results until the shard has `most` samples or none are left; without samples there is no shard."""
    tally, rows = Tally(), list[Row]()
    name = f"{number:05d}.tar"
    writer: ShardWriter | None = None
    shard: Shard | None = None
    with ExitStack() as stack:
        listed = stack.enter_context(_opened(out / PARTS / f"{number:05d}.jsonl"))
        while len(rows) < most and (result := next(results, None)) is not None:
            position += 1
            if isinstance(result, Kept):
                if writer is None:
                    writer = ShardWriter(stack.enter_context(_opened(out / name)))
                rows.append(_write_sample(writer, result, first + len(rows)))
            for said in result.said if isinstance(result, Kept) else result:
                tally.add(said)
                if isinstance(said, Finding):
                    listed.write(said.line().encode() + b"\n")
        if writer is not None:
            size, digest = writer.close()
            shard = Shard(name=name, samples=len(rows), bytes=size, sha256=digest)
    return Part(position=position, shard=shard, used=dict(tally.used), reasons=dict(tally.reasons)), rows


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    """A file that appears as a whole when all is written."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        yield file
        file.flush()


def _write_sample(writer: ShardWriter, kept: Kept, number: int) -> Row:
    key = f"{number:09d}"
    picture = writer.add(f"{key}.{kept.suffix}", kept.picture)
    record = writer.add(f"{key}.json", record_bytes(kept.record, key))
    return Row(
        picture=picture,
        record=record,
        mask=writer.add(f"{key}.mask.png", kept.mask) if kept.mask else (0, 0),
        width=kept.width,
        height=kept.height,
        label=-1 if kept.label is None else kept.label,
        sha256=kept.sha256,
    )


def _finish(out: Path, parts: list[Part], classes: tuple[str, ...], begun: dict[str, str]) -> Result:
    """Index, list of findings and report from all parts, and last the file that says the data set is there."""
    tally = Tally()
    for part in parts:
        tally.merge(Tally.of(part.used, part.reasons))
    numbers = range(len(parts))
    save_tensors(out / INDEX, _joined([load_tensors(out / PARTS / f"{number:05d}.safetensors") for number in numbers]))
    with _opened(out / FINDINGS) as listed:
        for number in numbers:
            with (out / PARTS / f"{number:05d}.jsonl").open("rb") as file:
                shutil.copyfileobj(file, listed)
    info = DatasetInfo(
        samples=sum(part.shard.samples for part in parts if part.shard),
        classes=classes,
        shards=tuple(part.shard for part in parts if part.shard),
        index=file_sha256(out / INDEX),
        source=begun["source"],
        options={name: value for name, value in begun.items() if name != "source"},
    )
    report = tally.to_json()
    for name, content in ((REPORT, report), (DATASET, to_json(info))):
        with whole_file(out / name) as path:
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.rmtree(out / PARTS)
    return Result(info=info, report=report)


def _joined(tables: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Only parts without samples can lack a shard, and these come last: the numbers of shards stay."""
    tables = tables or [columns([], 0)]
    return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}
