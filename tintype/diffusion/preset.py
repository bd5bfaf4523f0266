"""What a program means by a sampler's name, as data: its spacing, its first noise, its times, its last level."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from tintype.diffusion.schedule import Schedule
from tintype.diffusion.spacing import OF_LEVELS, SPACINGS, nearest_taught

Whole = Literal["rounded", "floored", "taught"]
ALMOST = 1e-3  # of a training step: float32 leaves a time that is whole a hair below it, and so floored to the next


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A sampler of ours with the choices that make up one program's picture.

    scheduler: the spacing taken unasked; `firm` if even a model's own does not go before it. means: what this program
    calls by a spacing's name, where that is another of ours. within: the spacing of training steps between whose ends
    the levels of others (karras, ...) lie, where those are not the schedule's. flagged: whether a model's own spacing
    of noise levels (`use_karras_sigmas` in its file) goes before. eta: None is the sampler's own. start: std of the
    first x, that of noise alone, of signal and noise together ("whole"), or of noise alone only where the first level
    is the noisiest. whole: spacings of which the network is told whole training steps ("taught": of those that lcm
    has). last: where the last step leads: to zero, to the schedule's least level, to a level of its own, or nowhere
    ("stop": the level above is the end). skipped: the last level above zero is left out, and one more taken before
    (k-diffusion's `discard_next_to_last_sigma`). averages: what a multistep mean is taken of, where a sampler leaves
    the choice: eps, or the network's own prediction.
    """

    sampler: str
    scheduler: str | None = None
    firm: bool = False
    means: Mapping[str, str] = field(default_factory=dict[str, str])
    within: str | None = None
    flagged: bool = False
    eta: float | None = None
    start: Literal["whole", "noise", "noise at the top"] = "whole"
    whole: Mapping[str, Whole] = field(default_factory=dict[str, Whole])
    last: Literal["zero", "least", "stop"] | float = "zero"
    skipped: bool = False
    averages: Literal["eps", "prediction"] = "eps"

    def levels(self, schedule: Schedule, scheduler: str, steps: int) -> Tensor:
        """The noise levels of so many steps; float64. Raises `ValueError` where there are not so many."""
        sigmas = self._spaced(schedule, scheduler, steps + self.skipped)
        if self.skipped:
            sigmas = torch.cat((sigmas[:-2], sigmas[-1:]))
        if self.last == "least" or isinstance(self.last, float):
            sigmas[-1] = schedule.sigma_min if self.last == "least" else self.last
        elif self.last == "stop":
            sigmas = sigmas[:-1]
        if len(sigmas) < 2:
            raise ValueError(f"{steps} steps: this sampler walks between the levels of {scheduler}; use 2 or more")
        return sigmas

    def _spaced(self, schedule: Schedule, scheduler: str, steps: int) -> Tensor:
        if self.within is None or scheduler not in OF_LEVELS:
            return SPACINGS[self.means.get(scheduler, scheduler)](schedule, steps)
        walked = self._spaced(schedule, self.within, steps)
        return OF_LEVELS[scheduler](Ends(float(walked[-2]), float(walked[0])), steps)

    def first(self, schedule: Schedule, sigma: float) -> float:
        """The std of x at the first level."""
        alone = self.start == "noise" or (self.start == "noise at the top" and sigma > schedule.sigma_max * (1 - 1e-6))
        return sigma if alone else (1 + sigma**2) ** 0.5

    def told(self, schedule: Schedule, scheduler: str, sigmas: Tensor) -> Schedule:
        """The schedule as the network hears of it when sampled at these levels."""
        if scheduler not in self.whole:
            return schedule
        levels = sigmas[sigmas > 0]
        match self.whole[scheduler]:
            case "rounded":
                whole = schedule.t(levels).round()
            case "floored":
                whole = (schedule.t(levels) - ALMOST).floor().clamp(min=0)
            case "taught":
                whole = nearest_taught(schedule, levels)
        return Told(schedule, levels, whole)

    def ended(self, x: Tensor, sigma: float) -> Tensor:
        """The latents to decode, of x at the last level. Programs that end above zero keep signal and noise together
        at unit variance and decode that."""
        return x if self.last == "zero" else x * (1 + sigma**2) ** -0.5


@dataclass(frozen=True, slots=True)
class Ends:
    """Between which levels a spacing is to lie."""

    sigma_min: float
    sigma_max: float


@dataclass(frozen=True, slots=True)
class Told:
    """A schedule of which the network is told other times at some levels: `times` at `levels`, both 1-D, float64."""

    schedule: Schedule
    levels: Tensor
    times: Tensor

    @property
    def t_min(self) -> float:
        return self.schedule.t_min

    @property
    def t_max(self) -> float:
        return self.schedule.t_max

    @property
    def sigma_min(self) -> float:
        return self.schedule.sigma_min

    @property
    def sigma_max(self) -> float:
        return self.schedule.sigma_max

    def sigma(self, t: Tensor) -> Tensor:
        return self.schedule.sigma(t)

    def t(self, sigma: Tensor) -> Tensor:
        there, nearest = (sigma.double()[..., None] == self.levels).max(dim=-1)
        return torch.where(there, self.times[nearest], self.schedule.t(sigma))

    def at(self, share: Tensor) -> Tensor:
        return self.schedule.at(share)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return self.schedule.draw(count, generator)
