"""Which noise levels a sampler visits: (schedule, steps) -> sigmas, steps + 1 of them, falling, the last one 0.

float64, on the CPU. The first three walk the training steps of a discrete schedule as Lin et al. 2023 (table 2) name
them and raise `ValueError` where there are fewer of those than `steps`. They round as diffusers does (whence numpy), so
that the same step count means the same training steps.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tintype.diffusion.schedule import Schedule

Spacing = Callable[[Schedule, int], Tensor]


def leading(schedule: Schedule, steps: int, *, offset: int = 1) -> Tensor:
    """Every (T // steps)-th training step from `offset` (or as near to it as there is room); never the noisiest."""
    total = _total(schedule, steps)
    stride = total // steps
    t = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * stride
    return _levels(schedule, t + min(offset, total - 1 - (steps - 1) * stride) + schedule.t_min)


def trailing(schedule: Schedule, steps: int) -> Tensor:
    """From the noisiest training step down, in equal strides rounded to whole steps."""
    total = _total(schedule, steps)
    t = np.arange(total, 0, -total / steps)[:steps].round() - 1
    return _levels(schedule, torch.from_numpy(t) + schedule.t_min)


def linspace(schedule: Schedule, steps: int) -> Tensor:
    """Both ends and equal strides between, rounded to whole steps; a single step is the noisiest."""
    t = np.linspace(0, _total(schedule, steps) - 1, max(steps, 2)).round()[::-1][:steps]
    return _levels(schedule, torch.from_numpy(t.copy()) + schedule.t_min)


def uniform(schedule: Schedule, steps: int) -> Tensor:
    """Equal strides of continuous time, both ends included; for any schedule."""
    return _levels(schedule, _strides(schedule.t_max, schedule.t_min, steps))


def karras(schedule: Schedule, steps: int, *, rho: float = 7.0) -> Tensor:
    """Equal strides of sigma^(1/rho) (Karras et al. 2022, eq. 5)."""
    return _ending_in_zero(_strides(schedule.sigma_max ** (1 / rho), schedule.sigma_min ** (1 / rho), steps) ** rho)


def exponential(schedule: Schedule, steps: int) -> Tensor:
    """Equal strides of log sigma."""
    return _ending_in_zero(_strides(math.log(schedule.sigma_max), math.log(schedule.sigma_min), steps).exp())


SPACINGS: dict[str, Spacing] = {
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "uniform": uniform,
    "karras": karras,
    "exponential": exponential,
}


def _total(schedule: Schedule, steps: int) -> int:
    total = round(schedule.t_max - schedule.t_min) + 1
    if total < 10:
        raise ValueError("this schedule has no training steps to walk; use karras, exponential or uniform")
    if not 1 <= steps <= total:
        raise ValueError(f"{steps} steps: this schedule has {total}; use 1 to {total}, or another spacing")
    return total


def _strides(first: float, last: float, steps: int) -> Tensor:
    if steps < 1:
        raise ValueError(f"{steps} steps; use 1 or more")
    return torch.linspace(first, last, steps, dtype=torch.float64)


def _levels(schedule: Schedule, t: Tensor) -> Tensor:
    return _ending_in_zero(schedule.sigma(t))


def _ending_in_zero(sigmas: Tensor) -> Tensor:
    return torch.cat((sigmas, sigmas.new_zeros(1)))
