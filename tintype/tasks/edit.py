"""Editing by instruction: a picture is shown whole, the prompt says what to change of it (InstructPix2Pix: Brooks et
al. 2023)."""

import dataclasses

import torch

from tintype.common.rng import Noise
from tintype.diffusion.guidance import Weighted
from tintype.families.base import LatentDiffusion
from tintype.tasks.pictures import fitted, in_rows, pixels, posterior_mean, read, sized_as
from tintype.tasks.plan import Plan, from_noise, prompted, refuse_unless_shown
from tintype.tasks.request import Request
from tintype.tasks.steering import Stage
from tintype.tasks.task import Task

IMAGE_CFG_SCALE = 1.5


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_unless_shown(model, request, "picture", "an InstructPix2Pix model")
    scale = IMAGE_CFG_SCALE if request.image_cfg_scale is None else request.image_cfg_scale
    return dataclasses.replace(sized_as(request, read(request, "image")), image_cfg_scale=scale)


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    """From noise, beside the picture's raw latent (these models were trained with latents that are not scaled). With
    `cfg_scale` 1 nothing is guided, whatever the picture's scale, as in diffusers."""
    assert request.image_cfg_scale is not None
    picture = posterior_mean(model, pixels(fitted(read(request, "image"), request)))
    steering = prompted(model, request, noise).beside(in_rows(picture, len(noise.seeds)))
    stages = tuple(
        dataclasses.replace(stage, away=_without(stage, request.image_cfg_scale - 1)) for stage in steering.stages
    )
    return from_noise(model, request, noise, dataclasses.replace(steering, stages=stages))


def _without(stage: Stage, weight: float) -> Weighted | None:
    """The negative prompt without the picture, which the picture alone is led away from."""
    if stage.uncond is None or not weight:
        return None
    assert stage.uncond.concat is not None
    return weight, dataclasses.replace(stage.uncond, concat=torch.zeros_like(stage.uncond.concat))


TASK = Task(plan=plan, prepare=prepare)
