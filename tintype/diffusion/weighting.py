"""How much each noise level counts in training: lambda(sigma), the weight of the squared error of x0.

A network answers in its own parametrization, x0 = c_skip * x + c_out * answer, so an error of its answer is c_out times
as large in x0. Each law is therefore one function for every prediction type, and the loss that is computed, of the
network's answer against its target, weighs lambda(sigma) * c_out(sigma)^2. SNR is 1 / sigma^2, latents having std 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tintype.diffusion.scaling import Scaling

Law = Literal["uniform", "snr", "min_snr", "soft_min_snr", "edm", "debiased", "p2"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightingConfig:
    """`uniform`: every answer counts alike, whatever it means in x0 (Ho et al. 2020, eq. 14, for eps).

    `gamma`: where min_snr cuts the SNR and soft_min_snr bends it; `sigma_data`: the data's std in edm.
    """

    law: Law = "uniform"
    gamma: float = 5.0
    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        for name in ("gamma", "sigma_data"):
            if not getattr(self, name) > 0:
                raise ValueError(f"weighting.{name} {getattr(self, name)}: expected more than 0")


def snr(sigma: Tensor, config: WeightingConfig) -> Tensor:
    """The SNR itself: every level's eps counts alike."""
    return sigma**-2


def min_snr(sigma: Tensor, config: WeightingConfig) -> Tensor:
    """min(SNR, gamma) (Hang et al. 2023, section 3.4): min(SNR, gamma) / SNR of eps, / (SNR + 1) of v."""
    return (sigma**-2).clamp(max=config.gamma)


def soft_min_snr(sigma: Tensor, config: WeightingConfig) -> Tensor:
    """The same with a bend for a corner: SNR gamma / (SNR + gamma) (Crowson et al. 2024, section 3.4, where gamma
    is 4 for data of std 1/2, that is 1 for latents)."""
    return 1 / (sigma**2 + 1 / config.gamma)


def edm(sigma: Tensor, config: WeightingConfig) -> Tensor:
    """(sigma^2 + s^2) / (sigma s)^2 (Karras et al. 2022, table 1): at initialisation every level's loss is 1."""
    return (sigma**2 + config.sigma_data**2) / (sigma * config.sigma_data) ** 2


def debiased(sigma: Tensor, config: WeightingConfig) -> Tensor:
    """sqrt(SNR): 1 / sqrt(SNR) of eps (Yu et al. 2023, Unmasking Bias in Diffusion Model Training)."""
    return 1 / sigma


def p2(sigma: Tensor, config: WeightingConfig) -> Tensor:
    """SNR / (1 + SNR): 1 / (1 + SNR) of eps (Choi et al. 2022, eq. 8 with k = gamma = 1)."""
    return 1 / (1 + sigma**2)


WEIGHTINGS: dict[Law, Callable[[Tensor, WeightingConfig], Tensor]] = {
    "snr": snr,
    "min_snr": min_snr,
    "soft_min_snr": soft_min_snr,
    "edm": edm,
    "debiased": debiased,
    "p2": p2,
}


def answer_weights(sigma: Tensor, scaling: Scaling, config: WeightingConfig) -> Tensor | None:
    """What the squared error of the network's answer is multiplied with, at each level (float64); None: nothing."""
    if config.law == "uniform":
        return None
    return WEIGHTINGS[config.law](sigma.double(), config) * scaling(sigma.double()).out ** 2
