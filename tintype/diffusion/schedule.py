"""Noise schedules: how much noise (sigma, in units of the signal) belongs to a time t.

Everything is computed in float64. `x = x0 + sigma * noise` in every schedule; how a network of the family wants its
input scaled is the business of `scaling`.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Betas = Literal["linear", "scaled_linear", "cosine", "sqrt"]
LAST_SIGNAL = 2.0**-24  # alpha_bar given to a terminal step of zero signal, or less: sigma 4096 instead of infinity


class Schedule(Protocol):
    """Times run from `t_min` (least noise) to `t_max`; sigma is monotone in t."""

    @property
    def t_min(self) -> float: ...
    @property
    def t_max(self) -> float: ...
    @property
    def sigma_min(self) -> float: ...
    @property
    def sigma_max(self) -> float: ...

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level of times of any shape; float64."""
        ...

    def t(self, sigma: Tensor) -> Tensor:
        """The inverse, clamped to the schedule's ends; float64. This is what the network is told."""
        ...

    def at(self, share: Tensor) -> Tensor:
        """The training level at a share of the times, from 0 (least noise) to 1; float64."""
        ...

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` noise levels as training meets them; float64."""
        ...


def make_betas(kind: Betas, *, start: float, end: float, steps: int) -> Tensor:
    """The variances of `steps` forward steps, float64.

    linear: equal steps (Ho et al. 2020); scaled_linear: equal steps of the root, squared (latent-diffusion calls
    this "linear"); sqrt: the root of equal steps; cosine: alpha_bar is a squared cosine (Nichol & Dhariwal 2021,
    eq. 17; start and end do not matter).
    """
    match kind:
        case "linear":
            return torch.linspace(start, end, steps, dtype=torch.float64)
        case "scaled_linear":
            return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        case "sqrt":
            return torch.linspace(start, end, steps, dtype=torch.float64) ** 0.5
        case "cosine":
            t = torch.arange(steps + 1, dtype=torch.float64) / steps
            alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
            return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def zero_terminal_snr(alpha_bar: Tensor) -> Tensor:
    """Shift and stretch sqrt(alpha_bar) so that the last step keeps no signal (Lin et al. 2023, algorithm 1).

    The last step gets LAST_SIGNAL, unless the one before it has hardly more: then half of that one's, since sigma
    must rise to the end (with Ho's linear betas the last but one is already at sigma 15000).
    """
    root = alpha_bar.sqrt()
    rescaled = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    rescaled[-1] = min(LAST_SIGNAL, float(rescaled[-2]) / 2)
    return rescaled


@dataclass(frozen=True, kw_only=True, slots=True)
class DDPMConfig:
    """Defaults are Stable Diffusion's. `sigma_max` leaves out the steps above it: the cosine schedule ends at 20,000,
    and from there to 10 neither multistep nor second-order samplers can stride."""

    betas: Betas = "scaled_linear"
    start: float = 0.00085
    end: float = 0.012
    steps: int = 1000
    zero_terminal_snr: bool = False
    sigma_max: float | None = None
    draw_exponent: float = 1.0  # training draws step = steps * u ** exponent: below 1 it meets noise more often

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"schedule.steps {self.steps}: expected 2 or more")
        if self.betas != "cosine" and not 0 < self.start <= self.end < 1:
            raise ValueError(f"schedule.start {self.start}, end {self.end}: expected 0 < start <= end < 1")
        if not self.draw_exponent > 0:
            raise ValueError(f"schedule.draw_exponent {self.draw_exponent}: expected more than 0")


class DDPM:
    """The discrete schedule of DDPM and Stable Diffusion: t is a step, 0 to steps - 1, interpolated in log sigma."""

    def __init__(self, config: DDPMConfig) -> None:
        self.config = config
        betas = make_betas(config.betas, start=config.start, end=config.end, steps=config.steps)
        alpha_bar = torch.cumprod(1 - betas, dim=0)
        if config.zero_terminal_snr:
            alpha_bar = zero_terminal_snr(alpha_bar)
        sigmas = ((1 - alpha_bar) / alpha_bar).sqrt()
        self.sigmas = sigmas if config.sigma_max is None else sigmas[sigmas <= config.sigma_max]
        if len(self.sigmas) < 2:
            raise ValueError(
                f"schedule.sigma_max {config.sigma_max} leaves {len(self.sigmas)} of {config.steps} steps; expected "
                f"{float(sigmas[1]):.3g} or more"
            )
        self._log_sigmas = self.sigmas.log()
        self.t_min, self.t_max = 0.0, float(len(self.sigmas) - 1)
        self.sigma_min, self.sigma_max = float(self.sigmas[0]), float(self.sigmas[-1])

    def sigma(self, t: Tensor) -> Tensor:
        t = t.double().clamp(self.t_min, self.t_max)
        low = t.floor().long().clamp(max=len(self.sigmas) - 2)
        fraction = t - low
        table = self._log_sigmas.to(t.device)
        return torch.lerp(table[low], table[low + 1], fraction).exp()

    def t(self, sigma: Tensor) -> Tensor:
        log_sigma = sigma.double().clamp(self.sigma_min, self.sigma_max).log()
        table = self._log_sigmas.to(sigma.device)
        low = (torch.searchsorted(table, log_sigma, right=True) - 1).clamp(0, len(table) - 2)
        return low + (log_sigma - table[low]) / (table[low + 1] - table[low])

    def at(self, share: Tensor) -> Tensor:
        return self.sigmas[(len(self.sigmas) * share.double()).long().clamp(0, len(self.sigmas) - 1)]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return self.at(torch.rand(count, generator=generator, dtype=torch.float64) ** self.config.draw_exponent)


@dataclass(frozen=True, kw_only=True, slots=True)
class EDMConfig:
    """Karras et al. 2022, table 1: training draws log sigma from N(mean, std^2)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    log_mean: float = -1.2
    log_std: float = 1.2

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"schedule.sigma_min {self.sigma_min}, sigma_max {self.sigma_max}: expected 0 < min < max")


class EDM:
    """Karras et al. 2022: the network is told t = log(sigma) / 4 (c_noise)."""

    def __init__(self, config: EDMConfig) -> None:
        self.config = config
        self.sigma_min, self.sigma_max = config.sigma_min, config.sigma_max
        self.t_min, self.t_max = math.log(config.sigma_min) / 4, math.log(config.sigma_max) / 4

    def sigma(self, t: Tensor) -> Tensor:
        return (4 * t.double().clamp(self.t_min, self.t_max)).exp()

    def t(self, sigma: Tensor) -> Tensor:
        return sigma.double().clamp(self.sigma_min, self.sigma_max).log() / 4

    def at(self, share: Tensor) -> Tensor:
        return self.sigma(self.t_min + share.double() * (self.t_max - self.t_min))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(count, generator=generator, dtype=torch.float64)
        return (normal * self.config.log_std + self.config.log_mean).exp()


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowConfig:
    """`scale` is what the network counts t in."""

    scale: float = 1000.0
    sigma_max: float = 4096.0

    def __post_init__(self) -> None:
        if not 1 < self.scale < math.inf or not 1 / (self.scale - 1) < self.sigma_max < math.inf:
            raise ValueError(
                f"schedule.scale {self.scale}, sigma_max {self.sigma_max}: expected a scale above 1, "
                "and a sigma_max above 1 / (scale - 1)"
            )


class Flow:
    """Rectified flow: z = (1 - s) x0 + s noise with s = t / scale, that is sigma = s / (1 - s) on unit signal.

    s = 1 is pure noise, sigma infinite; `sigma_max` caps it.
    """

    def __init__(self, config: FlowConfig) -> None:
        self.config = config
        self.sigma_max = config.sigma_max
        self.sigma_min = 1 / (config.scale - 1)  # of t = 1
        self.t_min = 1.0
        self.t_max = float(self.t(torch.tensor(config.sigma_max)))

    def sigma(self, t: Tensor) -> Tensor:
        s = (t.double() / self.config.scale).clamp(max=1 - 1e-12)
        return (s / (1 - s)).clamp(self.sigma_min, self.sigma_max)

    def t(self, sigma: Tensor) -> Tensor:
        sigma = sigma.double().clamp(self.sigma_min, self.sigma_max)
        return sigma / (1 + sigma) * self.config.scale

    def at(self, share: Tensor) -> Tensor:
        s = share.double()
        return (s / (1 - s)).clamp(self.sigma_min, self.sigma_max)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return self.at(torch.rand(count, generator=generator, dtype=torch.float64))


def make_schedule(config: DDPMConfig | EDMConfig | FlowConfig) -> Schedule:
    """The schedule a configuration describes."""
    match config:
        case DDPMConfig():
            return DDPM(config)
        case EDMConfig():
            return EDM(config)
        case FlowConfig():
            return Flow(config)
