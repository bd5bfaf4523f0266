"""Reads what `tintype prepare` wrote: any sample by its number, whatever number of processes reads."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tintype.common.config import Json, from_json
from tintype.common.files import load_tensors
from tintype.conditioning.prompt import Framing
from tintype.data.pictures import Refused, read_classes, read_picture
from tintype.data.samples import Sample
from tintype.data.shards import CHUNK, DATASET, INDEX, KIND, VERSION, DatasetInfo, Shard, box_from_json, read_at


class Prepared:
    """A folder of `tintype prepare` as `Samples`. Each access reads its own bytes of one shard: threads and processes
    may share the object, and position in the data is one number.

    `sizes`: N 2 (height, width), upright; `labels`: N, -1 for none; `masked`: N, whether there is a mask;
    `picture_sha256`: N 32 uint8, of a picture's bytes.
    Raises `ValueError` for a folder that is not one, not whole, or of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = read_info(folder)
        self.classes = self.info.classes
        path = folder / INDEX
        if file_sha256(path) != self.info.index:
            raise ValueError(
                f"{path} is not the index that {DATASET} was written with; copy or prepare the folder again"
            )
        index = load_tensors(path)
        self._shard, self._picture, self._record, self._mask = (
            index[name].numpy() for name in ("shard", "picture", "record", "mask")
        )
        self.labels, self.picture_sha256 = index["label"].numpy(), index["sha256"].numpy()
        self.sizes = index["size"].numpy()[:, ::-1]
        self.masked = self._mask[:, 1] > 0

    def __len__(self) -> int:
        return self.info.samples

    def __getitem__(self, index: int, /) -> Sample:
        index = self._number(index)
        shard = self._open(index)
        try:
            told, picture, mask = (
                self._read(shard, index, places[index]) for places in (self._record, self._picture, self._mask)
            )
        finally:
            os.close(shard)
        sample = self._described(index, self._parse(index, told))
        try:
            pixels = np.asarray(read_picture(picture).image)
            return replace(sample, picture=pixels, mask=read_classes(mask) if mask else None)
        except Refused as error:
            raise self._damaged(index, str(error)) from error

    def described(self, index: int, /) -> Sample:
        """Without what has to be decoded, picture and mask."""
        return self._described(self._number(index), self.record(index))

    def _described(self, index: int, record: dict[str, Json]) -> Sample:
        captions = cast("list[str]", record.get("captions", []))
        boxes = cast("list[dict[str, float]]", record.get("boxes", []))
        label = int(self.labels[index])
        try:
            return Sample(
                name=cast("str | None", record.get("origin")),
                caption=captions[0] if captions else None,
                other_captions=tuple(captions[1:]),
                label=None if label < 0 else label,
                boxes=tuple(box_from_json(box) for box in boxes),
                framing=_framing(record, self.sizes[index].tolist()),
            )
        except KeyError as error:
            raise self._damaged(index, str(error)) from error

    def mask(self, index: int) -> NDArray[np.uint8] | None:
        """H W, the class at each pixel, where there is one."""
        index = self._number(index)
        if not self.masked[index]:
            return None
        shard = self._open(index)
        try:
            return read_classes(self._read(shard, index, self._mask[index]))
        except Refused as error:
            raise self._damaged(index, str(error)) from error
        finally:
            os.close(shard)

    def record(self, index: int) -> dict[str, Json]:
        """What is known of a sample, without its picture: key, origin, captions, and what its source gave."""
        index = self._number(index)
        shard = self._open(index)
        try:
            return self._parse(index, self._read(shard, index, self._record[index]))
        finally:
            os.close(shard)

    def _number(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index}: there are {len(self)}")
        return index % len(self)

    def _open(self, index: int) -> int:
        path = self.folder / self.info.shards[self._shard[index]].name
        try:
            return os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); copy or prepare the folder again") from error

    def _read(self, shard: int, index: int, place: np.ndarray) -> bytes:
        try:
            return read_at(shard, int(place[0]), int(place[1])) if place[1] else b""
        except EOFError as error:
            raise self._damaged(index, str(error)) from error

    def _parse(self, index: int, told: bytes) -> dict[str, Json]:
        try:
            return cast("dict[str, Json]", json.loads(told))
        except ValueError as error:
            raise self._damaged(index, str(error)) from error

    def _damaged(self, index: int, why: str) -> ValueError:
        name = self.info.shards[self._shard[index]].name
        return ValueError(
            f"{self.folder / name} is damaged: sample {index} ({why}); `tintype prepare --verify {self.folder}` lists "
            "damaged shards, and preparing again makes them anew"
        )


def _framing(record: dict[str, Json], size: list[int]) -> Framing | None:
    """What a picture was before it was made smaller: of one that keeps its size nothing need be told."""
    if "original_width" not in record:
        return None
    crop = cast("dict[str, float]", record.get("crop", {"left": 0.0, "top": 0.0, "width": 1.0, "height": 1.0}))
    return Framing(
        original_size=cast("tuple[int, int]", (record["original_height"], record["original_width"])),
        target_size=(size[0], size[1]),
        crop=(round(crop["top"] * size[0] / crop["height"]), round(crop["left"] * size[1] / crop["width"])),
    )


def read_info(folder: Path) -> DatasetInfo:
    """The content of dataset.json. Raises `ValueError` where there is none of ours."""
    path = folder / DATASET
    try:
        told = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} is not a prepared data set, or not a whole one: it has no {DATASET}; expected a folder that "
            "`tintype prepare` has finished"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); copy or prepare the folder again") from error
    if not isinstance(told, dict) or told.get("kind") != KIND:
        raise ValueError(f"{path} is not of a prepared data set; expected a folder that `tintype prepare` made")
    if told.get("version") != VERSION:
        raise ValueError(
            f"{path} is of version {told.get('version')}, this program reads {VERSION}; prepare the folder again, or "
            "use the program that wrote it"
        )
    return from_json(DatasetInfo, cast("Json", told))


def damaged(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and fault of every file that is not as it was written, by its checksum."""
    info = read_info(folder)
    if not (folder / INDEX).is_file() or file_sha256(folder / INDEX) != info.index:
        yield INDEX, "absent" if not (folder / INDEX).is_file() else "its checksum is another"
    for shard in info.shards:
        if fault := fault_of(folder, shard):
            yield shard.name, fault


def fault_of(folder: Path, shard: Shard) -> str:
    """What is wrong with a shard; nothing if it is as it was written."""
    path = folder / shard.name
    if not path.is_file():
        return "absent"
    if path.stat().st_size != shard.bytes:
        return f"{path.stat().st_size} bytes; expected {shard.bytes}"
    return "" if file_sha256(path) == shard.sha256 else "its checksum is another"


def file_sha256(path: Path) -> str:
    """Hexadecimal digest of a file. Raises `ValueError` when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    return digest.hexdigest()
