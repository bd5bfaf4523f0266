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
