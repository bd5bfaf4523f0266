"""What kind of source a folder is, told by what is in it."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tintype.data.preparation.coco import chosen_annotations, looks_like_coco
from tintype.data.preparation.findings import Finding
from tintype.data.preparation.folders import Captions, FolderSource, Tree, stem_of, suffix_of, walk
from tintype.data.preparation.items import PICTURES
from tintype.data.preparation.tables import TABLES, Table, check_parquet, open_table
from tintype.data.preparation.tars import TarSource
from tintype.data.prepared import read_info
from tintype.data.shards import DATASET

logger = logging.getLogger(__name__)
SourceKind = Literal["images", "classes", "coco", "shards"]
MASK_FOLDERS = ("masks", "stuffthingmaps", "annotations")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """How a source is read, where it does not tell. Its files are named from there or from here; `masks` may be any
    folder."""

    kind: SourceKind | None = None
    captions: Captions = "any"
    tables: tuple[str, ...] = ()
    file_column: str | None = None
    caption_column: str | None = None
    annotations: tuple[str, ...] = ()
    masks: str | None = None


def open_source(root: Path, options: SourceOptions) -> tuple[SourceKind, Tree, FolderSource | TarSource]:
    """The kind of source, all its files, and what reads it. Raises `ValueError` where it cannot be told or is not what
    the options say."""
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; expected one with pictures, tar shards or annotations")
    tree = walk(root.resolve())
    kind = options.kind or _kind(tree, options)
    if kind == "shards":
        return kind, tree, _shards(tree, options)
    annotations = _annotations(tree, options) if kind == "coco" else []
    masks = _masks(tree, options)
    inside = masks.root.relative_to(tree.root).as_posix() if masks and masks.root.is_relative_to(tree.root) else None
    if not any(_is_picture(name, inside) for name in tree.files):
        raise ValueError(f"{root} has no pictures; expected files in {', '.join(PICTURES)}, or .tar shards")
    source = FolderSource(
        tree=tree,
        by_folder=kind == "classes",
        tables=_tables(tree, options),
        annotations=tuple(annotations),
        masks=masks,
        captions=options.captions,
        file_column=options.file_column,
        caption_column=options.caption_column,
    )
    return kind, tree, source


def _is_picture(name: str, masks: str | None = None) -> bool:
    return suffix_of(name) in PICTURES and not (masks is not None and name.startswith(f"{masks}/"))


def _kind(tree: Tree, options: SourceOptions) -> SourceKind:
    tars = any(suffix_of(name) == ".tar" for name in tree.files)
    pictures = [name for name in tree.files if _is_picture(name)]
    if tars and pictures:
        raise ValueError(
            f"{tree.root} has both .tar shards and pictures; say which of them is meant: --kind shards, images, "
            "classes or coco"
        )
    if tars:
        return "shards"
    if options.annotations or _coco_files(tree):
        return "coco"
    stems = {stem_of(name) for name in pictures}
    captions = any(suffix_of(name) in (".txt", ".caption", ".json") and stem_of(name) in stems for name in tree.files)
    if captions or options.masks or _mask_folder(tree) or _tables(tree, options):
        return "images"
    outside = [name for name in pictures if name.count("/") != 1]
    _say_stray(tree, outside, {name.partition("/")[0] for name in pictures if name.count("/") == 1}, len(pictures))
    return "images" if outside or not pictures else "classes"


def _say_stray(tree: Tree, outside: list[str], folders: set[str], pictures: int) -> None:
    """A few pictures beside or below folders of classes would cost all others their classes without a word."""
    if len(folders) > 1 and 0 < len(outside) < pictures / 2:
        logger.warning(
            "%s is read as pictures without classes, for %d of %d are not in one of its %d folders: %s%s; for classes "
            "say --kind classes, or move these",
            *(tree.root, len(outside), pictures, len(folders), ", ".join(outside[:3]), ", …" * (len(outside) > 3)),
        )


def _shards(tree: Tree, options: SourceOptions) -> TarSource:
    if not any(suffix_of(name) == ".tar" for name in tree.files):
        raise ValueError(f"{tree.root} has no .tar shards; expected some, or another --kind")
    extra = [flag for flag in ("tables", "annotations", "masks") if getattr(options, flag)]
    if extra:
        raise ValueError(
            f"--{extra[0]} is for folders of pictures; in shards all that belongs to a picture has its name"
        )
    if DATASET in tree.files:
        return TarSource(tree=tree, captions=options.captions, classes=read_info(tree.root).classes, ours=True)
    return TarSource(tree=tree, captions=options.captions)


def _coco_files(tree: Tree) -> list[str]:
    stems = {stem_of(name) for name in tree.files if _is_picture(name)}
    top = [
        name
        for name in tree.files
        if suffix_of(name) == ".json"
        and stem_of(name) not in stems
        and ("/" not in name or name.startswith("annotations/"))
    ]
    return chosen_annotations([name for name in top if looks_like_coco(tree.root / name)])


def _annotations(tree: Tree, options: SourceOptions) -> list[str]:
    named = [_inside(tree, name) for name in options.annotations]
    for given, name in zip(options.annotations, named, strict=True):
        if name not in tree.files:
            raise ValueError(
                f"--annotations {given}: no such file in {tree.root}; expected a name of one in it, from there or from "
                "here"
            )
    found = named or _coco_files(tree)
    if not found:
        raise ValueError(f"{tree.root} has no COCO annotations; expected a JSON file, named with --annotations")
    return found


def _tables(tree: Tree, options: SourceOptions) -> tuple[str, ...]:
    """Those named, or all that have a column of files and one of captions."""
    if options.captions == "none":
        return ()
    named = tuple(_inside(tree, name) for name in options.tables)
    for given, name in zip(options.tables, named, strict=True):
        if name not in tree.files:
            raise ValueError(
                f"--table {given}: no such file in {tree.root}; expected a name of one in it, from there or from here"
            )
        opened = _open(tree, name, options)
        if isinstance(opened, Finding):
            raise ValueError(f"--table {name}: {opened.detail}")
    if named:
        return named
    found = [name for name in tree.files if suffix_of(name) in TABLES and _is_table(tree, name, options)]
    columns = {"--file-column": options.file_column, "--caption-column": options.caption_column}
    asked = " ".join(f"{flag} {column}" for flag, column in columns.items() if column is not None)
    if asked and all(isinstance(_open(tree, name, options), Finding) for name in found):
        raise ValueError(
            f"{asked}: none of {len(found)} tables in {tree.root} has such columns; expected names that a table's "
            "header has"
        )
    return tuple(found)


def _inside(tree: Tree, name: str) -> str:
    """A file of the tree by its name in it, or by its path from here; else the name as it is."""
    path = Path(name).resolve()
    return path.relative_to(tree.root).as_posix() if name not in tree.files and path.is_relative_to(tree.root) else name


def _is_table(tree: Tree, name: str, options: SourceOptions) -> bool:
    """A table that does not open, or lacks a column, is one as well, so that the report says why; but what
    img2dataset leaves beside folders of pictures tells nothing that is not beside each picture."""
    opened = _open(tree, name, options)
    beside = f"{stem_of(name)}_stats.json" in tree.files
    return not (isinstance(opened, Finding) and beside)


def _open(tree: Tree, name: str, options: SourceOptions) -> Table | Finding:
    if suffix_of(name) == ".parquet":
        check_parquet(tree.root / name)
    return open_table(tree.root, name, file=options.file_column, caption=options.caption_column)


def _mask_folder(tree: Tree) -> str | None:
    names = {name.partition("/")[0] for name in tree.files if suffix_of(name) == ".png" and "/" in name}
    tops = {name.partition("/")[0] for name in tree.files if _is_picture(name)}
    return next((name for name in MASK_FOLDERS if name in names and tops != {name}), None)


def _masks(tree: Tree, options: SourceOptions) -> Tree | None:
    name = options.masks or _mask_folder(tree)
    if name is None:
        return None
    folder = tree.root / name
    if not folder.is_dir():
        folder = Path(name).resolve()
    if not folder.is_dir():
        raise ValueError(f"--masks {name}: no such folder in {tree.root} or here")
    return walk(folder.resolve())
