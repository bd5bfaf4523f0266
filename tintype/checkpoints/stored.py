"""Where a tensor lies in a file."""

from typing import NamedTuple

import torch


class Stored(NamedTuple):
    """begin: byte at which its storage begins; offset and stride: in elements of dtype, from there."""

    begin: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def span(self) -> int:
        """Elements from its first to its last, both counted."""
        if 0 in self.shape:
            return 0
        return sum((side - 1) * step for side, step in zip(self.shape, self.stride, strict=True)) + 1
