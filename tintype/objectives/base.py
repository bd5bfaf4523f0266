"""What the training loop asks of an objective."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]


class Objective(Protocol):
    """`parts` are trained in turn within each step, each by its own optimizer."""

    @property
    def parts(self) -> Mapping[str, nn.Module]: ...

    def loss(self, part: str, batch: Batch, noise: torch.Generator, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """(scalar to minimise, detached scalars to report). All randomness comes from `noise`, a CPU generator."""
        ...
