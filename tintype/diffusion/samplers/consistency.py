"""Samplers of distilled models, whose denoised is already a picture: look, add noise again, look again."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.schedule import Schedule
from tintype.diffusion.step import Normal, Step


def lcm(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal) -> Iterator[Step]:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1; Luo et al. 2023): each level anew from x0."""
    levels: list[float] = sigmas.tolist()
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        x = denoised = denoise(x, sigma)
        if index + 2 < len(levels) and to > 0:
            x = denoised + to * noise.normal(x.shape[1:])
        yield Step(index, len(levels) - 1, to, x, denoised)


def tcd(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, schedule: Schedule, eta: float = 0.3
) -> Iterator[Step]:
    """Trajectory consistency distillation (Zheng et al. 2024, algorithm 4; eta is its gamma): down to 1 - eta of the
    next level's training step, fresh noise back up; no noise at the last step."""
    levels: list[float] = sigmas.tolist()
    for index, (sigma, to) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        down = to
        if to > 0:
            step = schedule.t(torch.tensor(to, dtype=torch.float64)).round()
            down = min(to, float(schedule.sigma(torch.floor((1 - eta) * step))))
        x = denoised + (down / sigma) * (x - denoised)
        if index + 2 < len(levels) and down < to:
            x = x + (to**2 - down**2) ** 0.5 * noise.normal(x.shape[1:])
        yield Step(index, len(levels) - 1, to, x, denoised)
