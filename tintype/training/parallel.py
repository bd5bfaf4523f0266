"""Whole networks in every process: their gradients are added up while the backward pass still goes on.

The arithmetic of DistributedDataParallel (Li et al. 2020, "PyTorch Distributed", section 3.2: buckets, filled from the
last parameter to the first, travel as soon as they are full) without its wrapper: an objective may call any module of
a part, as often as it likes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tintype.objectives.base import Objective
from tintype.training.world import World

BUCKET = 25 * 2**20  # bytes of gradients that travel together


class Parallel(Protocol):
    """What the loop asks of the way in which processes train together."""

    @property
    def objective(self) -> Objective:
        """What losses are to be computed with."""
        ...

    def expect(self, part: str, *, last: bool) -> None:
        """Told before a backward pass of a part: after the last one of a step its gradients may travel."""
        ...

    def finish(self, part: str) -> None:
        """Make every gradient of the part its sum over all processes."""
        ...

    def clip(self, part: str, norm: float) -> Tensor:
        """Scale the part's gradient down to a norm; the norm that it had, of all processes' shares."""
        ...


@dataclass(slots=True, eq=False)
class Bucket:
    """Neighbouring parameters of one data type, those still without gradient, and their sums under way."""

    parameters: Sequence[nn.Parameter]
    missing: set[int] = field(default_factory=set[int])
    sums: Tensor | None = None
    work: dist.Work | None = None

    def start(self) -> None:
        """Send the gradients off, with a note of which are there. One that no process has stays absent at the end."""
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in self.parameters]
        there = [float(one.grad is not None) for one in self.parameters]
        first = gradients[0]
        # All there, as nearly always: then nothing is copied to the device, which would wait for it.
        note = first.new_ones(len(there)) if all(there) else first.new_tensor(there)
        self.sums = torch.cat([*(gradient.flatten() for gradient in gradients), note])
        self.work = dist.all_reduce(self.sums, async_op=True)

    def finish(self) -> None:
        assert self.sums is not None
        assert self.work is not None
        self.work.wait()
        *totals, note = self.sums.split([*(one.numel() for one in self.parameters), len(self.parameters)])
        absent = any(one.grad is None for one in self.parameters)
        for parameter, total, there in zip(
            self.parameters, totals, note.tolist() if absent else [1.0] * len(note), strict=True
        ):
            if there and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                parameter.grad.copy_(total.view_as(parameter.grad))
        self.sums = self.work = None


class Replicated:
    """The default, and what a process alone does: then there is nothing to add."""

    def __init__(self, objective: Objective, parts: Mapping[str, nn.Module], world: World) -> None:
        self.objective = objective
        self.parts = parts
        self._buckets = {name: _buckets(module) if world.size > 1 else [] for name, module in parts.items()}
        self._listening: str | None = None
        self._sent = 0
        for name, buckets in self._buckets.items():
            for bucket in buckets:
                for parameter in bucket.parameters:
                    parameter.register_post_accumulate_grad_hook(self._arrival(name, bucket))

    def expect(self, part: str, *, last: bool) -> None:
        if last:
            self._listening = part
            for bucket in self._buckets[part]:
                bucket.missing = {id(parameter) for parameter in bucket.parameters}

    def finish(self, part: str) -> None:
        self._listening = None
        for bucket in self._buckets[part][self._sent :]:
            bucket.start()
        for bucket in self._buckets[part]:
            bucket.finish()
        self._sent = 0

    def clip(self, part: str, norm: float) -> Tensor:
        return torch.nn.utils.clip_grad_norm_(self.parts[part].parameters(), norm)

    def _arrival(self, part: str, bucket: Bucket) -> Callable[[Tensor], None]:
        """What happens when a parameter's gradient is there. Buckets leave in one order, the same in all processes."""

        def arrived(parameter: Tensor) -> None:
            if self._listening != part:
                return
            bucket.missing.discard(id(parameter))
            waiting = self._buckets[part]
            while self._sent < len(waiting) and not waiting[self._sent].missing:
                waiting[self._sent].start()
                self._sent += 1

        return arrived


def _buckets(module: nn.Module) -> list[Bucket]:
    """From the last parameter, whose gradient is there first, to the first."""
    found: list[list[nn.Parameter]] = []
    size = math.inf
    for parameter in reversed([one for one in module.parameters() if one.requires_grad]):
        if size >= BUCKET or found[-1][0].dtype != parameter.dtype:
            found.append([])
            size = 0
        found[-1].append(parameter)
        size += parameter.nbytes
    return [Bucket(parameters) for parameters in found]
