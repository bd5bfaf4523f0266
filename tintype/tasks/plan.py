"""What a task decides: where sampling starts, what steers it, what constrains it. Never the loop."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tintype.common.config import nearest
from tintype.common.registry import pick
from tintype.common.rng import Noise
from tintype.diffusion.denoiser import Conditioning, Denoise
from tintype.diffusion.samplers import SAMPLERS, paces_itself, takes
from tintype.diffusion.spacing import SPACINGS
from tintype.families.base import LatentDiffusion
from tintype.tasks.request import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """x: B C h w at sigmas[0]; `wrap` turns the guided denoise function into the constrained one."""

    x: Tensor
    sigmas: Tensor
    cond: Conditioning
    uncond: Conditioning | None
    wrap: Callable[[Denoise], Denoise]


Task = Callable[[LatentDiffusion, Request, Noise], Plan]


def unchanged(denoise: Denoise) -> Denoise:
    """The constraint of tasks that have none."""
    return denoise


def resolve(model: LatentDiffusion, request: Request) -> Request:
    """The request with nothing left open. Raises `ValueError` for what this model cannot do, before any work."""
    config = model.config
    resolved = dataclasses.replace(
        request.with_seed(),
        steps=request.steps or config.steps,
        cfg_scale=config.cfg_scale if request.cfg_scale is None else request.cfg_scale,
        width=request.width or config.size,
        height=request.height or config.size,
        sampler=config.sampler if request.sampler is None else request.sampler,
        scheduler=config.scheduler if request.scheduler is None else request.scheduler,
    )
    if paces_itself(resolved.sampler or ""):
        resolved = dataclasses.replace(resolved, exact=True)
    name = resolved.sampler or ""
    pick("sampler", name, SAMPLERS)
    pick("scheduler", resolved.scheduler or "", SPACINGS)
    if resolved.eta is not None and not takes(name, "eta"):
        takers = [one for one in SAMPLERS if takes(one, "eta")]
        raise ValueError(f"sampler {resolved.sampler} takes no eta; expected {nearest('', takers)} with it")
    for name in ("width", "height"):
        _check_side(name, getattr(resolved, name), config.autoencoder.factor)
    spaced(model, resolved)  # refuses more steps than the schedule has
    return resolved


def _check_side(name: str, side: int, factor: int) -> None:
    if side % factor:
        low = max(side // factor, 1) * factor
        raise ValueError(f"{name} {side} is not a multiple of {factor}; use {low} or {low + factor}")


def spaced(model: LatentDiffusion, request: Request) -> Tensor:
    """The noise levels of a resolved request."""
    assert request.scheduler is not None
    assert request.steps is not None
    return SPACINGS[request.scheduler](model.denoiser.schedule, request.steps)


def pure_noise(model: LatentDiffusion, request: Request, noise: Noise, sigma: float) -> Tensor:
    """Where a picture from nothing starts: as large as signal and noise together were in training."""
    assert request.width is not None
    assert request.height is not None
    factor = model.config.autoencoder.factor
    shape = (model.config.unet.out_channels, request.height // factor, request.width // factor)
    return noise.normal(shape).to(memory_format=torch.channels_last) * (1 + sigma**2) ** 0.5
