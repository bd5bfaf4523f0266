"""What a first stage and its critic play (Esser et al. 2021, "Taming Transformers", section 3.1)."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_WEIGHT = 1e4


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialConfig:
    """weight: of the adversarial term when its gradient is as long as that of the reconstruction (equation 6). Before
    step `start` the critic neither acts nor learns (but weight decay, if there is any, shrinks it)."""

    weight: float = 0.5
    start: int = 50_001
    loss: Literal["hinge", "vanilla"] = "hinge"

    def __post_init__(self) -> None:
        if self.weight <= 0 or self.start < 0:
            raise ValueError(
                f"adversarial weight {self.weight}, start {self.start}: expected a weight above 0 and a step; to train "
                "without a critic leave it out: null"
            )


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Answers, of any shape, beyond 1 and below -1 cost nothing (Lim & Ye 2017)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def vanilla(real: Tensor, fake: Tensor) -> Tensor:
    """Cross-entropy of answers, of any shape, as logits (Goodfellow et al. 2014)."""
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


CRITIC_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"hinge": hinge, "vanilla": vanilla}


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """How much longer the first loss's gradient at `last_layer` is than the second's, detached (equation 7). The graph
    is kept."""
    lengths = [
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)
    ]
    return (lengths[0] / (lengths[1] + 1e-4)).clamp(0.0, LARGEST_WEIGHT)


@contextmanager
def frozen(module: nn.Module) -> Generator[None]:
    """What is computed inside gives the module's parameters no gradient."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
