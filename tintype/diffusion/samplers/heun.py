"""Heun's method: Euler, corrected by the slope at its end."""

import itertools
from collections.abc import Iterator

from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.step import Normal, Step, corrected


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """Karras et al. 2022, algorithm 1: second order, two evaluations a step but the last."""
    levels: list[float] = sigmas.tolist()
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        x, denoised = corrected(denoise, x, sigma, to)
        yield Step(index, len(levels) - 1, to, x, denoised)
