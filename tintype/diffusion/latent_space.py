"""Between an autoencoder's raw latents and the unit-variance latents that diffusion works on."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tintype.common.device import sent


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentSpace:
    """wrapped = (raw - shift) * scale. One number for all channels, as Stable Diffusion does (scale 0.18215), or one
    per channel."""

    scale: tuple[float, ...] = (0.18215,)
    shift: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if not all(math.isfinite(one) and one for one in self.scale) or not all(map(math.isfinite, self.shift)):
            raise ValueError(f"space: scale {self.scale}, shift {self.shift}: expected finite numbers, no scale of 0")

    def wrap(self, z: Tensor) -> Tensor:
        """Raw latents B C h w -> unit variance."""
        return (z - _column(self.shift, z)) * _column(self.scale, z)

    def unwrap(self, z: Tensor) -> Tensor:
        """The inverse of `wrap`."""
        return z / _column(self.scale, z) + _column(self.shift, z)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return sent(torch.tensor(values, dtype=like.dtype)[:, None, None], like.device)


class LatentMoments:
    """Mean and variance of raw latents, taken in a few at a time and in float64: memory does not grow with them."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = torch.zeros(0, dtype=torch.float64)
        self._squares = torch.zeros(0, dtype=torch.float64)

    def add(self, mean: Tensor, std: Tensor) -> None:
        """Posteriors of raw latents, B C h w each; std 0 where a latent is a point."""
        mean, variance = mean.detach().double().cpu(), std.detach().double().cpu().square()
        if not self._count:
            self._sum, self._squares = torch.zeros((2, mean.shape[1]), dtype=torch.float64).unbind()
        self._count += mean.numel() // mean.shape[1]
        self._sum = self._sum + mean.sum(dim=(0, 2, 3))
        self._squares = self._squares + (mean.square() + variance).sum(dim=(0, 2, 3))

    def space(self, *, per_channel: bool) -> LatentSpace:
        """What gives samples unit variance: shift and scale of each channel, or one scale for all numbers, as LDM's
        `scale_by_std` (Rombach et al. 2022, appendix G). Raises `ValueError` where nothing was added or nothing
        varies."""
        if not self._count:
            raise ValueError("no latents to measure; expected one or more")
        mean, squares = self._sum / self._count, self._squares / self._count
        if not per_channel:
            mean, squares = mean.mean()[None], squares.mean()[None]
        std = (squares - mean.square()).clamp(min=0).sqrt()
        if not (std > 0).all():
            raise ValueError(
                f"latents do not vary: std {std.tolist()}; expected more than 0: train longer, or more data"
            )
        shift = tuple(mean.tolist()) if per_channel else (0.0,)
        return LatentSpace(scale=tuple((1 / std).tolist()), shift=shift)
