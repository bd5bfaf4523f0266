"""`tintype filter`: which samples of a prepared data set are worth training on, and why the others are not."""

import argparse
import json
from dataclasses import fields
from pathlib import Path

from tintype.checkpoints.clip import load_clip
from tintype.common.config import Json, to_json
from tintype.common.device import usable_device
from tintype.common.digests import weights_digest
from tintype.common.files import whole_file
from tintype.data.filters import Clip, FilterConfig, Filtered, filtered
from tintype.data.prepared import Prepared
from tintype.data.selection import SELECTION, save_selection

DONE = 0
REPORT = "report.json"


def filter_samples(arguments: argparse.Namespace) -> int:
    prepared, out = Prepared(Path(arguments.source)), Path(arguments.out)
    config = FilterConfig(**{field.name: getattr(arguments, field.name) for field in fields(FilterConfig)})
    if config == FilterConfig():
        raise ValueError("no filter; expected one or more, such as --min-size 512 --duplicates 4")
    if out.exists() and not (out / SELECTION).exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds something else; expected an empty folder, or one of `tintype filter`")
    result = filtered(prepared, config, clip=_clip(arguments), progress=not arguments.json)
    if not len(result.kept):
        raise ValueError(f"nothing is left of {len(prepared)} samples: {'; '.join(_lines(result))}; filter less")
    out.mkdir(parents=True, exist_ok=True)
    report = _report(prepared, config, result)
    with whole_file(out / REPORT) as path:
        path.write_text(json.dumps(report, indent=1))
    save_selection(out, prepared, result.kept)
    if arguments.json:
        print(json.dumps({"out": str(out), **report}))
        return DONE
    print(f"{out}: {len(result.kept)} of {len(prepared)} samples kept")
    for line in _lines(result):
        print(f"  {line}")
    return DONE


def _clip(arguments: argparse.Namespace) -> Clip | None:
    if arguments.clip is None:
        return None
    model = load_clip(Path(arguments.clip), device=usable_device(arguments.device))
    return Clip(model.likeness, weights_digest(model.network.state_dict())[:16])


def _report(prepared: Prepared, config: FilterConfig, result: Filtered) -> dict[str, Json]:
    removed = [{**_told(one), "share": round(one.share, 6)} for one in result.report]
    told = {"samples": len(prepared), "kept": len(result.kept), "prepared": prepared.info.digest}
    return {**told, "config": to_json(config), "filters": to_json(removed)}


def _told(removed: object) -> dict[str, Json]:
    told = to_json(removed)
    assert isinstance(told, dict)
    return told


def _lines(result: Filtered) -> list[str]:
    return [
        f"{one.filter}: {one.removed} of {one.seen} removed ({one.share:.2%})"
        + (f", nothing known of {one.unknown}" if one.unknown else "")
        for one in result.report
    ]
