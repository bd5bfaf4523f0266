"""Semantic map to image: from noise, steered by which class is where."""

import dataclasses

import numpy as np
import torch

from tintype.common.rng import Noise
from tintype.conditioning.spatial import SpatialConditioner
from tintype.diffusion.denoiser import repeated
from tintype.families.base import LatentDiffusion
from tintype.tasks.pictures import read
from tintype.tasks.plan import Plan, from_noise
from tintype.tasks.request import Request
from tintype.tasks.sides import check_multiple
from tintype.tasks.steering import Stage, Steering
from tintype.tasks.task import Task


def prepare(model: LatentDiffusion, request: Request) -> Request:
    """The picture is of the map's size, where the model's latents and its maps are halved alike."""
    conditioner = reads_maps(model)
    if request.cfg_scale not in (None, 1):
        conditioner.empty(request.batch_size)  # refuses, where there is nothing to guide away from
    drawn = read(request, "map")
    _check_classes(np.asarray(drawn), conditioner.config.num_classes)
    cells, factor = 2**conditioner.config.halvings, model.config.autoencoder.factor
    sides: dict[str, int] = {}
    for name, pixels in zip(("width", "height"), drawn.size, strict=True):
        asked: int | None = getattr(request, name)
        check_multiple(f"map: {name}", pixels, cells)
        sides[name] = pixels // cells * factor
        if asked not in (None, sides[name]):
            raise ValueError(f"map: {name} {pixels} is that of a picture of {sides[name]}; got {name} {asked}")
    return dataclasses.replace(request, **sides)


def reads_maps(model: LatentDiffusion) -> SpatialConditioner:
    """What turns class maps into conditioning. Raises `ValueError` for a model that is not steered by them."""
    if not isinstance(model.conditioner, SpatialConditioner):
        raise ValueError(f"the model {model.config.name} reads no class maps; expected one that is steered by them")
    return model.conditioner


def _check_classes(numbers: np.ndarray, count: int) -> None:
    if (beyond := np.argwhere(numbers >= count)).size:
        row, column = beyond[0].tolist()
        raise ValueError(
            f"map: class {numbers[row, column]} in row {row}, column {column}: expected 0 to {count - 1}, the number "
            "of a class at each pixel (gray, or a palette's numbers)"
        )


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    conditioner, rows = reads_maps(model), len(noise.seeds)
    classes = torch.from_numpy(np.array(read(request, "map"), dtype=np.int64))[None]  # 1 H W
    uncond = None if request.cfg_scale == 1 else conditioner.empty(rows)
    cond = repeated(conditioner(classes), rows)
    return from_noise(model, request, noise, Steering(stages=(Stage(((1.0, cond),), uncond),)))


TASK = Task(plan=plan, prepare=prepare)
