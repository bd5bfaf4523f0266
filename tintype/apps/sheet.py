"""`tintype sheet`: pictures side by side, with whatever fields of a request along the axes (A1111's X/Y/Z plot).

Every cell is a picture of its own in a folder beside the sheet, so an interrupted sheet goes on where it was, and one
with another value on an axis draws that value's cells alone.
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, PngImagePlugin
from tqdm import tqdm

from tintype.apps.axes import Axis, Sheet, Side, read_axis
from tintype.apps.labelled import Layout, drawn, laid_out
from tintype.common.config import from_json, to_json
from tintype.common.files import LONGEST_NAME, whole_file
from tintype.families.base import LatentDiffusion
from tintype.generation import generate, warnings
from tintype.tasks.infotext import provenance, save
from tintype.tasks.pictures import referred, repeated_with
from tintype.tasks.request import NAMED, PROMPTED, UNPROMPTED, Request
from tintype.tasks.task import resolve

SHEET = "tintype sheet"  # the PNG's text
SIDES: tuple[Side, ...] = ("x", "y", "z")
LARGEST_PICTURE = 2**30  # pixels of a sheet; three bytes each
SPEAKERS = ("tintype.generation", "tintype.tasks.plan")  # the loggers that have something to say of a request


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a sheet says of itself, so that it can be made again."""

    sheet: Sheet
    model: str
    digest: str


def sheet(arguments: argparse.Namespace, open_model: Callable[[tuple[str, str] | None], LatentDiffusion]) -> int:
    """`open_model` gets the name and digest of the model that made the sheet to be repeated."""
    target = _target(Path(arguments.output))
    told = _repeated(arguments) if arguments.source is not None else None
    asked = _asked(arguments) if told is None else told.sheet
    model = open_model(None if told is None else (told.model, told.digest))
    seeded = asked.with_seeds()
    with _each_said_once():
        cells = [resolve(model, cell) for cell in seeded.cells()]
        _layout(seeded, [_size(cell) for cell in cells])  # refuses one that is too large
        folder = _folder(target)
        left_open = asked.request.seed < 0 and all(axis.field != "seed" for axis in asked.axes)
        if left_open and not arguments.json:
            print(f"seed {seeded.request.seed} drawn; with it the sheet goes on if interrupted", file=sys.stderr)
        paths = [folder / f"{_name(cell, model)}.png" for cell in cells]
        fresh = 0
        hidden = arguments.json or not sys.stderr.isatty()
        for cell, path in tqdm(list(zip(cells, paths, strict=True)), unit="cell", leave=False, disable=hidden):
            if not _is_there(path, cell, model):
                save(generate(model, cell)[0], path)
                fresh += 1
    layout = _layout(seeded, [_opened(path).size for path in paths])
    picture = drawn(layout, map(_opened, paths))
    told = dataclasses.replace(seeded, request=referred(seeded.request))
    _save(picture, target, Told(sheet=told, model=Path(model.source).name, digest=model.digest))

    said = dict.fromkeys(sentence for cell in cells for sentence in warnings(model, cell)) if arguments.json else {}
    report = {
        "output": str(target),
        "cells": [str(path) for path in paths],
        "drawn": fresh,
        "sheet": to_json(seeded),
        "warnings": list(said),
        "model": {"name": Path(model.source).name, "digest": model.digest},
    }
    sentence = f"{target}  ({len(cells)} cells, {fresh} drawn, in {folder})"
    print(json.dumps(report, ensure_ascii=False) if arguments.json else sentence)
    return 0


# What is asked for


def _asked(arguments: argparse.Namespace) -> Sheet:
    given = {field.name: getattr(arguments, field.name, None) for field in dataclasses.fields(Request)}
    given = {name: value for name, value in given.items() if value is not None}
    axes = tuple(read_axis(side, text) for side in SIDES for text in getattr(arguments, side))
    for axis in axes:
        if axis.field in given:
            raise ValueError(f"{axis.field} is given twice, by --{axis.side} and by itself; leave one out")
    prompted = given.get("task", "txt2img") in PROMPTED and given.get("task") not in UNPROMPTED
    if prompted and "prompt" not in given and not any(axis.field == "prompt" for axis in axes):
        raise ValueError('no prompt; expected it first, such as: tintype sheet "a red apple" --x cfg_scale=1,3,6')
    return Sheet(axes=axes, request=Request(**given))


def _repeated(arguments: argparse.Namespace) -> Told:
    names = [*SIDES, *(field.name for field in dataclasses.fields(Request) if field.name not in NAMED)]
    if also := [name for name in names if getattr(arguments, name, None) not in (None, [])]:
        raise ValueError(f"--from repeats a sheet as it was; leave out {', '.join(also)}")
    path = Path(arguments.source)
    try:
        with PngImagePlugin.PngImageFile(path) as picture:  # its head alone; `Image.open` refuses very large pictures
            text: object = picture.info.get(SHEET)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"--from {path}: no such picture") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"--from {path}: not a readable PNG ({error})") from error
    if not isinstance(text, str):
        raise ValueError(f"--from {path} holds no sheet; expected a PNG of `tintype sheet`, not re-saved by others")
    try:
        told = from_json(Told, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--from {path}: what it says of itself is damaged: {error}") from error
    given = dataclasses.replace(told.sheet.request, **{name: getattr(arguments, name) for name in NAMED})
    request = repeated_with(told.sheet.request, given)
    return dataclasses.replace(told, sheet=dataclasses.replace(told.sheet, request=request))


# Places


def _target(path: Path) -> Path:
    if path.suffix.lower() != ".png":
        raise ValueError(f"--output {path}: a sheet is written as PNG; expected a name in .png")
    if (length := len(os.fsencode(_beside(path).name))) > LONGEST_NAME:
        raise ValueError(f"--output: got a name of {length} bytes; expected {LONGEST_NAME} or less; shorten it")
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder; name another")
    return path


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.stem}-cells")


def _folder(target: Path) -> Path:
    """Where the cells are, made sure before any work."""
    folder = _beside(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {folder}: {error.strerror}; expected a folder that can be made") from error
    for place in (folder, target.parent):
        if not os.access(place, os.W_OK | os.X_OK):
            raise ValueError(f"--output {place} cannot be written; expected a folder that you may write to")
    return folder


def _name(cell: Request, model: LatentDiffusion) -> str:
    told = json.dumps([to_json(referred(cell)), model.digest], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _layout(asked: Sheet, sizes: Sequence[tuple[int, int]]) -> Layout:
    largest = max(width for width, _ in sizes), max(height for _, height in sizes)
    across, down, blocks = (_labels(asked.on(side)) for side in SIDES)
    if not asked.axes:
        across = [""] * math.ceil(math.sqrt(len(sizes)))
        down = [""] * math.ceil(len(sizes) / len(across))
    layout = laid_out(across, down, blocks, cell=largest)
    if (count := math.prod(layout.size)) > LARGEST_PICTURE:
        raise ValueError(f"the sheet has {count} pixels; expected {LARGEST_PICTURE} or less: fewer or smaller cells")
    return layout


def _size(cell: Request) -> tuple[int, int]:
    """What a resolved request's picture takes at least."""
    assert cell.width is not None
    assert cell.height is not None
    scale = cell.hires_scale or 1
    return round(cell.width * scale), round(cell.height * scale)


def _labels(axis: Axis | None) -> list[str]:
    return [""] if axis is None else axis.labels


# Cells


def _is_there(path: Path, cell: Request, model: LatentDiffusion) -> bool:
    """Whether the file is whole, and the picture of this request by this model."""
    try:
        with Image.open(path) as picture:
            made = provenance(picture)
            picture.verify()  # every chunk's checksum
        _opened(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return (made.request, made.position, made.digest) == (referred(cell), 0, model.digest)


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def _save(picture: Image.Image, path: Path, told: Told) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(SHEET, json.dumps(to_json(told), ensure_ascii=False))
    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=chunks)


@contextmanager
def _each_said_once() -> Generator[None]:
    """What is to be said of many cells is said once."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        before = len(said)
        said.add(record.getMessage())
        return len(said) > before

    loggers = [logging.getLogger(name) for name in SPEAKERS]
    for one in loggers:
        one.addFilter(is_new)
    try:
        yield
    finally:
        for one in loggers:
            one.removeFilter(is_new)
