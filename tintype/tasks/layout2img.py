"""Layout to image: from noise, steered by named boxes, alone or beside a prompt."""

from tintype.common.rng import Noise
from tintype.conditioning.layout import Box, LayoutConditioner, layout_ids
from tintype.conditioning.prompt import PlacedObject
from tintype.conditioning.text import TextConditioner
from tintype.diffusion.denoiser import repeated
from tintype.families.base import LatentDiffusion
from tintype.tasks.boxes import FORM, boxes_of
from tintype.tasks.further import refuse_others
from tintype.tasks.plan import Plan, from_noise, prompted
from tintype.tasks.request import Request
from tintype.tasks.steering import Stage, Steering
from tintype.tasks.task import Task


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_others(model, request)
    if not request.boxes:
        raise ValueError(f"no boxes: {request.task} draws what is in them; expected some, as --box {FORM}, or --layout")
    match model.conditioner:
        case TextConditioner(objects=reader) if reader is not None:
            reader.rows([placed(boxes_of(request, model.config.labels))])
        case LayoutConditioner(config=config):
            for name in ("prompt", "negative_prompt"):
                if text := getattr(request, name):
                    raise ValueError(f"{name} {text!r}: {model.config.name} reads boxes alone; expected an empty one")
            layout_ids(boxes_of(request, model.config.labels, config.num_classes), config)
        case _:
            raise ValueError(f"the model {model.config.name} reads no boxes; expected one that is steered by them")
    return request


def placed(boxes: list[Box]) -> tuple[PlacedObject, ...]:
    """Boxes as a model reads them beside a text."""
    regions = [(box.label, box.region) for box in boxes]
    return tuple((label, (one.left, one.top, one.left + one.width, one.top + one.height)) for label, one in regions)


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    """Guided away from the layout without any object (and the negative prompt), where guidance is asked for."""
    conditioner, rows = model.conditioner, len(noise.seeds)
    if not isinstance(conditioner, LayoutConditioner):
        objects = placed(boxes_of(request, model.config.labels))
        return from_noise(model, request, noise, prompted(model, request, noise, objects))
    boxes = boxes_of(request, model.config.labels, conditioner.config.num_classes)
    uncond = None if request.cfg_scale == 1 else conditioner.empty(rows)
    cond = repeated(conditioner([boxes]), rows)
    return from_noise(model, request, noise, Steering(stages=(Stage(((1.0, cond),), uncond),)))


TASK = Task(plan=plan, prepare=prepare)
