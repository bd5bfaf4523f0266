"""Outpainting: a picture goes on beyond its sides; what was there stays as it is, pixel by pixel."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.tasks.further import has_mask, refuse_others
from tintype.tasks.masking import Area, composed, repainted
from tintype.tasks.pictures import read, sized_as
from tintype.tasks.plan import Plan
from tintype.tasks.request import Request
from tintype.tasks.task import Task

STRENGTH = 0.9  # of models that are not shown what is there: what lies beyond at first is a guide to them


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_others(model, request)
    usual = 1.0 if has_mask(model) else STRENGTH
    request = dataclasses.replace(request, strength=usual if request.strength is None else request.strength)
    return sized_as(request, extended(request).picture)


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    return repainted(model, request, noise, extended(request))


def finish(model: LatentDiffusion, request: Request, drawn: Sequence[Image.Image]) -> list[Image.Image]:
    return composed(request, drawn, extended(request))


def extended(request: Request) -> Area:
    """The larger picture, what is added mirrored or of noise; the mask is white there. Raises `ValueError` where
    nothing is added."""
    picture = read(request, "image")
    sides = ((request.top, request.bottom), (request.left, request.right))
    if not any(map(sum, sides)):
        raise ValueError("nothing to add; expected pixels on a side or more, such as --left 32")
    pixels = np.asarray(picture)
    mask = np.pad(np.zeros(pixels.shape[:2], np.uint8), sides, constant_values=255)
    larger = np.pad(pixels, (*sides, (0, 0)), mode="symmetric")
    if request.beyond == "noise":
        drawn = np.random.default_rng(0).integers(0, 256, larger.shape, dtype=np.uint8)
        larger = np.where(mask[..., None] == 255, drawn, larger)
    return Area(Image.fromarray(larger), Image.fromarray(mask), (0, 0, mask.shape[1], mask.shape[0]))


TASK = Task(plan=plan, prepare=prepare, finish=finish)
