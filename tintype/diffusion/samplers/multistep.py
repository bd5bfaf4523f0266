"""Linear multistep methods: the slope dx/dsigma is extrapolated from the steps before."""

import itertools
import math
from collections.abc import Iterator, Sequence

from numpy.polynomial import polynomial
from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.scaling import Answers, Scaling, eps
from tintype.diffusion.step import Normal, Step

ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def plms(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, averaged: Scaling = eps) -> Iterator[Step]:
    """PLMS (Liu et al. 2022, eq. 12): Adams-Bashforth weights for equal steps, up to fourth order.

    The first step is tried, looked at from its end and taken again with the mean answer (Stable Diffusion's choice).
    `averaged`: which answer of a network is averaged, eps or, as in diffusers' PNDM, what it predicts itself.
    """
    levels: list[float] = sigmas.tolist()
    known: list[Tensor] = []  # newest first
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        answers = Answers(averaged, x, sigma)
        known = [answers.of(denoised), *known[:3]]
        if index == 0 and to > 0:
            guess = x + (to - sigma) * answers.slope(known[0])
            answer = (known[0] + Answers(averaged, guess, to).of(denoise(guess, to))) / 2
        else:
            answer = _weighted(known, ADAMS_BASHFORTH[len(known) - 1])
        x = x + (to - sigma) * answers.slope(answer)
        yield Step(index, len(levels) - 1, to, x, denoised)


def lms(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """Adams-Bashforth for unequal steps, fourth order: the polynomial through the last slopes, integrated."""
    levels: list[float] = sigmas.tolist()
    slopes: list[Tensor] = []  # newest first
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[:3]]
        known = levels[index::-1][: len(slopes)]
        x = x + _weighted(slopes, _integrals(known, sigma, to))
        yield Step(index, len(levels) - 1, to, x, denoised)


def ipndm(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """PLMS that begins with a plain Euler step: one evaluation a step (Zhang & Chen 2022 call it improved PNDM)."""
    levels: list[float] = sigmas.tolist()
    slopes: list[Tensor] = []  # newest first
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[:3]]
        x = x + (to - sigma) * _weighted(slopes, ADAMS_BASHFORTH[len(slopes) - 1])
        yield Step(index, len(levels) - 1, to, x, denoised)


def deis(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """DEIS, log-rho, second order (Zhang & Chen 2022): the line through two slopes over log sigma, integrated.

    First order at the first step and, as in diffusers, at the last one to zero or of fewer than 15."""
    levels: list[float] = sigmas.tolist()
    lowered = len(levels) - 2 if len(levels) - 1 < 15 or levels[-1] == 0 else None
    last: tuple[float, Tensor] | None = None
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        slope = (x - denoised) / sigma
        moved = (to - sigma) * slope
        if last and index != lowered:
            before, earlier = last
            bend = (to * (math.log(to / sigma) - 1) + sigma) / math.log(sigma / before)
            moved = moved + bend * (slope - earlier)
        last = sigma, slope
        x = x + moved
        yield Step(index, len(levels) - 1, to, x, denoised)


def _weighted(slopes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        total = total + weight * slope
    return total


def _integrals(known: list[float], begin: float, end: float) -> list[float]:
    """Integral from begin to end of each Lagrange basis polynomial through the points `known`."""
    points = [point - begin for point in known]  # from an origin near them all, large levels lose no digits
    found: list[float] = []
    for number, point in enumerate(points):
        others = points[:number] + points[number + 1 :]
        whole = polynomial.polyint(polynomial.polyfromroots(others))
        found.append(float(polynomial.polyval(end - begin, whole)) / math.prod(point - other for other in others))
    return found
