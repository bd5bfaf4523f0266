"""DPM-Solver++ multistep (Lu et al. 2022): exact in the linear part, x0 extrapolated in lambda = -log sigma."""

import itertools
import math
from collections.abc import Iterator

from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.step import Normal, Step


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """DPM-Solver++(2M), algorithm 2; first order at the first and at the last step."""
    return dpmpp_2m_sde(denoise, x, sigmas, noise, eta=0.0)


def dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, eta: float = 1.0) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M), midpoint form; eta 0 is DPM-Solver++(2M).

    eta means what it means in DDIM: short steps put in eta^2 (sigma^2 - to^2) of variance; k-diffusion's is its square.
    """
    return _multistep(denoise, x, sigmas, noise, eta, order=2, midpoint=True)


def dpmpp_2m_sde_heun(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, eta: float = 1.0
) -> Iterator[Step]:
    """The same with the slope of x0 integrated exactly, instead of taken as x0 at half the way."""
    return _multistep(denoise, x, sigmas, noise, eta, order=2, midpoint=False)


def dpmpp_3m_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, eta: float = 1.0) -> Iterator[Step]:
    """SDE-DPM-Solver++(3M) of k-diffusion: slope and curvature of x0; eta as in `dpmpp_2m_sde`."""
    return _multistep(denoise, x, sigmas, noise, eta, order=3, midpoint=False)


def _multistep(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, eta: float, *, order: int, midpoint: bool
) -> Iterator[Step]:
    levels: list[float] = sigmas.tolist()
    path = noise.brownian(x.shape[1:], min(filter(None, levels)), levels[0]) if eta > 0 else None
    known: list[tuple[float, Tensor]] = []  # lambda and x0 of the last steps, newest first
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        known = [(-math.log(sigma), denoised), *known[: order - 1]]
        if to == 0:
            x = denoised
        else:
            h = math.log(sigma / to)
            whole = h * (1 + eta**2)
            x = math.exp(-whole) * x - math.expm1(-whole) * denoised + _beyond(known, h, whole, midpoint)
            if path is not None:
                x = x + to * (-math.expm1(-2 * h * eta**2)) ** 0.5 * path(sigma, to)
        yield Step(index, len(levels) - 1, to, x, denoised)


def _beyond(known: list[tuple[float, Tensor]], h: float, whole: float, midpoint: bool) -> Tensor | float:
    """What x0's slope and curvature add to a step of h that decays by `whole`."""
    if len(known) == 1:
        return 0.0
    (now, newest), (before, second) = known[:2]
    slope = (newest - second) * (h / (now - before))
    if midpoint:
        return -0.5 * math.expm1(-whole) * slope
    phi = math.expm1(-whole) / whole + 1
    if len(known) == 2:
        return phi * slope
    first, third = known[2]
    last = (second - third) * (h / (before - first))
    curvature = (slope - last) * (h / (now - first))
    return phi * (slope + curvature * ((now - before) / h)) - (phi / whole - 0.5) * curvature
