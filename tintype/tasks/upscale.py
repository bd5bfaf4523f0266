"""Upscaling: a picture drawn anew at several times its size by a model that is shown it, at once or tile by tile."""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image

from tintype.common.rng import Noise
from tintype.conditioning.low import noised
from tintype.families.base import LatentDiffusion
from tintype.tasks.enlarging import sized, steered
from tintype.tasks.further import small
from tintype.tasks.pictures import in_rows, pixels, read
from tintype.tasks.plan import Plan, chosen, from_noise, prompted
from tintype.tasks.request import Request
from tintype.tasks.room import refuse_without_room
from tintype.tasks.task import Task
from tintype.tasks.windows import with_overlap


def prepare(model: LatentDiffusion, request: Request) -> Request:
    if request.tiling and model.config.further == ("enlarged",):
        raise ValueError(f"tiling: {model.config.name} is shown a picture whose sides do not meet; leave it out")
    if not model.config.enlarges:
        raise ValueError(f"the model {model.config.name} is shown no small picture; expected an upscaler, by --model")
    return refuse_without_room(model, sized(model, with_overlap(steered(model, request), model.config.covered)))


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
