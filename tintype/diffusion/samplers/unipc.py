"""UniPC (Zhao et al. 2023): each step is predicted, and corrected once the denoiser has seen its end."""

import itertools
import math
from collections.abc import Iterator

from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.step import Normal, Step


def unipc(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """UniPC of order 2 on x0, B(h) = e^h - 1; first order at the first and the last step. One evaluation a step: the
    correction of a step uses the look that the next one begins with."""
    levels: list[float] = sigmas.tolist()
    known: list[tuple[float, Tensor]] = []  # lambda and x0 of the last steps, newest first
    start, order = x, 0  # of the step before: where it began, and its order
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        if known:
            x = _corrected(start, known[:order], -math.log(sigma), denoised)
        known, start = [(-math.log(sigma), denoised), *known[:1]], x
        if to == 0:
            x = denoised
        else:
            h = math.log(sigma / to)
            order = len(known)
            x = denoised + (to / sigma) * (x - denoised)
            if order == 2:
                (now, newest), (before, second) = known
                x = x - 0.5 * math.expm1(-h) * (h / (now - before)) * (newest - second)
        yield Step(index, len(levels) - 1, to, x, denoised)


def _corrected(start: Tensor, known: list[tuple[float, Tensor]], now: float, denoised: Tensor) -> Tensor:
    """UniC: the step that led here again, with what the denoiser says at its end."""
    before, base = known[0]
    h = now - before
    x = base + math.exp(-h) * (start - base)
    expm1, ahead = math.expm1(-h), denoised - base
    share = -1 / expm1 - 1 / h  # of a straight x0: its mean over the step as the exponential weighs it
    if len(known) == 1:
        return x - 0.5 * expm1 * ahead
    first, earlier = known[1]
    ratio = (first - before) / h  # the earlier look, in steps from here; negative
    bent = -2 * share / h - 1 / expm1  # the same of a parabola
    back = (share - bent) / (1 - ratio)
    return x - expm1 * (back * (earlier - base) / ratio + (share - back) * ahead)
