"""Layout to image: from noise, steered by named boxes."""

from tintype.common.rng import Noise
from tintype.conditioning.layout import LayoutConditioner, layout_ids
from tintype.diffusion.denoiser import repeated
from tintype.families.base import LatentDiffusion
from tintype.tasks.boxes import FORM, boxes_of
from tintype.tasks.further import refuse_others
from tintype.tasks.plan import Plan, from_noise
from tintype.tasks.request import Request
from tintype.tasks.steering import Stage, Steering
from tintype.tasks.task import Task


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_others(model, request)
    conditioner = reads_boxes(model)
    for name in ("prompt", "negative_prompt"):
        if text := getattr(request, name):
            raise ValueError(f"{name} {text!r}: {model.config.name} reads boxes alone; expected an empty one")
    if not request.boxes:
        raise ValueError(f"no boxes: {request.task} draws what is in them; expected some, as --box {FORM}, or --layout")
    layout_ids(boxes_of(request, model.config.labels, conditioner.config.num_classes), conditioner.config)
    return request


def reads_boxes(model: LatentDiffusion) -> LayoutConditioner:
    """What turns boxes into conditioning. Raises `ValueError` for a model that is not steered by them."""
    if not isinstance(model.conditioner, LayoutConditioner):
        raise ValueError(f"the model {model.config.name} reads no boxes; expected one that is steered by them")
    return model.conditioner


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    """Guided away from the layout without any object, where guidance is asked for."""
    conditioner, rows = reads_boxes(model), len(noise.seeds)
    boxes = boxes_of(request, model.config.labels, conditioner.config.num_classes)
    uncond = None if request.cfg_scale == 1 else conditioner.empty(rows)
    cond = repeated(conditioner([boxes]), rows)
    return from_noise(model, request, noise, Steering(stages=(Stage(((1.0, cond),), uncond),)))


TASK = Task(plan=plan, prepare=prepare)
