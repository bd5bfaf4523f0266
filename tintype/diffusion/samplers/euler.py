"""Euler's method with optional noise. In sigma coordinates DDIM(eta) and Euler ancestral(eta) are this one step."""

import itertools
from collections.abc import Iterator

from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.step import Normal, Step, ancestral


def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, eta: float = 0.0) -> Iterator[Step]:
    """Euler (Karras et al. 2022, algorithm 1 without correction); eta > 0 puts fresh noise in at every step."""
    levels: list[float] = sigmas.tolist()
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        down, up = ancestral(sigma, to, eta)
        x = denoised + (down / sigma) * (x - denoised)
        if up > 0:
            x = x + up * noise.normal(x.shape[1:])
        yield Step(index, len(levels) - 1, to, x, denoised)


def euler_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, eta: float = 1.0) -> Iterator[Step]:
    """Euler ancestral: at eta 1 each step is a draw from the posterior of DDPM."""
    return euler(denoise, x, sigmas, noise, eta=eta)


def ddim(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, eta: float = 0.0) -> Iterator[Step]:
    """DDIM (Song et al. 2020, eq. 12): its variance (eq. 16) is Euler ancestral's, its sigma 0 case Euler."""
    return euler(denoise, x, sigmas, noise, eta=eta)


def ddpm(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """Ancestral sampling with DDPM's lower variance (Ho et al. 2020, section 3.2): Euler ancestral at eta 1."""
    return euler(denoise, x, sigmas, noise, eta=1.0)
