"""Text to image: from noise, steered by a prompt."""

from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.tasks.plan import Plan, from_noise, prompted, refuse_further_channels
from tintype.tasks.request import Request
from tintype.tasks.task import Task


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_further_channels(model, request)
    return request


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    return from_noise(model, request, noise, prompted(model, request, noise))


TASK = Task(plan=plan, prepare=prepare)
