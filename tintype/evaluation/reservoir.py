"""A fair sample of features that come in batches, of a size that does not depend on how many come."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tintype.evaluation.frechet import checked


class Reservoir:
    """Keeps the `size` rows whose positions have the smallest keys, a hash of (seed, position): every set of rows is as
    likely, and what is kept depends neither on batches nor on the order in which they come. With room for all, it
    keeps all. `positions`: N, rising; `features`: N D float32, N at most `size`.
    """

    def __init__(self, dim: int, size: int, *, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"a reservoir of {size}; expected room for 1 or more")
        self.size, self.seed = size, seed
        self.positions = torch.zeros(0, dtype=torch.int64)
        self.features = torch.zeros(0, dim)

    def update(self, features: Tensor, first: int) -> None:
        """features: B D, of positions first to first + B - 1, which must be new."""
        fresh = checked(features, self.features.shape[1]).to("cpu", torch.float32)
        positions = torch.cat([self.positions, torch.arange(first, first + len(fresh))])
        kept = torch.arange(len(positions))
        if len(positions) > self.size:
            lowest = np.argpartition(_keys(positions.numpy(), self.seed), self.size - 1)[: self.size]
            kept = torch.from_numpy(lowest)
        kept = kept[positions[kept].argsort()]
        if len(self.positions) < self.size or bool((kept >= len(self.positions)).any()):
            self.features = torch.cat([self.features, fresh])[kept]
            self.positions = positions[kept]


def _keys(positions: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood 2014), a stream for each seed; no two positions of one are equal."""
    start = np.uint64((seed * 0xD1B54A32D192ED03 + 1) % 2**64)
    x = (positions.astype(np.uint64) + start) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
