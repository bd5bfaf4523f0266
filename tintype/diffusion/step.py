"""What a sampler yields, what it may ask of the noise, and how it parts a step between walking and fresh noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tintype.diffusion.denoiser import Denoise


@dataclass(frozen=True, slots=True)
class Step:
    """After step `index` of `count` (from 0): x: B C h w at `sigma`, and the estimate of x0 that led there.

    `count` may rise while an adaptive sampler runs, and does where a second pass begins.
    """

    index: int
    count: int
    sigma: float
    x: Tensor
    denoised: Tensor


Increment = Callable[[float, float], Tensor]  # (sigma, to) -> what a Brownian path did between, over its std


class Normal(Protocol):
    """A source of standard normal noise, one independent stream per sample."""

    def normal(self, shape: Sequence[int]) -> Tensor: ...

    def brownian(self, shape: Sequence[int], low: float, high: float) -> Increment:
        """One Brownian path per sample, over the noise levels low to high: a level asked for twice is the same point,
        so a picture hardly changes with the number of steps."""
        ...


def ancestral(sigma: float, to: float, eta: float) -> tuple[float, float]:
    """The level to walk down to, and the std of the fresh noise that leads from there back up to `to`; eta 1 is DDPM's
    posterior (Song et al. 2020, eq. 16)."""
    up = min(to, eta * to * max(1 - (to / sigma) ** 2, 0.0) ** 0.5)
    return (to**2 - up**2) ** 0.5, up


def corrected(denoise: Denoise, x: Tensor, sigma: float, to: float) -> tuple[Tensor, Tensor]:
    """A step of Heun's method, Euler corrected by the slope at its end: x at `to`, and the estimate of x0 at `sigma`;
    two evaluations, to zero one (Karras et al. 2022, algorithm 1)."""
    denoised = denoise(x, sigma)
    slope = (x - denoised) / sigma
    guess = x + (to - sigma) * slope
    if to > 0:
        slope = (slope + (guess - denoise(guess, to)) / to) / 2
        guess = x + (to - sigma) * slope
    return guess, denoised
