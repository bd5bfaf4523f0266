"""Restart (Xu et al. 2023): walk down, noise up again at low levels, walk down once more."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.step import Normal, Step, corrected

FROM, BACK_TO = 0.1, 2.0  # the levels between which the noise is put back


def restart(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """Heun steps, with about a quarter of them spent on one or two ways back from 0.1 to 2 (A1111's choice; below 20
    steps none). Of `sigmas` it takes the ends and the number, and spaces its own levels after Karras et al."""
    strides = _strides(sigmas)
    for index, (sigma, to) in enumerate(strides):
        if index and sigma > strides[index - 1][1]:
            x = x + (sigma**2 - strides[index - 1][1] ** 2) ** 0.5 * noise.normal(x.shape[1:])
        x, denoised = corrected(denoise, x, sigma, to)
        yield Step(index, len(strides), to, x, denoised)


def _strides(sigmas: Tensor) -> list[tuple[float, float]]:
    steps = len(sigmas) - 1
    if steps < 20:
        return list(itertools.pairwise(sigmas.tolist()))
    spent, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    levels = [*_karras(float(sigmas[-2]), float(sigmas[0]), steps - spent * times), 0.0]
    low = min(range(len(levels)), key=lambda index: abs(levels[index] - FROM))
    high = min(range(len(levels)), key=lambda index: abs(levels[index] - BACK_TO))
    strides = list(itertools.pairwise(levels))
    if high >= low or levels[low] == 0:
        return strides
    again = list(itertools.pairwise(_karras(levels[low], levels[high], spent + 1)))
    return strides[:low] + again * times + strides[low:]


def _karras(low: float, high: float, count: int, rho: float = 7.0) -> list[float]:
    ramp = torch.linspace(high ** (1 / rho), low ** (1 / rho), count, dtype=torch.float64)
    return (ramp**rho).tolist()
