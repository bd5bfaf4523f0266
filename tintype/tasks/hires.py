"""The second pass of a large picture: the first one enlarged, made noisy and drawn anew (A1111's hires fix).

Models repeat themselves at sizes far from their training's; what is where is settled small, and only worked out large.
"""

import dataclasses
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from tintype.common.rng import Noise
from tintype.diffusion.samplers import paces_itself
from tintype.families.base import LatentDiffusion
from tintype.tasks.pictures import encoded
from tintype.tasks.plan import Plan, chosen, from_latent, prompted, settled
from tintype.tasks.request import LARGEST_SIDE, Request


def check(model: LatentDiffusion, request: Request) -> None:
    """Raises `ValueError` for a second pass that cannot be, before the first."""
    if request.hires_scale is None:
        for field in dataclasses.fields(Request):
            value = getattr(request, field.name)
            if field.name in ("hires_steps", "hires_strength") and value != field.default:
                raise ValueError(f"{field.name} {value:g}: there is no second pass; expected a hires_scale with it")
        return
    factor, scale = model.config.autoencoder.factor, request.hires_scale
    if scale <= 1:
        raise ValueError(f"hires_scale {scale:g}: nothing is enlarged; expected more than 1, such as 2")
    for name in ("width", "height"):
        side: int = getattr(request, name) or model.config.size
        cells = side * scale / factor
        if abs(cells - round(cells)) > 1e-6:
            fitting = [f"{count * factor / side:g}" for count in (int(cells), int(cells) + 1) if count * factor > side]
            raise ValueError(
                f"hires_scale {scale:g}: {name} {side} becomes {side * scale:g}, not a multiple of {factor}; "
                f"use {' or '.join(fitting)}"
            )
        if side * scale > LARGEST_SIDE:
            raise ValueError(
                f"hires_scale {scale:g}: {name} {side} becomes {side * scale:g}; expected {LARGEST_SIDE} or less"
            )
    larger = settled(model, _larger(model, request))  # refuses more steps than the schedule has
    steps, least = larger.steps or 1, 2 if paces_itself(chosen(model, larger).sampler) else 1
    if int(steps * request.hires_strength) < least:
        raise ValueError(
            f"hires_strength {request.hires_strength:g}: of {steps} steps that leaves too few; "
            f"expected {least / steps:.3g} or more"
        )


def second_pass(model: LatentDiffusion, request: Request, noise: Noise) -> Callable[[Tensor], Plan] | None:
    """What a resolved request goes on with after its first pass; its prompts are read for the larger size. The noise
    begins again, as in A1111, so that it does not depend on how much of it the first pass took."""
    if request.hires_scale is None:
        return None
    larger = _larger(model, request)
    steering = prompted(model, larger, noise)

    def then(latent: Tensor) -> Plan:
        noise.restart()
        return from_latent(model, larger, noise, enlarged(model, latent, larger), steering)

    return then


def enlarged(model: LatentDiffusion, latent: Tensor, request: Request) -> Tensor:
    """Latents of pictures at the request's size. latent: B C h w, wrapped. The pictures are enlarged, not the latents,
    whose cells are no colours to be mixed."""
    weight = model.autoencoder.post_quant_conv.weight
    image = model.autoencoder.decode(model.space.unwrap(latent).to(weight)).float().clamp(-1, 1)  # B 3 H W
    assert request.height is not None
    assert request.width is not None
    size = (request.height, request.width)
    return encoded(model, F.interpolate(image, size, mode="bicubic", antialias=True).clamp(-1, 1))


def _larger(model: LatentDiffusion, request: Request) -> Request:
    """The second pass as a request of its own: image to image."""
    assert request.hires_scale is not None
    width, height = (
        round((side or model.config.size) * request.hires_scale) for side in (request.width, request.height)
    )
    return dataclasses.replace(
        request,
        task="img2img",
        width=width,
        height=height,
        steps=request.hires_steps or request.steps,
        strength=request.hires_strength,
        hires_scale=None,
        hires_strength=0.7,
        hires_steps=None,
    )
