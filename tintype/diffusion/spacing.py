"""Which noise levels a sampler visits: (schedule, steps) -> sigmas, steps + 1 of them, falling, the last one 0 (of
`kl_optimal_least` the least of the schedule).

float64, on the CPU. The first three walk the training steps of a discrete schedule as Lin et al. 2023 (table 2) name
them and raise `ValueError` where there are fewer of those than `steps`. They round as diffusers does (whence numpy), so
that the same step count means the same training steps.
"""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tintype.diffusion.schedule import Schedule

Spacing = Callable[[Schedule, int], Tensor]


class Range(Protocol):
    """The ends between which noise levels are laid, be it a schedule's or another's."""

    @property
    def sigma_min(self) -> float: ...
    @property
    def sigma_max(self) -> float: ...


def leading(schedule: Schedule, steps: int, *, offset: int = 1) -> Tensor:
    """Every (T // steps)-th training step from `offset` (or as near to it as there is room); never the noisiest."""
    total = _total(schedule, steps)
    stride = total // steps
    t = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * stride
    return _levels(schedule, t + min(offset, total - 1 - (steps - 1) * stride) + schedule.t_min)


def leading_open(schedule: Schedule, steps: int, *, offset: int = 1) -> Tensor:
    """`leading` with one step more, of which the last is left out (diffusers' multistep solvers)."""
    total = _total(schedule, steps)
    if steps == total:
        raise ValueError(
            f"{steps} steps: leading_open takes 1 to {total - 1} of this schedule's, or use another spacing"
        )
    t = torch.arange(steps, 0, -1, dtype=torch.float64) * (total // (steps + 1))
    return _levels(schedule, t + min(offset, total - 1 - int(t[0])) + schedule.t_min)


def ddim_uniform(schedule: Schedule, steps: int) -> Tensor:
    """Every (T // steps)-th training step from 1 on, as many as there are: more than `steps` where those do not divide
    the training steps (A1111's and ComfyUI's form of LDM's)."""
    total = _total(schedule, steps)
    t = torch.arange(1, total, total // steps, dtype=torch.float64).flip(0)
    return _levels(schedule, t + schedule.t_min)


def trailing(schedule: Schedule, steps: int) -> Tensor:
    """From the noisiest training step down, in equal strides rounded to whole steps."""
    total = _total(schedule, steps)
    t = np.arange(total, 0, -total / steps)[:steps].round() - 1
    return _levels(schedule, torch.from_numpy(t) + schedule.t_min)


def linspace(schedule: Schedule, steps: int) -> Tensor:
    """Both ends and equal strides between, rounded to whole steps; a single step is the noisiest."""
    t = np.linspace(0, _total(schedule, steps) - 1, max(steps, 2)).round()[::-1][:steps]
    return _levels(schedule, torch.from_numpy(t.copy()) + schedule.t_min)


def linspace_open(schedule: Schedule, steps: int) -> Tensor:
    """`linspace` with one step more, of which the last, to the least noise, is left out (diffusers' DPM-Solvers)."""
    total = _total(schedule, steps)
    if steps == total:
        raise ValueError(
            f"{steps} steps: linspace_open takes 1 to {total - 1} of this schedule's, or use another spacing"
        )
    t = np.linspace(0, total - 1, steps + 1).round()[::-1][:steps]
    return _levels(schedule, torch.from_numpy(t.copy()) + schedule.t_min)


def uniform(schedule: Schedule, steps: int) -> Tensor:
    """Equal strides of continuous time, both ends included; for any schedule."""
    return _levels(schedule, _strides(schedule.t_max, schedule.t_min, steps))


def karras(schedule: Range, steps: int, *, rho: float = 7.0) -> Tensor:
    """Equal strides of sigma^(1/rho) (Karras et al. 2022, eq. 5)."""
    return _ending_in_zero(_strides(schedule.sigma_max ** (1 / rho), schedule.sigma_min ** (1 / rho), steps) ** rho)


def exponential(schedule: Range, steps: int) -> Tensor:
    """Equal strides of log sigma."""
    return _ending_in_zero(_strides(math.log(schedule.sigma_max), math.log(schedule.sigma_min), steps).exp())


def time_uniform(schedule: Schedule, steps: int) -> Tensor:
    """Equal strides of continuous time, as many as `ddim_uniform` has steps, and 0 after the last (UniPC's own spacing,
    counted as A1111 counts it)."""
    count = len(ddim_uniform(schedule, steps)) - 1
    return _levels(schedule, _strides(schedule.t_max, schedule.t_min, count + 1))


def kl_optimal(schedule: Range, steps: int) -> Tensor:
    """Equal strides of the arc tangent of sigma (Sabour et al. 2024, section 3.2, for data of unit variance)."""
    return _ending_in_zero(_strides(math.atan(schedule.sigma_max), math.atan(schedule.sigma_min), steps).tan())


def kl_optimal_least(schedule: Range, steps: int) -> Tensor:
    """The same with one level more, the least, where it ends (A1111)."""
    _strides(0, 1, steps)  # refuses none
    return kl_optimal(schedule, steps + 1)[:-1]


def lu_lambdas(schedule: Range, steps: int) -> Tensor:
    """`exponential` under the name it has where it comes from (Lu et al. 2022, section 3.4), and in diffusers, which
    tells networks other times for it."""
    return exponential(schedule, steps)


def polyexponential(schedule: Range, steps: int, *, rho: float = 1.0) -> Tensor:
    """Strides of log sigma that shorten (rho above 1) or lengthen toward the end; rho 1 is `exponential`."""
    low, high = math.log(schedule.sigma_min), math.log(schedule.sigma_max)
    return _ending_in_zero((_strides(1, 0, steps) ** rho * (high - low) + low).exp())


def beta(schedule: Range, steps: int, *, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """Quantiles of a beta distribution over sigma: dense at both ends (diffusers' form of Lee et al. 2024)."""
    from scipy.stats import beta as distribution

    shares = torch.from_numpy(distribution.ppf(_strides(1, 0, steps).numpy(), alpha, beta))
    return _ending_in_zero(schedule.sigma_min + shares * (schedule.sigma_max - schedule.sigma_min))


def beta_steps(schedule: Schedule, steps: int, *, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """Quantiles of a beta distribution over training steps (Lee et al. 2024, as ComfyUI has it); where two
    fall on one step, the later takes the next that is free."""
    from scipy.stats import beta as distribution

    total = _total(schedule, steps)
    number = np.arange(steps)
    t = np.rint(distribution.ppf(1 - number / steps, alpha, beta) * (total - 1))
    t = np.minimum.accumulate(t + number) - number
    return _levels(schedule, torch.from_numpy(np.maximum(t, steps - 1 - number)) + schedule.t_min)


def sgm_uniform(schedule: Schedule, steps: int) -> Tensor:
    """`uniform` with one step more, of which the last, to the least noise, is left out (generative-models)."""
    _strides(0, 1, steps)  # refuses none
    return _levels(schedule, _strides(schedule.t_max, schedule.t_min, steps + 1)[:steps])


def simple(schedule: Schedule, steps: int) -> Tensor:
    """Training steps from the noisiest down in equal strides, rounded up (ComfyUI)."""
    total = _total(schedule, steps)
    t = total - 1 - np.floor(np.arange(steps) * (total / steps))
    return _levels(schedule, torch.from_numpy(t) + schedule.t_min)


def turbo(schedule: Schedule, steps: int) -> Tensor:
    """`trailing` rounded after the 1 is taken off instead of before (Forge)."""
    total = _total(schedule, steps)
    t = (np.arange(steps, 0, -1) * (total / steps) - 1).round().clip(0, total - 1)
    return _levels(schedule, torch.from_numpy(t) + schedule.t_min)


def lcm(schedule: Schedule, steps: int, *, taught: int = 50) -> Tensor:
    """Out of the `taught` training steps that latent consistency models were distilled on (Luo et al. 2023)."""
    if not 1 <= steps <= taught:
        raise ValueError(f"{steps} steps; lcm was taught {taught}: use 1 to {taught}, or another spacing")
    total = _total(schedule, steps)
    numbers = taught - np.floor(np.linspace(0, taught, steps, endpoint=False))
    return _levels(schedule, torch.from_numpy(numbers * (total // taught) - 1) + schedule.t_min)


def lcm_strides(schedule: Schedule, steps: int) -> Tensor:
    """Equal strides over the training steps that latent consistency models were distilled on, log sigma linear between
    two of them (A1111, which tells networks the nearest: `nearest_taught`)."""
    taught = lcm(schedule, 50)[:-1].log().flip(0)
    places = _strides(len(taught) - 1, 0, steps)
    low = places.floor().long().clamp(max=len(taught) - 2)
    return _ending_in_zero(torch.lerp(taught[low], taught[low + 1], places - low).exp())


def nearest_taught(schedule: Schedule, sigmas: Tensor) -> Tensor:
    """Of each level the training step, among those of `lcm`, that is nearest in log sigma."""
    taught = lcm(schedule, 50)[:-1]
    nearest = (sigmas.log()[:, None] - taught.log()).abs().argmin(dim=1)
    return schedule.t(taught)[nearest].round()


AYS_SD1 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
AYS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


def ays_sd1(schedule: Schedule, steps: int) -> Tensor:
    """Align Your Steps (Sabour et al. 2024) for SD 1.5: ten steps, interpolated in log sigma to others."""
    return _aligned(AYS_SD1, schedule, steps)


def ays_sdxl(schedule: Schedule, steps: int) -> Tensor:
    """The same for SDXL."""
    return _aligned(AYS_SDXL, schedule, steps)


def ays_sd1_least(schedule: Schedule, steps: int) -> Tensor:
    """The levels of SD 1.5 down to the least, interpolated to as many as `steps` before 0 (A1111, as if there were
    eleven steps)."""
    return _aligned(AYS_SD1, schedule, steps, least=True)


def ays_sdxl_least(schedule: Schedule, steps: int) -> Tensor:
    """The same for SDXL."""
    return _aligned(AYS_SDXL, schedule, steps, least=True)


OF_LEVELS: dict[str, Callable[[Range, int], Tensor]] = {  # they ask a schedule for its ends alone
    "karras": karras,
    "exponential": exponential,
    "lu_lambdas": lu_lambdas,
    "polyexponential": polyexponential,
    "beta": beta,
    "kl_optimal": kl_optimal,
    "kl_optimal_least": kl_optimal_least,
}
SPACINGS: dict[str, Spacing] = {
    "leading": leading,
    "leading_open": leading_open,
    "ddim_uniform": ddim_uniform,
    "trailing": trailing,
    "linspace": linspace,
    "linspace_open": linspace_open,
    "uniform": uniform,
    "time_uniform": time_uniform,
    **OF_LEVELS,
    "beta_steps": beta_steps,
    "sgm_uniform": sgm_uniform,
    "simple": simple,
    "turbo": turbo,
    "lcm": lcm,
    "lcm_strides": lcm_strides,
    "ays_sd1": ays_sd1,
    "ays_sdxl": ays_sdxl,
    "ays_sd1_least": ays_sd1_least,
    "ays_sdxl_least": ays_sdxl_least,
}


def _total(schedule: Schedule, steps: int) -> int:
    total = round(schedule.t_max - schedule.t_min) + 1
    if total < 10:
        raise ValueError("this schedule has no training steps to walk; use karras, exponential or uniform")
    if not 1 <= steps <= total:
        raise ValueError(f"{steps} steps: this schedule has {total}; use 1 to {total}, or another spacing")
    return total


def _aligned(found: tuple[float, ...], schedule: Schedule, steps: int, *, least: bool = False) -> Tensor:
    """Levels through `found` on equal strides, log sigma linear between them; the last is 0."""
    if abs(schedule.sigma_max / found[0] - 1) > 0.05:
        raise ValueError(
            f"these levels were found for a schedule that ends at sigma {found[0]}; this one ends at "
            f"{schedule.sigma_max:.3g}; use karras or exponential"
        )
    _strides(0, 1, steps)  # refuses none
    places = _strides(0, len(found) - 1, steps if least else steps + 1)[:steps]
    return _ending_in_zero(torch.from_numpy(np.exp(np.interp(places, np.arange(len(found)), np.log(found)))))


def _strides(first: float, last: float, steps: int) -> Tensor:
    if steps < 1:
        raise ValueError(f"{steps} steps; use 1 or more")
    return torch.linspace(first, last, steps, dtype=torch.float64)


def _levels(schedule: Schedule, t: Tensor) -> Tensor:
    return _ending_in_zero(schedule.sigma(t))


def _ending_in_zero(sigmas: Tensor) -> Tensor:
    return torch.cat((sigmas, sigmas.new_zeros(1)))
