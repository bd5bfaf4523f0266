"""PNDM (Liu et al. 2022): pseudo Runge-Kutta to begin with, pseudo linear multistep after."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.scaling import Answers, Scaling, eps
from tintype.diffusion.schedule import Schedule
from tintype.diffusion.step import Normal, Step


def pndm(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, schedule: Schedule, averaged: Scaling = eps
) -> Iterator[Step]:
    """F-PNDM, algorithm 1: three steps of classical Runge-Kutta (four evaluations each, the middle ones half-way in the
    time of `schedule`), then Adams-Bashforth weights for equal steps. Four steps at least. `averaged` as in `plms`."""
    levels: list[float] = sigmas.tolist()
    known: list[Tensor] = []  # newest first
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        answers = Answers(averaged, x, sigma)
        answer = answers.of(denoised)
        known = [answer, *known[:3]]
        if index < 3 and to > 0:
            halfway = _halfway(schedule, sigma, to)

            def at(level: float, answer: Tensor, start: Answers = answers) -> Tensor:
                guess = start.x + (level - start.sigma) * start.slope(answer)
                return Answers(averaged, guess, level).of(denoise(guess, level))

            second = at(halfway, answer)
            third = at(halfway, second)
            answer = (answer + 2 * second + 2 * third + at(to, third)) / 6
        elif index >= 3:
            answer = (55 * known[0] - 59 * known[1] + 37 * known[2] - 9 * known[3]) / 24
        x = x + (to - sigma) * answers.slope(answer)
        yield Step(index, len(levels) - 1, to, x, denoised)


def _halfway(schedule: Schedule, sigma: float, to: float) -> float:
    """The level half-way in training time."""
    return float(schedule.sigma(schedule.t(torch.tensor([sigma, to], dtype=torch.float64)).mean()))
