"""What the training loop asks of an objective."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class GatheredObjective(Objective, Protocol):
    """An objective whose loss is of all samples of a step together and no mean over micro-batches: contrastive ones,
    where every sample is a negative of every other. `training.gathered` computes it over micro-batches and processes.
    """

    def features(self, part: str, batch: Batch, noise: torch.Generator, *, step: int) -> tuple[Tensor, ...]:
        """What the loss reads of a micro-batch, each B D. Called twice for one micro-batch, with equal `noise`."""
        ...

    def gathered_loss(
        self, part: str, features: tuple[Tensor, ...], rows: slice, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The share of some rows (each N D, of the whole step) in the loss and in the metrics: shares of rows that
        make up the step add up to both."""
        ...


class Processes(Protocol):
    """Those that train together (`training.world.World`)."""

    def total(self, tensor: Tensor) -> Tensor:
        """Its sum over all of them."""
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """Those of all of them, of one shape, stacked."""
        ...


@runtime_checkable
class Settling(Protocol):
    """An objective that changes parameters by more than gradients: codebooks, from what its losses keep of each
    micro-batch; a temperature that has bounds."""

    def settle(self, part: str, processes: Processes, *, skip: Tensor | None = None) -> dict[str, Tensor]:
        """Called after each update of a part, before it is averaged or saved: take in what the losses of this step
        kept, in all processes, and forget it; where `skip` is 1, for the update was not finite, only forget it. Gives
        detached scalars to report."""
        ...
