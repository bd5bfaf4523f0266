"""Boxes as a request writes them, "NAME:left,top,right,bottom" in parts of the picture's sides, and as models read
them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from tintype.common.config import nearest
from tintype.conditioning.layout import Box, Region
from tintype.tasks.request import Request

FORM = "NAME:left,top,right,bottom, such as pizza:0.1,0.1,0.5,0.5"


def boxes_of(request: Request, labels: Sequence[str], count: int | None = None) -> list[Box]:
    """The boxes of a request for a model with classes of these names; without names, and beside them, numbers below
    `count` are classes (default: as many as there are names).

    Raises `ValueError` for a box that is none, that is not within the picture or has no area, and for an unknown class.
    """
    known = len(labels) if count is None else count
    boxes: list[Box] = []
    for text in request.boxes:
        name, region = _parsed(text)
        boxes.append(Box(label=class_named(name, labels, known, f"box {text!r}: no class {name!r}"), region=region))
    return boxes


def read_layout(path: Path) -> tuple[str, ...]:
    """A file of boxes as a request writes them: a JSON list of {"name": …, "box": [left, top, right, bottom]}. Raises
    `ValueError` for a file that is none."""
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--layout {path}: {error.strerror}; expected a JSON file of boxes") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--layout {path}: no JSON ({error})") from error
    if not isinstance(found, list):
        raise ValueError(f'--layout {path}: expected a list of {{"name": …, "box": [left, top, right, bottom]}}')
    entries = cast("list[object]", found)
    return tuple(_as_text(entry, f"--layout {path}: box {number}") for number, entry in enumerate(entries))


def _as_text(entry: object, where: str) -> str:
    match entry:
        case {"name": str() | int() as name, "box": [left, top, right, bottom], **others} if not others:
            sides = (left, top, right, bottom)
            if all(isinstance(side, int | float) and not isinstance(side, bool) for side in sides):
                return f"{name}:{left},{top},{right},{bottom}"
        case _:
            pass
    raise ValueError(f'{where}: got {entry!r}; expected {{"name": …, "box": [left, top, right, bottom]}}')


def _parsed(text: str) -> tuple[str, Region]:
    name, _, sides = text.rpartition(":")
    try:
        left, top, right, bottom = (float(side) for side in sides.split(","))
    except ValueError:
        raise ValueError(f"box {text!r}: expected {FORM}") from None
    if not name.strip():
        raise ValueError(f"box {text!r} has no name; expected {FORM}")
    if not (0 <= left <= 1 and 0 <= top <= 1 and 0 <= right <= 1 and 0 <= bottom <= 1):
        raise ValueError(f"box {text!r}: expected parts of the picture's sides, each from 0 to 1, not pixels")
    if not (left < right and top < bottom):
        raise ValueError(f"box {text!r} has no area; expected left below right, and top below bottom")
    return name.strip(), Region(left=left, top=top, width=right - left, height=bottom - top)


def class_named(name: str, labels: Sequence[str], count: int, got: str) -> int:
    """The number of a class that is told by its name or as a number below `count`. Raises `ValueError`, beginning with
    what was got, for one that there is not."""
    if name in labels:
        return labels.index(name)
    if name.isdecimal() and int(name) < count:
        return int(name)
    named = f"{nearest(name, labels)}, or " if labels else ""
    raise ValueError(f"{got}; expected {named}a number from 0 to {count - 1}")
