"""Unconditional: from noise, steered by nothing."""

import dataclasses

from tintype.common.rng import Noise
from tintype.diffusion.denoiser import Conditioning
from tintype.families.base import LatentDiffusion
from tintype.tasks.further import refuse_others
from tintype.tasks.plan import Plan, from_noise
from tintype.tasks.request import Request
from tintype.tasks.steering import Stage, Steering
from tintype.tasks.task import Task


def prepare(model: LatentDiffusion, request: Request) -> Request:
    """Without guidance, for there is nothing to lead towards."""
    refuse_others(model, request)
    if request.cfg_scale not in (None, 1):
        raise ValueError(f"cfg_scale {request.cfg_scale:g}: nothing steers this picture; leave it out")
    return dataclasses.replace(request, cfg_scale=1.0)


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    """A model that is otherwise steered gets what stands for nothing: the empty prompt, the null class."""
    rows = len(noise.seeds)
    cond = Conditioning() if model.conditioner is None else model.conditioner.empty(rows)
    return from_noise(model, request, noise, Steering(stages=(Stage(((1.0, cond),), None),)))


TASK = Task(plan=plan, prepare=prepare)
