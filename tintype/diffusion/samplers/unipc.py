"""UniPC (Zhao et al. 2023): each step is predicted, and corrected once the denoiser has seen its end."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.step import Normal, Step

Known = Sequence[tuple[float, Tensor]]  # lambda = -log sigma and x0 of the last looks, newest first


def unipc(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """UniPC of order 2 on x0, B(h) = e^h - 1 (diffusers' choice); one evaluation a step: the correction of a step uses
    the look that the next one begins with. The order rises from 1, and falls to 1 at the end, which is not corrected.
    """
    return _walk(denoise, x, sigmas, most=2, bent=True)


def unipc_bh1(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """The same of order 3 with B(h) = h (the authors' own choice, whence A1111's and ComfyUI's)."""
    return _walk(denoise, x, sigmas, most=3, bent=False)


def unipc_bh2(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """The same of order 3 with B(h) = e^h - 1."""
    return _walk(denoise, x, sigmas, most=3, bent=True)


def _walk(denoise: Denoise, x: Tensor, sigmas: Tensor, *, most: int, bent: bool) -> Iterator[Step]:
    levels: list[float] = sigmas.tolist()
    known: Known = []
    start, order = x, 0  # of the step before: where it began, and its order
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        here = (-math.log(sigma), denoised)
        if known:
            x = _moved(start, known[:order], here[0], bent, ahead=denoised)
        known, start = [here, *known[: most - 1]], x
        order = min(most, len(known), len(levels) - 1 - index)
        x = denoised if to == 0 else _moved(start, known[:order], -math.log(to), bent)
        yield Step(index, len(levels) - 1, to, x, denoised)


def _moved(start: Tensor, known: Known, now: float, bent: bool, ahead: Tensor | None = None) -> Tensor:
    """UniP from `start`, where the newest look was, to lambda `now`; with the look `ahead` from there, UniC."""
    before, base = known[0]
    h = now - before
    x = base + math.exp(-h) * (start - base)
    places = [(point - before) / h for point, _ in known[1:]]
    slopes = [(look - base) / place for place, (_, look) in zip(places, known[1:], strict=True)]
    if ahead is not None:
        places, slopes = [*places, 1.0], [*slopes, ahead - base]
    scale = math.expm1(-h) if bent else -h
    for weight, slope in zip(_weights(places, h, scale), slopes, strict=True):
        x = x - scale * weight * slope
    return x


def _weights(places: list[float], h: float, scale: float) -> list[float]:
    """Of slopes towards looks at these places (in steps): the moments of the exponential's weight over the step are
    met (theorem 3.1). A single one weighs a half, which is so to the order needed."""
    if len(places) < 2:
        return [0.5] * len(places)
    moments: list[float] = []
    phi, factorial = math.expm1(-h) / -h - 1, 1
    for power in range(len(places)):
        moments.append(phi * factorial / scale)
        factorial *= power + 2
        phi = phi / -h - 1 / factorial
    return np.linalg.solve(np.vander(places, increasing=True).T, moments).tolist()
