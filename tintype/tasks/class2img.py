"""Class to image: from noise, steered by one of the classes that a model was trained with."""

from tintype.common.rng import Noise
from tintype.conditioning.class_label import ClassConditioner
from tintype.diffusion.denoiser import repeated
from tintype.families.base import LatentDiffusion
from tintype.tasks.boxes import class_named
from tintype.tasks.further import refuse_others
from tintype.tasks.plan import Plan, from_noise, prompted
from tintype.tasks.request import Request
from tintype.tasks.steering import Stage, Steering
from tintype.tasks.task import Task


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_others(model, request)
    class_of(model, request)
    return request


def class_of(model: LatentDiffusion, request: Request) -> int:
    """The number of the class that a request names. Raises `ValueError` for one that the model does not have."""
    names, count = model.config.labels, len(model.config.labels)
    if isinstance(model.conditioner, ClassConditioner):
        count = model.conditioner.config.num_classes
    elif not model.reads_objects:
        raise ValueError(f"the model {model.config.name} knows no classes; expected one that is steered by them")
    label = (request.label or "").strip()
    return class_named(label, names, count, f"label {label!r}: no class")


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    """A model that reads objects beside a text hears of one, anywhere, and no text."""
    found, rows = class_of(model, request), len(noise.seeds)
    if not isinstance(model.conditioner, ClassConditioner):
        return from_noise(model, request, noise, prompted(model, request, noise, objects=((found, None),)))
    cond = repeated(model.conditioner([found]), rows)
    uncond = None if request.cfg_scale == 1 else model.conditioner.empty(rows)
    return from_noise(model, request, noise, Steering(stages=(Stage(((1.0, cond),), uncond),)))


TASK = Task(plan=plan, prepare=prepare)
