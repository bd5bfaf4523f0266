"""DPM-Solver-2 as k-diffusion writes it: the slope half-way in log sigma carries the whole step."""

import itertools
from collections.abc import Iterator

from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.step import Normal, Step, ancestral


def dpm_2(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """Karras et al. 2022, algorithm 2 without churn: second order, two evaluations a step but the last."""
    return dpm_2_ancestral(denoise, x, sigmas, noise, eta=0.0)


def dpm_2_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, eta: float = 1.0) -> Iterator[Step]:
    """The same down to the lower level, fresh noise back up to the step's."""
    levels: list[float] = sigmas.tolist()
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        down, up = ancestral(sigma, to, eta)
        slope = (x - denoised) / sigma
        if down > 0:
            halfway = (sigma * down) ** 0.5
            guess = x + (halfway - sigma) * slope
            slope = (guess - denoise(guess, halfway)) / halfway
        x = x + (down - sigma) * slope
        if up > 0:
            x = x + up * noise.normal(x.shape[1:])
        yield Step(index, len(levels) - 1, to, x, denoised)
