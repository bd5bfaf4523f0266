"""Several requests drawn as one batch, where that makes no difference but for speed."""

import dataclasses
from collections.abc import Sequence

import torch

from tintype.diffusion.denoiser import Conditioning, stacked
from tintype.tasks.plan import Plan, unchanged
from tintype.tasks.request import NAMED, Request
from tintype.tasks.steering import Stage, Steering

OWN = (*NAMED, "prompt", "negative_prompt", "seed", "batch_size", "label", "boxes")
OWN_NOISE = ("variation_seed", "variation_strength")
TOGETHER = ("txt2img", "img2img", "layout2img", "class2img", "sample")  # whose plans constrain nothing


def alike(request: Request, other: Request) -> bool:
    """Whether two resolved requests differ only in what each row of a batch may have for itself."""
    if request.exact or other.exact or request.task not in TOGETHER or request.tiling or request.window is not None:
        return False
    return _common(request) == _common(other)


def _common(request: Request) -> Request:
    usual = {field.name: field.default for field in dataclasses.fields(Request) if field.name in OWN + OWN_NOISE}
    return dataclasses.replace(request, **usual)  # pyright: ignore


def joined(plans: Sequence[Plan]) -> Plan | None:
    """The plans' rows one after the other, or None where they do not go together: other noise levels, prompts that
    change on the way or have several parts, conditionings of other shapes."""
    first = plans[0]
    for one in plans:
        if one.wrap is not unchanged or one.then is not None or one.sigmas.shape != first.sigmas.shape:
            return None
        if not torch.equal(one.sigmas, first.sigmas) or one.x.shape[1:] != first.x.shape[1:]:
            return None
    steering = _steering([one.steering for one in plans])
    if steering is None:
        return None
    return dataclasses.replace(first, x=torch.cat([one.x for one in plans]), steering=steering)


def _steering(each: Sequence[Steering]) -> Steering | None:
    stages: list[Stage] = []
    for one in each:
        if len(one.stages) != 1 or len(one.stages[0].conds) != 1 or one.stages[0].away is not None:
            return None
        stages.append(one.stages[0])
    if len({(weight, cond.shapes) for stage in stages for weight, cond in stage.conds}) > 1:
        return None
    unconds = [stage.uncond for stage in stages if stage.uncond is not None]
    if len(unconds) not in (0, len(stages)) or len({one.shapes for one in unconds}) > 1:
        return None
    weight = stages[0].conds[0][0]
    cond = stacked(*(stage.conds[0][1] for stage in stages))
    uncond: Conditioning | None = stacked(*unconds) if unconds else None
    return dataclasses.replace(each[0], stages=(Stage(((weight, cond),), uncond),))
