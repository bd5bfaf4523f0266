"""Tar shards as a source, as WebDataset and img2dataset write them: members of one name belong together."""

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tintype.common.config import Json
from tintype.data.preparation.findings import Finding, Kind, Used
from tintype.data.preparation.folders import Captions, Tree, read_text, suffix_of
from tintype.data.preparation.items import PICTURES, Event, Item, Place, Said
from tintype.data.shards import DATASET, FINDINGS, INDEX, REPORT, box_from_json

MASKS = (".mask.png", ".seg.png", ".segmentation.png")
OURS = (DATASET, INDEX, REPORT, FINDINGS, ".lock")
KINDS = {".txt": "caption", ".caption": "caption", ".json": "record", ".cls": "class"}
ZEROS = bytes(tarfile.BLOCKSIZE)
LARGEST_CLASS = 2**31 - 1
# tarfile takes some numbers as they are written
DAMAGED = (tarfile.TarError, ValueError, OverflowError, MemoryError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A file in a tar. `key`: up to the first dot of its name; `suffix`: the rest, in small letters."""

    name: str
    key: str
    suffix: str
    place: Place


@dataclass(frozen=True, kw_only=True, slots=True)
class TarSource:
    """Every `.tar` of the tree, in the order of names. `ours`: a prepared data set is read again;
    `classes` are its names."""

    tree: Tree
    captions: Captions = "any"
    classes: tuple[str, ...] = ()
    ours: bool = False

    def events(self) -> Iterator[Event]:
        yield from self.tree.links
        for name in self.tree.files:
            if suffix_of(name) == ".tar":
                yield from self._shard(name)
            elif self._beside(name):
                yield Used("file")
            else:
                yield Finding(item=name, reason="not used")

    def _beside(self, name: str) -> bool:
        """img2dataset's tables and sums (all that is in them of a picture is in its shard), or our own index."""
        stem = re.sub(r"(_stats\.json|\.parquet)$", "", name)
        return (stem != name and f"{stem}.tar" in self.tree.files) or name in OURS

    def _shard(self, name: str) -> Iterator[Event]:
        group: list[Member] = []
        seen: set[str] = set()
        for member in members(self.tree.root / name, name):
            if not isinstance(member, Member):
                yield member
                continue
            if group and group[0].key != member.key:
                yield from _Group(members=group, source=self, repeated=group[0].key in seen).events()
                seen.add(group[0].key)
                group = []
            group.append(member)
        if group:
            yield from _Group(members=group, source=self, repeated=group[0].key in seen).events()


def members(path: Path, name: str) -> Iterator[Member | Finding | Used]:
    """All files of a tar; where it is cut short or damaged, those before, and a finding."""
    size = path.stat().st_size
    whole = True
    try:
        with tarfile.open(path, "r:") as tar:
            try:
                for info in tar:
                    if info.size < 0:  # tarfile would go back and read the same header for ever
                        whole = False
                        break
                    if info.isdir():
                        continue
                    item = f"{name}/{info.name}"
                    if not info.isfile():
                        yield Finding(item=item, reason="link", detail="not a file")
                    elif info.offset_data + info.size > size:
                        whole = False
                        yield Finding(item=item, reason=_cut(info.name), detail="the shard ends within it")
                    else:
                        yield _member(path, item, info)
                whole = whole and _ends(path, tar.offset)
            except DAMAGED:
                whole = False
    except (*DAMAGED, OSError) as error:
        yield Finding(item=name, reason="broken shard", detail=str(error))
        return
    yield Used("file")
    if not whole:
        yield Finding(item=name, reason="shard cut short", detail=_missing(path))


def _member(path: Path, item: str, info: tarfile.TarInfo) -> Member:
    folder, _, last = item.rpartition("/")
    key, dot, rest = last.partition(".")
    place = Place(path=path, offset=info.offset_data, size=info.size)
    return Member(name=item, key=f"{folder}/{key}", suffix=f"{dot}{rest}".lower(), place=place)


def _ends(path: Path, offset: int) -> bool:
    """Whether the shard is complete: tarfile takes any nonsense after the first member for the end."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(len(ZEROS)) == ZEROS


def _cut(name: str) -> str:
    suffix = suffix_of(name)
    return "cut short" if suffix in PICTURES else "record cut short" if suffix == ".json" else "caption cut short"


def _missing(path: Path) -> str:
    """What img2dataset's sums beside the shard tell of what it held."""
    try:
        told = json.loads((path.parent / f"{path.stem}_stats.json").read_bytes())
        return f"{path.stem}_stats.json counts {int(told['successes'])} pictures in the whole shard"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@dataclass(kw_only=True, slots=True)
class _Group:
    """Members of one key; `repeated` where the shard had the key before."""

    members: list[Member]
    source: TarSource
    repeated: bool
    said: Said = field(default_factory=Said)
    label: int | None = None

    def events(self) -> Iterator[Event]:
        chosen: dict[str, Member] = {}
        for member in self.members:
            kind = self._kind(member)
            if kind == "unknown":
                yield Finding(item=member.name, reason="not used")
            elif self.repeated or kind in chosen:
                yield Finding(item=member.name, reason="duplicate key" if kind == "picture" else f"duplicate {kind}")
            else:
                chosen[kind] = member
        picture, mask = chosen.pop("picture", None), chosen.get("mask")
        if picture is None:
            yield from (Finding(item=one.name, reason=f"{kind} without picture") for kind, one in chosen.items())
            return
        texts: list[tuple[str, Kind]] = []
        for kind in ("caption", "record", "class"):
            if kind not in chosen:
                continue
            if isinstance(read := self._read(chosen[kind], kind), Used):
                texts.append((chosen[kind].name, read.kind))
            else:
                yield read
        notes: tuple[Finding, ...] = ()
        if not self.said.captions and self.source.captions != "none" and self.label is None and not self.said.boxes:
            notes = (Finding(item=picture.name, reason="no caption"),)
        yield Item(
            origin=picture.name,
            place=picture.place,
            captions=tuple(self.said.captions) if self.source.captions != "none" else (),
            label=self.label,
            boxes=tuple(self.said.boxes),
            mask=mask.place if mask is not None else None,
            given=self.said.given,
            notes=notes,
            texts=tuple(texts),
        )

    def _kind(self, member: Member) -> str:
        if member.suffix in MASKS:
            return "mask"
        if member.suffix in PICTURES:
            return "picture"
        if member.suffix in KINDS:
            return KINDS[member.suffix]
        plain = any(one.suffix in PICTURES for one in self.members)
        return "picture" if suffix_of(member.name) in PICTURES and not plain else "unknown"

    def _read(self, member: Member, kind: str) -> Finding | Used:
        if kind == "caption":
            return read_text(member.name, member.place, self.said, kind="caption")
        if kind == "record":
            read = read_text(member.name, member.place, self.said, kind="record")
            return self._ours(member) or read if isinstance(read, Used) else read
        try:
            self.label = _label(json.loads(member.place.read()), self.source.classes)
        except (ValueError, OSError, RecursionError) as error:
            return Finding(item=member.name, reason="broken class", detail=str(error))
        return Used("class")

    def _ours(self, member: Member) -> Finding | None:
        """Class, boxes and what was given, where a data set of ours is the source."""
        if not self.source.ours:
            return None
        told = cast("dict[str, Json]", json.loads(member.place.read()))
        given, boxes, label = told.get("given"), told.get("boxes"), told.get("label")
        try:
            self.label = None if label is None else _label(label, self.source.classes)
            for box in boxes if isinstance(boxes, list) else ():
                self.said.boxes.append(box_from_json(cast("dict[str, float]", box)))
        except (ValueError, KeyError, TypeError) as error:
            return Finding(item=member.name, reason="broken record", detail=repr(error))
        self.said.given = given if isinstance(given, dict) else {}
        return None


def _label(value: object, classes: tuple[str, ...]) -> int:
    largest = len(classes) - 1 if classes else LARGEST_CLASS
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise ValueError(f"class {value!r}; expected a number from 0 to {largest}")
    return value
