"""Random numbers. Everything is drawn on the CPU, so a seed means the same on every device."""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import cast

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

    def brownian(self, shape: Sequence[int], low: float, high: float) -> Callable[[float, float], Tensor]:
        """Brownian paths over [low, high], a function of seed and interval alone: (a, b) gives what each path did from
        a to b over its standard deviation: float32, (number of seeds, *shape)."""
        from torchsde import BrownianInterval

        digits = 6  # that torchsde rounds times to; the ends are rounded outwards, so that all levels lie within
        low, high = math.floor(low * 10**digits) / 10**digits, math.ceil(high * 10**digits) / 10**digits
        paths = [
            BrownianInterval(
                t0=low,
                t1=high,
                size=tuple(shape),
                dtype=torch.float32,
                entropy=seed,
                tol=10**-digits,
                pool_size=24,
                cache_size=256,  # of torchsde's 45 the next step finds too few again: a third slower
                halfway_tree=True,
            )
            for seed in self.seeds
        ]

        def increment(a: float, b: float) -> Tensor:
            start, end = sorted((a, b))
            moved = torch.stack([cast(Tensor, path(start, end)) for path in paths]) / (end - start) ** 0.5
            return (moved if a < b else -moved).to(self.device)

        return increment


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator that is a pure function of `key`, e.g. (seed, step): nothing to save when a run is resumed."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
