"""Inpainting: what is under a mask is drawn anew, and every pixel outside stays what it is.

A model with channels for it is shown mask and picture; any other is held to the known part at every step.
"""

import dataclasses
from collections.abc import Sequence

from PIL import Image

from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.tasks.further import refuse_others
from tintype.tasks.masking import composed, masked_area, repainted
from tintype.tasks.pictures import sized_as
from tintype.tasks.plan import Plan
from tintype.tasks.request import Request
from tintype.tasks.task import Task


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_others(model, request)
    request = dataclasses.replace(request, strength=1.0 if request.strength is None else request.strength)
    if request.only_masked and request.tiling:
        raise ValueError("tiling: with only_masked the part would be made to meet itself; leave out one of them")
    area = masked_area(request)
    return request if request.only_masked else sized_as(request, area.picture)


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    return repainted(model, request, noise, masked_area(request))


def finish(model: LatentDiffusion, request: Request, drawn: Sequence[Image.Image]) -> list[Image.Image]:
    return composed(request, drawn, masked_area(request))


TASK = Task(plan=plan, prepare=prepare, finish=finish)
