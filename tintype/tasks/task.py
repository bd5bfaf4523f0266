"""What a task is, and which there are: each a file of this package with its `TASK`, by the names in `request.TASKS`."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.tasks.plan import Plan, settled
from tintype.tasks.request import Request


def as_asked(model: LatentDiffusion, request: Request) -> Request:
    """Of tasks that decide nothing beforehand."""
    return request


def as_drawn(model: LatentDiffusion, request: Request, drawn: Sequence[Image.Image]) -> list[Image.Image]:
    """Of tasks whose pictures are what is decoded."""
    return list(drawn)


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """`plan`: where sampling starts, what steers it, what constrains it, of a resolved request and one seed a picture.

    `prepare` fills in what its inputs decide (a size, a strength) and raises `ValueError` for those that are missing
    or do not fit, before any work. `finish` makes the pictures of a resolved request from those that were decoded;
    there are none where no step was done.
    """

    plan: Callable[[LatentDiffusion, Request, Noise], Plan]
    prepare: Callable[[LatentDiffusion, Request], Request] = as_asked
    finish: Callable[[LatentDiffusion, Request, Sequence[Image.Image]], list[Image.Image]] = as_drawn


def task_of(request: Request) -> Task:
    found = importlib.import_module(f"tintype.tasks.{request.task}").TASK
    assert isinstance(found, Task)
    return found


def resolve(model: LatentDiffusion, request: Request) -> Request:
    """The request with nothing left open. Raises `ValueError` for what this model cannot do, before any work."""
    return settled(model, task_of(request).prepare(model, request))
