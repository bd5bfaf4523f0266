"""Large pictures in parts: tiles that overlap, blended linearly where they do, so that memory is a tile's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tintype.diffusion.denoiser import Bindable, Network, Perturbable


@dataclass(frozen=True, slots=True)
class Tiling:
    """Squares of so many cells a side, of which neighbours share `overlap`; half of them at most."""

    size: int
    overlap: int

    def starts(self, length: int) -> list[int]:
        """Where tiles begin along a side; the last ends with it."""
        step = self.size - self.overlap
        last = max(length - self.size, 0)
        return [*range(0, last, step), last]

    def parts(self, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of each tile; a tile may be larger than the whole."""
        for top in self.starts(height):
            for left in self.starts(width):
                yield slice(top, min(top + self.size, height)), slice(left, min(left + self.size, width))

    @lru_cache(maxsize=8)  # noqa: B019 (a tiling is a value, and small)
    def shares(self, length: int, device: torch.device) -> dict[int, Tensor]:
        """By its start, what each tile along a side has to say at each of its cells: it falls linearly over what is
        shared, and the shares of all tiles add up to one."""
        starts = self.starts(length)
        raw: dict[int, Tensor] = {}
        total = torch.zeros(length)
        for start in starts:
            cells = torch.arange(min(self.size, length)) + 0.5
            share = torch.ones_like(cells)
            if self.overlap and start > 0:
                share = torch.minimum(share, cells / self.overlap)
            if self.overlap and start < starts[-1]:
                share = torch.minimum(share, (self.size - cells) / self.overlap)
            raw[start] = share
            total[start : start + len(share)] += share
        return {start: (share / total[start : start + len(share)]).to(device) for start, share in raw.items()}

    def blended(self, x: Tensor, answer: Callable[[Tensor], Tensor], *, factor: int = 1) -> Tensor:
        """What `answer` says of all tiles of x (B C h w), as one B C' h w, on the CPU where x is decoded `factor` times
        larger: one tile is in work at a time."""
        height, width = x.shape[-2:]
        grown = Tiling(self.size * factor, self.overlap * factor)
        kept = x.device if factor == 1 else torch.device("cpu")
        down, across = grown.shares(height * factor, kept), grown.shares(width * factor, kept)
        result: Tensor | None = None
        for rows, columns in self.parts(height, width):
            found = answer(x[..., rows, columns])
            top, left = rows.start * factor, columns.start * factor
            share = down[top][:, None] * across[left]  # h w of the tile
            if result is None:
                shape = (*found.shape[:2], height * factor, width * factor)
                result = torch.zeros(shape, dtype=torch.float32, device=kept)
            place = result[..., top : rows.stop * factor, left : columns.stop * factor]
            place += found.to(place) * share
        assert result is not None
        return result


@dataclass(frozen=True, slots=True)
class Tiled:
    """A network that is asked of one tile at a time. What is said of a place is the mean of all tiles that see it, at
    every step, so they draw one picture (MultiDiffusion: Bar-Tal et al. 2023). Extra channels are cut as x is, since
    they come with it; context and vector are those of the whole."""

    network: Network
    tiling: Tiling

    def __call__(self, x: Tensor, t: Tensor, context: Tensor | None, vector: Tensor | None) -> Tensor:
        return self.tiling.blended(x, lambda tile: self.network(tile, t, context, vector))

    def bind(self, context: Tensor | None, vector: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        assert isinstance(self.network, Bindable)
        return self._bound(self.network.bind(context, vector))

    def bind_perturbed(self, context: Tensor | None, vector: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        assert isinstance(self.network, Perturbable)
        return self._bound(self.network.bind_perturbed(context, vector))

    def _bound(self, network: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: self.tiling.blended(x, lambda tile: network(tile, t))
