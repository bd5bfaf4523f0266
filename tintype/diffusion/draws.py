"""Which noise levels training meets, and how often.

A law of times is a law of shares u of a schedule's time, 0 least noise and 1 most; a law of levels is one of sigma.
For a rectified flow u = sigma / (1 + sigma), so there the logit-normal law of Stable Diffusion 3 and the log-normal law
of EDM are the same draws.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tintype.diffusion.schedule import Schedule

STEEPEST_MODE = 2 / (math.pi - 2)  # beyond it the mode law's times would run backwards in places


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawsConfig:
    """schedule: as the schedule itself says. logit_normal: logit(u) from N(mean, std^2) (Esser et al. 2024, eq. 19);
    mode: more at the ends or in the middle, by `scale` (eq. 20). log_normal: log(sigma) from N(mean, std^2) (Karras et
    al. 2022, table 1), brought within the schedule's levels."""

    law: Literal["schedule", "logit_normal", "mode", "log_normal"] = "schedule"
    mean: float = 0.0
    std: float = 1.0
    scale: float = 1.29

    def __post_init__(self) -> None:
        if not 0 < self.std < math.inf or not math.isfinite(self.mean):
            raise ValueError(f"draws.mean {self.mean}, std {self.std}: expected a number, and one above 0")
        if not -1 <= self.scale <= STEEPEST_MODE:
            raise ValueError(f"draws.scale {self.scale}: expected -1 to {STEEPEST_MODE:.4g}")


def draw(config: DrawsConfig, schedule: Schedule, count: int, generator: torch.Generator) -> Tensor:
    """`count` noise levels; float64."""
    match config.law:
        case "schedule":
            return schedule.draw(count, generator)
        case "logit_normal":
            return schedule.at(torch.sigmoid(_normal(config, count, generator)))
        case "mode":
            u = torch.rand(count, generator=generator, dtype=torch.float64)
            return schedule.at(1 - u - config.scale * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u))
        case "log_normal":
            return _normal(config, count, generator).exp().clamp(schedule.sigma_min, schedule.sigma_max)


def _normal(config: DrawsConfig, count: int, generator: torch.Generator) -> Tensor:
    return config.mean + config.std * torch.randn(count, generator=generator, dtype=torch.float64)
