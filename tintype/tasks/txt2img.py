"""Text to image: from noise, steered by a prompt."""

from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.tasks.further import refuse_others
from tintype.tasks.plan import Plan, from_noise, prompted
from tintype.tasks.request import Request
from tintype.tasks.task import Task


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_others(model, request)
    return request


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    return from_noise(model, request, noise, prompted(model, request, noise))


TASK = Task(plan=plan, prepare=prepare)
