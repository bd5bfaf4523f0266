"""A prepared data set on disk: tar shards that WebDataset reads as well, and an index of what is where in them.

OUT/00000.tar …         000000000.jpg (or png, webp), 000000000.json, 000000000.mask.png, 000000001.jpg …
OUT/index.safetensors   for each sample: shard, places of picture, record and mask, size, class, checksum
OUT/dataset.json        version, classes, checksums of shards and index; written last
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import torch
from torch import Tensor

from tintype.conditioning.layout import Box, Region

VERSION = 1
KIND = "tintype prepared samples"
DATASET, INDEX, REPORT, FINDINGS = "dataset.json", "index.safetensors", "report.json", "report.jsonl"
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One tar file; `name` is relative to the folder."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """The content of dataset.json. `source`: digest of names and sizes of all files it was made of; `options` and
    `origin`: how it was made, for people and for `tintype prepare` to know its own folder again."""

    kind: str = KIND
    version: int = VERSION
    samples: int
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    index: str
    source: str
    options: dict[str, str]

    @property
    def digest(self) -> str:
        """Of all that a reader sees."""
        parts = [self.index, *self.classes, *(shard.sha256 for shard in self.shards)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Where a sample is: (first byte, bytes) in its shard; (0, 0) for no mask. `sha256`: of the picture's bytes."""

    picture: tuple[int, int]
    record: tuple[int, int]
    mask: tuple[int, int]
    width: int
    height: int
    label: int
    sha256: bytes


def columns(rows: Sequence[Row], shard: int) -> dict[str, Tensor]:
    """Rows of one shard as tensors, one row each; label -1 is none."""
    count = len(rows)
    return {
        "shard": torch.full((count,), shard, dtype=torch.int32),
        "picture": torch.tensor([row.picture for row in rows], dtype=torch.int64).view(count, 2),
        "record": torch.tensor([row.record for row in rows], dtype=torch.int64).view(count, 2),
        "mask": torch.tensor([row.mask for row in rows], dtype=torch.int64).view(count, 2),
        "size": torch.tensor([(row.width, row.height) for row in rows], dtype=torch.int32).view(count, 2),
        "label": torch.tensor([row.label for row in rows], dtype=torch.int64),
        "sha256": torch.tensor([list(row.sha256) for row in rows], dtype=torch.uint8).view(count, 32),
    }


class HashedFile:
    """What tarfile writes to: passes it on and digests it on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        return self.file.write(content)

    def tell(self) -> int:
        return self.file.tell()


class ShardWriter:
    """Members in order, without dates and owners: the same content gives the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._out = HashedFile(file)
        self._tar = tarfile.TarFile(fileobj=cast(BinaryIO, self._out), mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, name: str, content: bytes) -> tuple[int, int]:
        """Returns the place of the content."""
        info = tarfile.TarInfo(name)
        info.size = len(content)
        first = self._out.tell() + tarfile.BLOCKSIZE  # one block of header, for names are short
        self._tar.addfile(info, io.BytesIO(content))
        return first, len(content)

    def close(self) -> tuple[int, str]:
        """Returns bytes and digest of the whole file."""
        self._tar.close()
        return self._out.tell(), self._out.sha256.hexdigest()


def box_to_json(box: Box, classes: Sequence[str]) -> dict[str, str | int | float | bool]:
    """As it stands in a record; marks only where they are set."""
    region = box.region
    told: dict[str, str | int | float | bool] = {"label": box.label}
    if box.label < len(classes):
        told["class"] = classes[box.label]
    told |= {"left": region.left, "top": region.top, "width": region.width, "height": region.height}
    return told | {name: True for name in ("group", "occluded", "depiction", "inside") if getattr(box, name)}


def box_from_json(told: dict[str, float]) -> Box:
    """The inverse. Raises `KeyError`, `TypeError` or `ValueError` for what is no box."""
    region = Region(left=told["left"], top=told["top"], width=told["width"], height=told["height"])
    return Box(
        label=int(told["label"]),
        region=region,
        group=bool(told.get("group")),
        occluded=bool(told.get("occluded")),
        depiction=bool(told.get("depiction")),
        inside=bool(told.get("inside")),
    )


def read_at(descriptor: int, offset: int, size: int) -> bytes:
    """So many bytes from there; several readers may share the descriptor. Raises `EOFError` where there are fewer."""
    parts: list[bytes] = []
    while size > 0 and (part := os.pread(descriptor, size, offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    if size > 0:
        raise EOFError(f"{size} bytes are missing at {offset}")
    return parts[0] if len(parts) == 1 else b"".join(parts)
