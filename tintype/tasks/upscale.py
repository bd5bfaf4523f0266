"""Upscaling: a picture drawn anew at several times its size by a model that is shown it, at once or tile by tile."""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image

from tintype.common.rng import Noise
from tintype.conditioning.low import noised
from tintype.families.base import LatentDiffusion
from tintype.tasks.further import small
from tintype.tasks.pictures import in_rows, pixels, read
from tintype.tasks.plan import Plan, chosen, from_noise, prompted
from tintype.tasks.request import LARGEST_SIDE, Request
from tintype.tasks.room import refuse_without_room
from tintype.tasks.task import Task
from tintype.tasks.windows import with_overlap

NOISE_LEVEL = 20


def prepare(model: LatentDiffusion, request: Request) -> Request:
    if request.tiling and model.config.further == ("enlarged",):
        raise ValueError(f"tiling: {model.config.name} is shown a picture whose sides do not meet; leave it out")
    if not model.config.enlarges:
        raise ValueError(f"the model {model.config.name} is shown no small picture; expected an upscaler, by --model")
    return refuse_without_room(model, _sized(model, with_overlap(_steered(model, request), model.config.covered)))


def _steered(model: LatentDiffusion, request: Request) -> Request:
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


def _sized(model: LatentDiffusion, request: Request) -> Request:
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


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    """Noise is drawn for the whole, so that tiles agree. A model that is told a level of noise is shown the picture, or
    its latent, with noise of that level of its schedule (Ho et al. 2021: conditioning augmentation)."""
    rows, covered = len(noise.seeds), model.config.covered
    low, told = pixels(read(request, "image")).to(model.device), None
    low = F.pad(low, (0, -low.shape[-1] % covered, 0, -low.shape[-2] % covered), mode="replicate")
    beside = in_rows(small(model, request, low), rows)
    if request.noise_level is not None:
        sigma = float(model.denoiser.schedule.sigma(torch.tensor(request.noise_level, dtype=torch.float64)))
        beside = noised(beside, noise.normal(beside.shape[1:]), sigma)
        told = torch.full((rows,), request.noise_level, device=model.device)
    begun = from_noise(model, request, noise, prompted(model, request, noise).beside(beside, told))
    if not model.denoiser.relative:
        return begun
    sigma = float(begun.sigmas[0])
    drawn = begun.x / chosen(model, request).first(model.denoiser.schedule, sigma)
    return dataclasses.replace(begun, x=beside + sigma * drawn)


def finish(model: LatentDiffusion, request: Request, drawn: Sequence[Image.Image]) -> list[Image.Image]:
    """Without what fills the last cells, at the scale asked for: a smaller one than the model's is reduced to."""
    picture, own, scale = read(request, "image"), model.config.enlargement, request.scale
    assert scale is not None
    whole = [one.crop((0, 0, picture.width * own, picture.height * own)) for one in drawn]
    if scale == own:
        return whole
    size = (picture.width * scale, picture.height * scale)
    return [one.resize(size, Image.Resampling.LANCZOS) for one in whole]


TASK = Task(plan=plan, prepare=prepare, finish=finish)
