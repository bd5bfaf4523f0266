"""Which noise levels a sampler visits: (schedule, steps) -> sigmas, steps + 1 of them, falling, the last one 0.

float64, on the CPU. The first three walk the training steps of a discrete schedule as Lin et al. 2023 (table 2) name
them; `offset` shifts the steps they pick.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tintype.diffusion.schedule import Schedule

Spacing = Callable[[Schedule, int], Tensor]


def leading(schedule: Schedule, steps: int, *, offset: int = 1) -> Tensor:
    """Every (T // steps)-th training step from `offset`; never reaches the noisiest."""
    total = _total(schedule, steps)
    t = torch.arange(steps, dtype=torch.float64) * (total // steps) + offset
    return _levels(schedule, t.flip(0) + schedule.t_min)


def trailing(schedule: Schedule, steps: int, *, offset: int = 0) -> Tensor:
    """From the noisiest training step down, in equal strides rounded to whole steps."""
    total = _total(schedule, steps)
    t = torch.arange(steps, 0, -1, dtype=torch.float64) * (total / steps)
    return _levels(schedule, t.round() - 1 + offset + schedule.t_min)


def linspace(schedule: Schedule, steps: int, *, offset: int = 0) -> Tensor:
    """Both ends and equal strides between, rounded to whole steps."""
    t = torch.linspace(0, _total(schedule, steps) - 1, steps, dtype=torch.float64)
    return _levels(schedule, t.flip(0).round() + offset + schedule.t_min)


def uniform(schedule: Schedule, steps: int) -> Tensor:
    """Equal strides of continuous time, both ends included; for any schedule."""
    return _levels(schedule, torch.linspace(schedule.t_max, schedule.t_min, steps, dtype=torch.float64))


def karras(schedule: Schedule, steps: int, *, rho: float = 7.0) -> Tensor:
    """Equal strides of sigma^(1/rho) (Karras et al. 2022, eq. 5)."""
    ramp = torch.linspace(schedule.sigma_max ** (1 / rho), schedule.sigma_min ** (1 / rho), steps, dtype=torch.float64)
    return _ending_in_zero(ramp**rho)


def exponential(schedule: Schedule, steps: int) -> Tensor:
    """Equal strides of log sigma."""
    ends = torch.tensor([schedule.sigma_max, schedule.sigma_min], dtype=torch.float64).log()
    return _ending_in_zero(torch.linspace(float(ends[0]), float(ends[1]), steps, dtype=torch.float64).exp())


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
    if steps > total:
        raise ValueError(f"{steps} steps: this schedule has {total}; use {total} or fewer, or another spacing")
    return total


def _levels(schedule: Schedule, t: Tensor) -> Tensor:
    return _ending_in_zero(schedule.sigma(t))


def _ending_in_zero(sigmas: Tensor) -> Tensor:
    return torch.cat((sigmas, sigmas.new_zeros(1)))
