"""Text to image: from noise, steered by a prompt; large pictures in two passes."""

import dataclasses

from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.tasks.further import refuse_others
from tintype.tasks.hires import check, second_pass
from tintype.tasks.plan import Plan, from_noise, prompted
from tintype.tasks.request import Request
from tintype.tasks.task import Task


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_others(model, request)
    check(model, request)
    if request.window is not None and request.hires_scale is not None:
        raise ValueError(f"window {request.window}: not with hires_scale; leave out one of them")
    return request


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    begun = from_noise(model, request, noise, prompted(model, request, noise))
    return dataclasses.replace(begun, then=second_pass(model, request, noise))


TASK = Task(plan=plan, prepare=prepare)
