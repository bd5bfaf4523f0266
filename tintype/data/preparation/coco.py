"""COCO's annotations: boxes with class names (instances), sentences (captions).

Classes are numbered from 0 in the order of their COCO ids, which have gaps. A crowd is a box with the mark `group`.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tintype.common.config import Json
from tintype.conditioning.layout import ROUNDING, Box, Region
from tintype.data.preparation.findings import Finding, Used
from tintype.data.preparation.items import Said, sentences

HEAD = 1 << 16
WANTED = ("instances", "captions")  # of the files COCO publishes; people with keypoints are among the instances

Find = Callable[[str], str | Finding]


def looks_like_coco(path: Path) -> bool:
    """By the first bytes of a file."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return head.lstrip()[:1] == b"{" and (b'"images"' in head or b'"annotations"' in head)


def chosen_annotations(names: list[str]) -> list[str]:
    """Instances and captions where files are named as COCO's are, else all."""
    usual = [name for name in names if name.rpartition("/")[2].startswith(WANTED)]
    return usual or names


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """The parsed files, by name, and the classes of all."""

    files: dict[str, dict[str, Json]]
    classes: tuple[str, ...]
    numbers: dict[int, int]
    broken: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Image:
    """An entry of "images": the picture it names, or None; its size where that is told."""

    file: str | None
    width: float
    height: float


def open_annotations(root: Path, names: list[str]) -> Annotations:
    """Read the files. Raises `ValueError` where two give one id to different classes."""
    files: dict[str, dict[str, Json]] = {}
    broken: list[Finding] = []
    named: dict[int, str] = {}
    for name in names:
        try:
            value = json.loads((root / name).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            broken.append(Finding(item=name, reason="broken table", detail=str(error)))
            continue
        if not isinstance(value, dict):
            broken.append(Finding(item=name, reason="broken table", detail="not a JSON object"))
            continue
        files[name] = cast("dict[str, Json]", value)
        for id, label in _categories(files[name]):
            if named.setdefault(id, label) != label:
                raise ValueError(
                    f"{name}: category {id} is {label!r}, in another file {named[id]!r}; expected annotations of one "
                    "set of classes: name them with --annotations"
                )
    order = sorted(named)
    return Annotations(
        files=files,
        classes=tuple(named[id] for id in order),
        numbers={id: number for number, id in enumerate(order)},
        broken=tuple(broken),
    )


def read_annotations(annotations: Annotations, find: Find, said: dict[str, Said]) -> Iterator[Finding | Used]:
    """Add to `said` what the files say of each picture; `find` gives the picture of a file name, or why not."""
    yield from annotations.broken
    for name, content in annotations.files.items():
        yield Used("file")
        reader = _Reader(name=name, numbers=annotations.numbers, said=said)
        yield from reader.images(content, find)
        yield from reader.annotations(content)


@dataclass(kw_only=True, slots=True)
class _Reader:
    name: str
    numbers: dict[int, int]
    said: dict[str, Said]
    _images: dict[int, _Image] = field(default_factory=dict[int, _Image])

    def images(self, content: dict[str, Json], find: Find) -> Iterator[Finding | Used]:
        for number, entry in enumerate(_entries(content, "images")):
            item = f"{self.name}: image {entry.get('id', f'number {number}')}"
            id, file = entry.get("id"), entry.get("file_name")
            if not isinstance(id, int) or not isinstance(file, str):
                yield Finding(item=item, reason="broken row", detail="no id or no file_name")
                continue
            found = find(file)
            width, height = _number(entry.get("width")), _number(entry.get("height"))
            self._images[id] = _Image(file=found if isinstance(found, str) else None, width=width, height=height)
            if isinstance(found, Finding):
                yield Finding(item=item, reason=found.reason, detail=found.detail)
                continue
            self.said.setdefault(found, Said()).given.update(
                {
                    key: value
                    for key in ("license", "coco_url", "flickr_url")
                    if isinstance(value := entry.get(key), str | int)
                }
            )
            yield Used("row")

    def annotations(self, content: dict[str, Json]) -> Iterator[Finding | Used]:
        for number, entry in enumerate(_entries(content, "annotations")):
            item = f"{self.name}: annotation {entry.get('id', f'number {number}')}"
            yield self._sentence(item, entry) if "bbox" not in entry and "caption" in entry else self._box(item, entry)

    def _sentence(self, item: str, entry: dict[str, Json]) -> Finding | Used:
        image = self._image(entry)
        if image is None or image.file is None:
            return Finding(item=item, reason="absent file", detail=f"image {entry.get('image_id')}")
        try:
            captions = sentences(entry["caption"])
        except UnicodeError as error:
            return Finding(item=item, reason="broken row", detail=f"not UTF-8: {error}")
        if not captions:
            return Finding(item=item, reason="row without caption")
        new = self.said.setdefault(image.file, Said()).add(captions)
        return Used("row") if new else Finding(item=item, reason="duplicate row")

    def _box(self, item: str, entry: dict[str, Json]) -> Finding | Used:
        image, label = self._image(entry), entry.get("category_id")
        if image is not None and image.file is None:
            return Finding(item=item, reason="box of absent file", detail=f"image {entry.get('image_id')}")
        if image is None or not (image.width > 0 and image.height > 0):
            return Finding(item=item, reason="broken box", detail=f"image {entry.get('image_id')} has no size")
        if not isinstance(label, int) or label not in self.numbers:
            return Finding(item=item, reason="broken box", detail=f"no category {label}")
        bbox = entry.get("bbox")
        edges = [_number(edge) for edge in bbox] if isinstance(bbox, list) else []
        if len(edges) != 4 or not all(map(math.isfinite, edges)) or min(edges[2:]) <= 0:
            return Finding(item=item, reason="broken box", detail=f"bbox {bbox}; expected x, y, width, height")
        region = _region(edges, image)
        if region is None:
            return Finding(item=item, reason="box outside", detail=f"bbox {bbox} of {image.width:g}x{image.height:g}")
        assert image.file is not None
        box = Box(label=self.numbers[label], region=region, group=bool(entry.get("iscrowd")))
        self.said.setdefault(image.file, Said()).boxes.append(box)
        return Used("box")

    def _image(self, entry: dict[str, Json]) -> _Image | None:
        id = entry.get("image_id")
        return self._images.get(id) if isinstance(id, int) else None


def _region(edges: list[float], image: _Image) -> Region | None:
    left, top = (
        min(max(edge / side, 0.0), 1.0) for edge, side in zip(edges[:2], (image.width, image.height), strict=True)
    )
    right = min((edges[0] + edges[2]) / image.width, 1.0)
    bottom = min((edges[1] + edges[3]) / image.height, 1.0)
    if min(right - left, bottom - top) <= ROUNDING:
        return None
    return Region(left=left, top=top, width=right - left, height=bottom - top)


def _categories(content: dict[str, Json]) -> Iterator[tuple[int, str]]:
    for entry in _entries(content, "categories"):
        id, name = entry.get("id"), entry.get("name")
        if isinstance(id, int) and isinstance(name, str):
            yield id, name


def _entries(content: dict[str, Json], name: str) -> Iterator[dict[str, Json]]:
    value = content.get(name)
    for entry in value if isinstance(value, list) else ():
        yield entry if isinstance(entry, dict) else {}


def _number(value: Json) -> float:
    """Not a number, where there is none or one beyond all floats."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan
