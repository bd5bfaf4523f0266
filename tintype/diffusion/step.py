"""What a sampler yields, and what it may ask of the noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """After step `index` of `count` (from 0): x: B C h w at `sigma`, and the estimate of x0 that led there."""

    index: int
    count: int
    sigma: float
    x: Tensor
    denoised: Tensor


class Normal(Protocol):
    """A source of standard normal noise, one independent stream per sample."""

    def normal(self, shape: Sequence[int]) -> Tensor: ...
