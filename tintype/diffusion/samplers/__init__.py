"""Samplers: generators that walk x down the noise levels. Each file here adds its public functions to `SAMPLERS`.

(denoise, x, sigmas, noise) -> Iterator[Step]; x: B C h w at sigmas[0], float32; sigmas as `spacing` makes them.
Coefficients are Python floats, so that no step waits for a device.
"""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import cast

from tintype.common.registry import functions_of, pick
from tintype.diffusion.scaling import Scaling
from tintype.diffusion.schedule import Schedule
from tintype.diffusion.step import Step

Sampler = Callable[..., Iterator[Step]]

SAMPLERS: dict[str, Sampler] = cast("dict[str, Sampler]", functions_of(importlib.import_module(__name__)))


def takes(name: str, option: str) -> bool:
    """Whether this sampler has the option (`eta`, say)."""
    return option in pick("sampler", name, SAMPLERS).__annotations__


def sampler(name: str, schedule: Schedule, *, eta: float | None = None, averaged: Scaling | None = None) -> Sampler:
    """The sampler of this name, (denoise, x, sigmas, noise) being all that is left to give; those that walk the time of
    a schedule have it. None leaves a sampler its own. Raises `ValueError` with the nearest names."""
    options: dict[str, object] = {"schedule": schedule} if takes(name, "schedule") else {}
    if averaged is not None:
        options["averaged"] = averaged
    if eta is not None:
        options["eta"] = eta
    return functools.partial(SAMPLERS[name], **options)


def paces_itself(name: str) -> bool:
    """Whether it takes as many steps as a picture needs, so that pictures must be sampled one by one."""
    return takes(name, "rtol")
