"""Upscaling: a picture is drawn anew at four times its size by a model that is shown it beside the noise, all at once
or tile by tile."""

import dataclasses

import torch

from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.tasks.pictures import in_rows, pixels, read
from tintype.tasks.plan import Plan, from_noise, prompted, refuse_unless_shown, tiling_of
from tintype.tasks.request import LARGEST_SIDE, Request
from tintype.tasks.task import Task

NOISE_LEVEL = 20


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_unless_shown(model, request, "low", "an upscaler")
    return _sized(model, _tiled(_steered(model, request)))


def _steered(model: LatentDiffusion, request: Request) -> Request:
    """By prompts and a level of noise, where the model knows such."""
    name = model.config.name
    if model.conditioner is None:
        if request.prompt or request.negative_prompt:
            raise ValueError(f"prompt {request.prompt or request.negative_prompt!r}: {name} reads none; leave it out")
        if request.cfg_scale not in (None, 1):
            raise ValueError(f"cfg_scale {request.cfg_scale:g}: no prompt steers {name}; leave it out")
        request = dataclasses.replace(request, cfg_scale=1.0)
    if model.config.unet.num_classes is None:
        if request.noise_level is not None:
            raise ValueError(f"noise_level {request.noise_level}: {name} is not told one; leave it out")
        return request
    level = NOISE_LEVEL if request.noise_level is None else request.noise_level
    return dataclasses.replace(request, noise_level=level)


def _tiled(request: Request) -> Request:
    tiling = tiling_of(request)
    if tiling is None:
        if request.overlap is not None:
            raise ValueError(f"overlap {request.overlap}: without tile there is none; give tile, or leave it out")
        return request
    if 2 * tiling.overlap > tiling.size:
        raise ValueError(f"overlap {tiling.overlap}: expected at most half of tile {tiling.size}: {tiling.size // 2}")
    return dataclasses.replace(request, overlap=tiling.overlap)


def _sized(model: LatentDiffusion, request: Request) -> Request:
    picture, factor = read(request, "image"), model.config.autoencoder.factor
    if max(picture.size) * factor > LARGEST_SIDE:
        got, most = f"{picture.width} x {picture.height}", LARGEST_SIDE // factor
        raise ValueError(f"image: got {got} pixels, to be {factor} times larger; expected {most} a side at most")
    size = {"width": picture.width * factor, "height": picture.height * factor}
    for side, length in size.items():
        if getattr(request, side) not in (None, length):
            raise ValueError(f"{side} {getattr(request, side)}: the picture becomes {length}; leave it out")
    return dataclasses.replace(request, **size)


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    """Noise is drawn for the whole, so that tiles agree. Stable Diffusion's upscaler is shown the picture with noise of
    a level of its schedule, and told which (Ho et al. 2021: conditioning augmentation)."""
    rows = len(noise.seeds)
    low, told = in_rows(pixels(read(request, "image")).to(model.device), rows), None
    if request.noise_level is not None:
        sigma = float(model.denoiser.schedule.sigma(torch.tensor(request.noise_level, dtype=torch.float64)))
        low = (low + sigma * noise.normal(low.shape[1:])) / (1 + sigma**2) ** 0.5
        told = torch.full((rows,), request.noise_level, device=model.device)
    return from_noise(model, request, noise, prompted(model, request, noise).beside(low, told))


TASK = Task(plan=plan, prepare=prepare)
