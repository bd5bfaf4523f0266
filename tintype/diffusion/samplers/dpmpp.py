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
    levels: list[float] = sigmas.tolist()
    earlier: Tensor | None = None
    last_h = 0.0
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        if to == 0:
            x = denoised
        else:
            h = math.log(sigma / to)
            keep, gain = (to / sigma) * math.exp(-h * eta**2), -math.expm1(-h * (1 + eta**2))
            guess = denoised if earlier is None else denoised + (0.5 * h / last_h) * (denoised - earlier)
            x = keep * x + gain * guess
            if eta > 0:
                x = x + to * (-math.expm1(-2 * h * eta**2)) ** 0.5 * noise.normal(x.shape[1:])
            last_h = h
        earlier = denoised
        yield Step(index, len(levels) - 1, to, x, denoised)
