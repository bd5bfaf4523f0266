"""PNDM (Liu et al. 2022): pseudo Runge-Kutta to begin with, pseudo linear multistep after."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.schedule import Schedule
from tintype.diffusion.step import Normal, Step


def pndm(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, schedule: Schedule) -> Iterator[Step]:
    """F-PNDM, algorithm 1: three steps of classical Runge-Kutta (four evaluations each, the middle ones half-way in the
    time of `schedule`), then Adams-Bashforth weights for equal steps. Four steps at least."""
    levels: list[float] = sigmas.tolist()
    slopes: list[Tensor] = []  # newest first
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        slope = (x - denoised) / sigma
        slopes = [slope, *slopes[:3]]
        if index < 3 and to > 0:
            halfway = _halfway(schedule, sigma, to)

            def at(level: float, slope: Tensor, start: Tensor = x, sigma: float = sigma) -> Tensor:
                guess = start + (level - sigma) * slope
                return (guess - denoise(guess, level)) / level

            second = at(halfway, slope)
            third = at(halfway, second)
            slope = (slope + 2 * second + 2 * third + at(to, third)) / 6
        elif index >= 3:
            slope = (55 * slopes[0] - 59 * slopes[1] + 37 * slopes[2] - 9 * slopes[3]) / 24
        x = x + (to - sigma) * slope
        yield Step(index, len(levels) - 1, to, x, denoised)


def _halfway(schedule: Schedule, sigma: float, to: float) -> float:
    """The level half-way in training time."""
    return float(schedule.sigma(schedule.t(torch.tensor([sigma, to], dtype=torch.float64)).mean()))
