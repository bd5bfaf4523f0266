"""Networks of which each process keeps a share: FSDP2 (`torch.distributed.fsdp.fully_shard`).

Weights are whole while a loss is computed and its gradients go back; between steps each process keeps its rows of them,
and only those rows' gradients, moments and averages (Rajbhandari et al. 2020, "ZeRO", stage 2). The sums are those of
`Replicated`, to rounding. An objective must use the same parameters in all processes' micro-batches of a step.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from tintype.objectives.base import Batch, GatheredObjective, Objective
from tintype.training.world import World

T = TypeVar("T")
OWN_GROUP = 2**20  # parameters from which a layer travels by itself, while others compute


class _Whole(nn.Module):
    """All parts, made whole while `call` computes with them: FSDP does its work around a module's forward."""

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(parts))

    def forward(self, call: Callable[[], T]) -> T:
        for layer in self.parts.modules():  # a network may read a layer's weight without calling the layer
            if isinstance(layer, FSDPModule):
                layer.unshard()
        return call()


class _ShardedObjective:
    """An objective that computes while its parts are whole."""

    def __init__(self, objective: Objective, whole: _Whole) -> None:
        self.inner = objective
        self.whole = whole

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        return self.inner.parts

    def loss(self, part: str, batch: Batch, noise: torch.Generator, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.whole(lambda: self.inner.loss(part, batch, noise, step=step))


class _ShardedGathered(_ShardedObjective):
    def __init__(self, objective: GatheredObjective, whole: _Whole) -> None:
        super().__init__(objective, whole)
        self.gathered = objective

    def features(self, part: str, batch: Batch, noise: torch.Generator, *, step: int) -> tuple[Tensor, ...]:
        return self.whole(lambda: self.gathered.features(part, batch, noise, step=step))

    def gathered_loss(
        self, part: str, features: tuple[Tensor, ...], rows: slice, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self.whole(lambda: self.gathered.gathered_loss(part, features, rows, step=step))


class Sharded:
    """A `Parallel` of several processes. It changes the parts in place: their parameters become shares."""

    def __init__(self, objective: Objective, parts: Mapping[str, nn.Module], world: World, device: str) -> None:
        self.parts = parts
        self.world = world
        mesh = init_device_mesh(device.partition(":")[0], (world.size,))
        whole = _Whole(parts)
        for parameter in whole.parameters():
            parameter.data = parameter.data.contiguous()  # FSDP shares out rows of memory as it lies
        # It takes no parameter of no dimension (a temperature): those stay whole everywhere.
        lone = {parameter for parameter in whole.parameters() if parameter.dim() == 0}
        for layer in list(whole.modules()):
            own = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
            if own >= OWN_GROUP and not list(layer.children()):
                fully_shard(layer, mesh=mesh, reshard_after_forward=False)
        self.root: FSDPModule = fully_shard(whole, mesh=mesh, reshard_after_forward=False, ignored_params=lone)
        self.objective: Objective = (
            _ShardedGathered(objective, whole)
            if isinstance(objective, GatheredObjective)
            else _ShardedObjective(objective, whole)
        )

    def expect(self, part: str, *, last: bool) -> None:
        self.root.set_requires_gradient_sync(last)

    def finish(self, part: str) -> None:
        """FSDP gives means over processes."""
        shares, lone = self._gradients(part)
        for gradient in shares:
            gradient.mul_(self.world.size)
        for gradient in lone:
            gradient.copy_(self.world.total(gradient))

    def clip(self, part: str, norm: float) -> Tensor:
        shares, lone = self._gradients(part)
        length = torch.nn.utils.get_total_norm(lone).square()
        if shares:
            length = length + self.world.total(torch.nn.utils.get_total_norm(shares).square())
        length = length.sqrt()
        for gradient in (*shares, *lone):
            gradient.mul_((norm / (length + 1e-6)).clamp(max=1.0))
        return length

    def _gradients(self, part: str) -> tuple[list[Tensor], list[Tensor]]:
        """This process's rows, and those of parameters that are whole everywhere."""
        found = [parameter.grad for parameter in self.parts[part].parameters() if parameter.grad is not None]
        return [one.to_local() for one in found if isinstance(one, DTensor)], [
            one for one in found if not isinstance(one, DTensor)
        ]
