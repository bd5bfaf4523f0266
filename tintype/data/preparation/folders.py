"""A folder of pictures as a source: captions beside them or in tables, classes by folder, COCO's boxes, masks."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from tintype.common.config import Json
from tintype.data.preparation.coco import Annotations, open_annotations, read_annotations
from tintype.data.preparation.findings import Finding, Kind, Used
from tintype.data.preparation.items import LARGEST_TEXT, PICTURES, Event, Item, Place, Said, clean, scalars, sentences
from tintype.data.preparation.tables import Table, open_table, read_table

Captions = Literal["any", "given", "none"]
SIDECARS = (".txt", ".caption", ".json")
CAMERA = {"img", "image", "dsc", "dscn", "dscf", "pict", "photo", "picture", "frame", "screenshot", "untitled"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """All files below a folder: {name with slashes: bytes}, sorted; and what is not followed."""

    root: Path
    files: dict[str, int]
    links: tuple[Finding, ...]


def walk(root: Path) -> Tree:
    """Links are read where they lead to a file within `root`, and else are findings."""
    files: dict[str, int] = {}
    links: list[Finding] = []
    inside = os.path.realpath(root)
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            links.append(Finding(item=folder, reason="not used", detail=f"this folder: {error.strerror}"))
            continue
        for entry in entries:
            name = f"{folder}{entry.name}"
            target = os.path.realpath(entry.path) if entry.is_symlink() else None
            if target and not (os.path.isfile(target) and os.path.commonpath([inside, target]) == inside):
                links.append(Finding(item=name, reason="link", detail=os.readlink(entry.path)))
            elif entry.is_dir():
                waiting.append(f"{name}/")
            elif entry.is_file():
                files[name] = entry.stat().st_size
            else:
                links.append(Finding(item=name, reason="not used", detail="not a file"))
    by_bytes = sorted(files, key=os.fsencode)
    return Tree(
        root=root, files={name: files[name] for name in by_bytes}, links=tuple(sorted(links, key=lambda one: one.item))
    )


def suffix_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def stem_of(name: str) -> str:
    """The name without its last suffix."""
    return name.removesuffix(PurePosixPath(name).suffix)


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """`by_folder`: the class of a picture is its first folder. `tables` and `annotations` are names in the tree,
    `masks` is a tree of class maps with the names of their pictures."""

    tree: Tree
    by_folder: bool = False
    tables: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    masks: Tree | None = None
    captions: Captions = "any"
    file_column: str | None = None
    caption_column: str | None = None

    @cached_property
    def classes(self) -> tuple[str, ...]:
        if self.by_folder:
            return tuple(sorted({name.partition("/")[0] for name in self._pictures if "/" in name}))
        return self._coco.classes

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}

    @cached_property
    def _coco(self) -> Annotations:
        return open_annotations(self.tree.root, list(self.annotations))

    @cached_property
    def _mask_prefix(self) -> str | None:
        """Where the masks are, if they are within the tree."""
        if self.masks is None or not self.masks.root.is_relative_to(self.tree.root):
            return None
        return f"{self.masks.root.relative_to(self.tree.root).as_posix()}/"

    def _of_masks(self, name: str) -> bool:
        return self._mask_prefix is not None and name.startswith(self._mask_prefix)

    @cached_property
    def _pictures(self) -> dict[str, int]:
        return {
            name: size
            for name, size in self.tree.files.items()
            if suffix_of(name) in PICTURES and not self._of_masks(name)
        }

    @cached_property
    def _by_name(self) -> dict[str, str | None]:
        """Pictures by the last part of their names; None where several have it."""
        found: dict[str, str | None] = {}
        for name in self._pictures:
            last = name.rpartition("/")[2]
            found[last] = None if last in found else name
        return found

    @cached_property
    def _first(self) -> dict[str, str]:
        """The first picture of each stem: what is beside it is counted with that one."""
        found: dict[str, str] = {}
        for name in self._pictures:
            found.setdefault(stem_of(name), name)
        return found

    @cached_property
    def _sidecars(self) -> dict[str, tuple[str, ...]]:
        """Files that may say what the pictures of their stem show."""
        found: dict[str, tuple[str, ...]] = {}
        for name in self.tree.files if self.captions != "none" else ():
            beside = suffix_of(name) in SIDECARS and name not in self.annotations and not self._of_masks(name)
            if beside and stem_of(name) in self._first:
                found[stem_of(name)] = (*found.get(stem_of(name), ()), name)
        return found

    def events(self) -> Iterator[Event]:
        """What was found, in an order that depends on the names alone."""
        said: dict[str, Said] = {}
        yield from self.tree.links
        yield from read_annotations(self._coco, self._find_anywhere, said)
        yield from self._read_tables(said)
        told = any(one.captions for one in said.values())
        expected = bool(told or self._sidecars or not (self.by_folder or self.annotations))
        masks = self._masks_by_stem()
        yield from self._other_masks(masks)
        for name, size in self._pictures.items():
            yield from self._picture(name, size, said.get(name), masks, expected=expected)
        yield from (Finding(item=name, reason="mask without picture") for name in masks.values())
        yield from self._rest()

    # Tables and annotations

    def _find(self, file: str, folder: str) -> str | Finding:
        """The picture that a table in `folder` means."""
        root = f"{self.tree.root}/"
        for written in (file.removeprefix(root), file.replace("\\", "/")):
            for base in (folder, ""):
                name = os.path.normpath(os.path.join(base, written))
                if name in self._pictures:
                    return name
        outside = os.path.isabs(file) or os.path.normpath(os.path.join(folder, file)).startswith("..")
        return Finding(item=file, reason="row outside" if outside else "absent file", detail=file)

    def _find_anywhere(self, file: str) -> str | Finding:
        """COCO's files name pictures without the folder they are in."""
        found = self._find(file, "")
        return found if isinstance(found, str) else self._by_name.get(file) or found

    def _read_tables(self, said: dict[str, Said]) -> Iterator[Event]:
        for name in self.tables:
            table = open_table(self.tree.root, name, file=self.file_column, caption=self.caption_column)
            if isinstance(table, Finding):
                yield table
                continue
            broken = False
            for event in self._read_table(table, said):
                broken = broken or (isinstance(event, Finding) and event.reason == "broken table")
                yield event
            if not broken:
                yield Used("file")

    def _read_table(self, table: Table, said: dict[str, Said]) -> Iterator[Finding | Used]:
        folder = os.path.dirname(table.name)
        for row in read_table(table, lambda file: isinstance(self._find(file, folder), str)):
            if isinstance(row, Finding):
                yield row
                continue
            found = self._find(row.file, folder)
            if isinstance(found, Finding):
                yield Finding(item=row.item, reason=found.reason, detail=found.detail)
            elif not said.setdefault(found, Said()).add(row.captions, row.given):
                yield Finding(item=row.item, reason="duplicate row" if row.captions else "row without caption")
            else:
                yield Used("row") if row.captions else Finding(item=row.item, reason="row without caption")

    # Pictures

    def _picture(
        self, name: str, size: int, rows: Said | None, masks: dict[str, str], *, expected: bool
    ) -> Iterator[Event]:
        stem, said, notes, texts = stem_of(name), Said(), list[Finding](), list[tuple[str, Kind]]()
        for sidecar in self._sidecars.get(stem, ()):
            found = self._read_sidecar(sidecar, said)
            if self._first[stem] != name:
                continue
            if isinstance(found, Used):
                texts.append((sidecar, found.kind))
            else:
                yield found
        if rows is not None:
            said.add(rows.captions, rows.given)
        elif self.tables or self.annotations:
            notes.append(Finding(item=name, reason="no row"))
        if expected and self.captions != "none" and not said.captions:
            named = "" if self.captions == "given" or self.by_folder or self.annotations else words_of(name)
            said.captions += [named] if named else []
            notes.append(Finding(item=name, reason="caption from file name" if named else "no caption", detail=named))
        if self.by_folder and "/" not in name:
            notes.append(Finding(item=name, reason="no class"))
        mask = masks.pop(stem, None) or masks.pop(stem.partition("/")[2], None)
        if self.masks is not None and mask is None:
            notes.append(Finding(item=name, reason="no mask"))
        yield Item(
            origin=name,
            place=Place(path=self.tree.root / name, offset=0, size=size),
            captions=tuple(said.captions),
            label=self._numbers.get(name.partition("/")[0]) if self.by_folder else None,
            boxes=tuple(rows.boxes) if rows else (),
            mask=self._mask_place(mask),
            given=said.given,
            notes=tuple(notes),
            texts=tuple(texts),
        )

    def _read_sidecar(self, name: str, said: Said) -> Finding | Used:
        place = Place(path=self.tree.root / name, offset=0, size=self.tree.files[name])
        return read_text(name, place, said, kind="record" if suffix_of(name) == ".json" else "caption")

    def _masks_by_stem(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in self._mask_files():
            found.setdefault(stem_of(name), name)
        return found

    def _mask_files(self) -> list[str]:
        files = self.masks.files if self.masks is not None else {}
        return [name for name in files if suffix_of(name) in PICTURES]

    def _other_masks(self, chosen: dict[str, str]) -> Iterator[Finding]:
        names = (name for name in self._mask_files() if chosen[stem_of(name)] != name)
        yield from (Finding(item=name, reason="duplicate mask") for name in names)

    def _mask_place(self, name: str | None) -> Place | None:
        if name is None or self.masks is None:
            return None
        return Place(path=self.masks.root / name, offset=0, size=self.masks.files[name])

    def _rest(self) -> Iterator[Finding]:
        read = {*self.tables, *self.annotations, *chain(*self._sidecars.values())}
        for name in self.tree.files:
            if name in self._pictures or name in read or (self._of_masks(name) and suffix_of(name) in PICTURES):
                continue
            text = suffix_of(name) in (".txt", ".caption") and self.captions != "none"
            yield Finding(item=name, reason="caption without picture" if text else "not used")
        if self.masks is not None and self._mask_prefix is None:
            yield from self.masks.links
            others = (name for name in self.masks.files if suffix_of(name) not in PICTURES)
            yield from (Finding(item=str(self.masks.root / name), reason="not used") for name in others)


def read_text(item: str, place: Place, said: Said, *, kind: Literal["caption", "record"]) -> Finding | Used:
    """Add what a text file or a JSON file says of a picture."""
    if place.size > LARGEST_TEXT:
        return Finding(item=item, reason=f"{kind} too large", detail=f"{place.size} bytes")
    try:
        content = place.read()
    except (OSError, EOFError) as error:
        return Finding(item=item, reason=f"{kind} cut short", detail=str(error))
    return read_record(item, content, said) if kind == "record" else read_caption(item, content, said)


def read_caption(item: str, content: bytes, said: Said) -> Finding | Used:
    """Add the one caption that a text file is."""
    try:
        line = clean(content.decode("utf-8-sig"))
    except UnicodeError as error:
        return Finding(item=item, reason="caption not UTF-8", detail=str(error))
    if not line:
        return Finding(item=item, reason="empty caption")
    said.add([line])
    return Used("caption")


def read_record(item: str, content: bytes, said: Said) -> Finding | Used:
    """Add what a JSON object says: "caption" (or "captions", a list), and the rest as it is."""
    try:
        value = json.loads(content.decode("utf-8-sig"))
        if not isinstance(value, dict):
            return Finding(item=item, reason="broken record", detail=f"{type(value).__name__}, not an object")
        entries = cast("dict[str, Json]", value)
        captions = (*sentences(entries.get("caption")), *sentences(entries.get("captions")))
    except (ValueError, RecursionError) as error:
        return Finding(item=item, reason="broken record", detail=str(error))
    said.add(captions, scalars(entries, without=("caption", "captions")))
    return Used("record")


def words_of(name: str) -> str:
    """What a file name says: "red_apple-2.png" is "red apple"; a camera's number is nothing."""
    words = re.sub(r"[_+\-\s]+", " ", stem_of(name).rpartition("/")[2])
    words = re.sub(r"[\s(]*\d+\)?$", "", words).strip()
    telling = [word for word in words.split() if word.isalpha() and (len(word) > 2 or not word.isascii())]
    try:
        return clean(words) if any(word.lower() not in CAMERA for word in telling) else ""
    except UnicodeError:
        return ""
