"""Tensor files, opened by what is in them and not by their names: safetensors, or what `torch.save` writes.

Opening reads names and shapes only. A tensor is mapped, so that it takes no memory until it is used and none twice, or
read where the caller is going to change it anyway.
"""

import json
import math
import mmap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tintype.checkpoints.pickled import BARE_PICKLE, bare_tensors, pickled_tensors
from tintype.checkpoints.stored import Stored

PAGE = mmap.PAGESIZE

SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Mapped(NamedTuple):
    """A file and its bytes in memory: privately, so that writing to them never changes the file."""

    path: Path
    raw: mmap.mmap


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The tensors of one or several files (shards) by name, and the text entries of the header."""

    where: str
    tensors: Mapping[str, tuple[Mapped, Stored]]
    metadata: Mapping[str, str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: stored.shape for name, (_, stored) in self.tensors.items()}

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(file.path for file, _ in self.tensors.values()))

    def dtype(self, name: str) -> torch.dtype:
        return self.tensors[name][1].dtype

    def read(self, name: str) -> Tensor:
        """The tensor in its own precision, mapped from the file, which changing it does not change."""
        (_, raw), stored = self.tensors[name]
        if not stored.span:
            return torch.empty(stored.shape, dtype=stored.dtype)
        begin, size = stored.begin + stored.offset * stored.dtype.itemsize, stored.span * stored.dtype.itemsize
        content = np.frombuffer(raw, np.uint8, size, begin)
        if begin % stored.dtype.itemsize:
            content = np.array(content)
        return torch.from_numpy(content).view(stored.dtype).as_strided(stored.shape, stored.stride)

    def release(self, name: str) -> None:
        """Let go of the memory that reading this tensor took, once it was copied; nothing must have written to it."""
        (_, raw), stored = self.tensors[name]
        size = stored.dtype.itemsize
        begin, end = (stored.begin + at * size for at in (stored.offset, stored.offset + stored.span))
        first, last = -(-begin // PAGE) * PAGE, end // PAGE * PAGE
        if last > first and hasattr(raw, "madvise"):  # Windows has none
            raw.madvise(mmap.MADV_DONTNEED, first, last - first)

    def renamed(self, change: Callable[[str], str]) -> "TensorFile":
        """The same tensors under other names."""
        return TensorFile(self.where, {change(name): one for name, one in self.tensors.items()}, self.metadata)

    def below(self, prefix: str) -> "TensorFile":
        """The tensors whose names begin so, without it."""
        tensors = {name.removeprefix(prefix): one for name, one in self.tensors.items() if name.startswith(prefix)}
        return TensorFile(self.where, tensors, self.metadata)


def open_tensors(paths: Path | Iterable[Path]) -> TensorFile:
    """Raises `ValueError` for a file that is neither kind, damaged, or not only tensors; nothing of it is ever run."""
    paths = [paths] if isinstance(paths, Path) else list(paths)
    found: dict[str, tuple[Mapped, Stored]] = {}
    metadata: dict[str, str] = {}
    for path in paths:
        tensors, texts = _opened(path)
        file = _mapped(path)
        found |= {name: (file, stored) for name, stored in tensors.items()}
        metadata |= texts
    return TensorFile(str(paths[0]), found, metadata)


def _opened(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; expected a file of weights") from error
    if start.startswith(b"PK\x03\x04"):
        return pickled_tensors(path), {}
    if start.startswith(BARE_PICKLE):
        return bare_tensors(path), {}
    if start.startswith(b"version https://"):
        raise ValueError(f"{path} is a Git LFS pointer, not the weights themselves; run: git lfs pull")
    return _safetensors(path, start)


def _safetensors(path: Path, start: bytes) -> tuple[dict[str, Stored], dict[str, str]]:
    try:
        with safe_open(path, framework="np") as checked:  # its own checks: sizes, overlaps, a header that fits
            metadata = checked.metadata() or {}
    except (SafetensorError, OSError) as error:
        if start.startswith(b"\x80"):  # which the length of a safetensors header may begin with as well
            raise ValueError(
                f"{path} is a pickle that torch.save did not write, which only running it could read; nothing was run. "
                "If you trust where it comes from, have it converted to .safetensors there"
            ) from None
        raise ValueError(
            f"{path} is not a whole file of weights ({error}); expected .safetensors, or a .ckpt as torch.save "
            "writes it; copy or download it again"
        ) from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = cast("dict[str, dict[str, object]]", json.loads(file.read(length)))
    tensors: dict[str, Stored] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in SAFETENSORS_DTYPES:
            raise ValueError(f"{path}: {name} is of type {entry['dtype']}; expected {', '.join(SAFETENSORS_DTYPES)}")
        shape = tuple(cast("list[int]", entry["shape"]))
        begin = 8 + length + cast("list[int]", entry["data_offsets"])[0]
        tensors[name] = Stored(begin, SAFETENSORS_DTYPES[str(entry["dtype"])], shape, _strides(shape), 0)
    return tensors, metadata


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _mapped(path: Path) -> Mapped:
    with path.open("rb") as file:
        return Mapped(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
