"""What an upscaler is asked for, settled before any work: its steering, its noise, its sizes."""

import dataclasses

from tintype.families.base import LatentDiffusion
from tintype.tasks.pictures import read
from tintype.tasks.request import LARGEST_SIDE, Request

NOISE_LEVEL = 20  # of Stable Diffusion's


def steered(model: LatentDiffusion, request: Request) -> Request:
    """By prompts and a level of noise, where the model knows such."""
    name, levels = model.config.name, model.config.unet.num_classes
    if model.conditioner is None:
        if request.prompt or request.negative_prompt:
            raise ValueError(f"prompt {request.prompt or request.negative_prompt!r}: {name} reads none; leave it out")
        if request.cfg_scale not in (None, 1):
            raise ValueError(f"cfg_scale {request.cfg_scale:g}: no prompt steers {name}; leave it out")
        request = dataclasses.replace(request, cfg_scale=1.0)
    if levels is None:
        if request.noise_level is not None:
            raise ValueError(f"noise_level {request.noise_level}: {name} is not told one; leave it out")
        return request
    usual = NOISE_LEVEL if model.config.further == ("low",) else 0
    level = usual if request.noise_level is None else request.noise_level
    if level >= levels:
        raise ValueError(f"noise_level {level}: {name} was taught 0 to {levels - 1}; use one of them")
    return dataclasses.replace(request, noise_level=level)


def sized(model: LatentDiffusion, request: Request) -> Request:
    """Drawn at the model's own enlargement, of whole cells."""
    picture, own, covered = read(request, "image"), model.config.enlargement, model.config.covered
    scale = own if request.scale is None else request.scale
    if scale > own:
        raise ValueError(f"scale {scale}: {model.config.name} enlarges {own} times; use that or less, or go twice")
    if max(picture.size) * own > LARGEST_SIDE:
        got, most = f"{picture.width} x {picture.height}", LARGEST_SIDE // own
        raise ValueError(f"image: got {got} pixels, to be {own} times larger; expected {most} a side at most")
    size = {"width": picture.width, "height": picture.height}
    for side, length in size.items():
        if getattr(request, side) not in (None, length * scale, -(-length // covered) * covered * own):
            raise ValueError(f"{side} {getattr(request, side)}: the picture becomes {length * scale}; leave it out")
    drawn = {side: -(-length // covered) * covered * own for side, length in size.items()}
    return dataclasses.replace(request, **drawn, scale=scale)
