"""Random numbers. Everything is drawn on the CPU, so a seed means the same on every device."""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor


class Noise:
    """Standard normal noise for a batch of pictures, each from its own seed and so independent of its neighbours.

    Successive draws differ; two `Noise` objects of equal seeds give equal draws. `others`: seeds, one for each, whose
    noise the pictures start nearer to, by a share of the way.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        device: torch.device | str = "cpu",
        others: Sequence[int] = (),
        share: float = 0.0,
    ) -> None:
        self.seeds = tuple(seeds)
        self.device = torch.device(device)
        self._others_seeds, self._share = tuple(others) if share else (), share
        self.restart()

    @classmethod
    def joined(cls, noises: "Sequence[Noise]") -> "Noise":
        """One `Noise` of several, which goes on where each of them is."""
        made = cls([seed for one in noises for seed in one.seeds], device=noises[0].device)
        made._generators = [drawn for one in noises for drawn in one._generators]
        return made

    def restart(self) -> None:
        """The next draws are the first ones again."""
        self._generators, self._others = (
            [torch.Generator().manual_seed(seed) for seed in some] for some in (self.seeds, self._others_seeds)
        )

    def normal(self, shape: Sequence[int]) -> Tensor:
        """float32, (number of seeds, *shape)."""
        return _drawn(self._generators, shape).to(self.device)

    def first(self, shape: Sequence[int]) -> Tensor:
        """What a picture starts from: as `normal`, but between the noise of its seed and that of its other one. All
        other draws are its own seed's, whatever the share."""
        own = _drawn(self._generators, shape)
        return (slerp(own, _drawn(self._others, shape), self._share) if self._others else own).to(self.device)

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


def _drawn(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


def slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """From `start` (share 0) to `end` (1) along the arc between them, so that noise stays as large as noise (Shoemake
    1985). Each column of a picture (the last axis but one) is a vector of its own, as in A1111; those that are parallel
    go straight."""
    if share in (0, 1):
        return end if share else start
    across = torch.linalg.vecdot(_unit(start), _unit(end), dim=-2).unsqueeze(-2)
    angle = across.clamp(-1, 1).acos()
    arc = ((1 - share) * angle).sin() * start + (share * angle).sin() * end
    size = angle.sin()
    return torch.where(size > 1e-3, arc / size, torch.lerp(start, end, share))


def _unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, dim=-2, keepdim=True)


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator that is a pure function of `key`, e.g. (seed, step): nothing to save when a run is resumed."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
