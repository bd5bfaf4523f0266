"""Image to image: a picture is made noisy and drawn anew from there (SDEdit: Meng et al. 2021)."""

import dataclasses
from collections.abc import Sequence

from PIL import Image

from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.tasks.further import refuse_others
from tintype.tasks.pictures import encoded, fitted, in_rows, pixels, read, sized_as
from tintype.tasks.plan import Plan, from_latent, prompted
from tintype.tasks.request import Request
from tintype.tasks.task import Task

STRENGTH = 0.75


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_others(model, request)
    strength = STRENGTH if request.strength is None else request.strength
    return dataclasses.replace(sized_as(request, read(request, "image")), strength=strength)


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    """int(steps * strength) steps are done. At strength 0 there are none and the picture stays what it is; strength 1
    does not look at it."""
    latent = encoded(model, pixels(fitted(read(request, "image"), request)))
    return from_latent(model, request, noise, in_rows(latent, len(noise.seeds)), prompted(model, request, noise))


def finish(model: LatentDiffusion, request: Request, drawn: Sequence[Image.Image]) -> list[Image.Image]:
    if drawn:
        return list(drawn)
    return [fitted(read(request, "image"), request) for _ in request.seeds]


TASK = Task(plan=plan, prepare=prepare, finish=finish)
