"""DPM-Solver++ singlestep (Lu et al. 2022): a second look half-way in lambda = -log sigma."""

import itertools
import math
from collections.abc import Iterator

from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.step import Normal, Step, ancestral


def dpmpp_2s(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """DPM-Solver++(2S) on given levels, two by two: the first is a guess, at which the step over both takes its second
    look (diffusers' singlestep solver). A level left over, and a step to zero, are of first order."""
    levels: list[float] = sigmas.tolist()
    begun: tuple[float, Tensor, Tensor] | None = None  # of a step over two levels: where it began, x and x0 there
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        if begun and to > 0:
            first, start, base = begun
            part = math.log(first / sigma) / math.log(first / to)
            x, begun = _toward(base + (denoised - base) / (2 * part), start, to / first), None
        else:
            begun = (sigma, x, denoised)
            x = _toward(denoised, x, to / sigma) if to > 0 else denoised
        yield Step(index, len(levels) - 1, to, x, denoised)


def dpmpp_2s_ancestral(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, eta: float = 1.0
) -> Iterator[Step]:
    """DPM-Solver++(2S) (algorithm 1 with r = 1/2) down to the lower level, fresh noise back up; eta 0 is the ODE's."""
    levels: list[float] = sigmas.tolist()
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        down, up = ancestral(sigma, to, eta)
        if down > 0:
            halfway = (sigma * down) ** 0.5
            guess = _toward(denoised, x, halfway / sigma)
            x = _toward(denoise(guess, halfway), x, down / sigma)
        else:
            x = denoised
        if up > 0:
            x = x + up * noise.normal(x.shape[1:])
        yield Step(index, len(levels) - 1, to, x, denoised)


def dpmpp_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, eta: float = 1.0) -> Iterator[Step]:
    """SDE-DPM-Solver++ of k-diffusion, r = 1/2: both looks walk down and are lifted along one Brownian path."""
    levels: list[float] = sigmas.tolist()
    path = noise.brownian(x.shape[1:], min(filter(None, levels)), max(levels))
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        if to > 0:
            halfway = math.sqrt(sigma * to)
            down, up = ancestral(sigma, halfway, eta)
            guess = _toward(denoised, x, down / sigma)
            if up > 0:
                guess = guess + up * path(sigma, halfway)
            down, up = ancestral(sigma, to, eta)
            x = _toward(denoise(guess, halfway), x, down / sigma)
            if up > 0:
                x = x + up * path(sigma, to)
        else:
            x = denoised
        yield Step(index, len(levels) - 1, to, x, denoised)


def _toward(denoised: Tensor, x: Tensor, kept: float) -> Tensor:
    """The exact way of x for a denoised that stays: `kept` of the noise is left."""
    return denoised + kept * (x - denoised)
