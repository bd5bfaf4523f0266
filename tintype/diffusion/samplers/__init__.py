"""Samplers: generators that walk x down the noise levels. Each file here adds its public functions to `SAMPLERS`.

(denoise, x, sigmas, noise) -> Iterator[Step]; x: B C h w at sigmas[0], float32; sigmas as `spacing` makes them.
Coefficients are Python floats, so that no step waits for a device.
"""

import importlib
from collections.abc import Callable, Iterator
from typing import cast

from tintype.common.registry import functions_of
from tintype.diffusion.step import Step

Sampler = Callable[..., Iterator[Step]]

SAMPLERS: dict[str, Sampler] = cast("dict[str, Sampler]", functions_of(importlib.import_module(__name__)))
