"""Random numbers. Everything is drawn on the CPU, so a seed means the same on every device."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


class Noise:
    """Standard normal noise for a batch of pictures, each from its own seed and so independent of its neighbours.

    Successive draws differ; two `Noise` objects of equal seeds give equal draws.
    """

    def __init__(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> None:
        self.seeds = tuple(seeds)
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def normal(self, shape: Sequence[int]) -> Tensor:
        """float32, (number of seeds, *shape)."""
        each = [torch.randn(tuple(shape), generator=generator) for generator in self._generators]
        return torch.stack(each).to(self.device)


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator that is a pure function of `key`, e.g. (seed, step): nothing to save when a run is resumed."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
