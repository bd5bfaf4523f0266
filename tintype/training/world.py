"""Processes that train one network together. `torchrun --nproc-per-node 2 -m tintype train …` starts them.

They share out the micro-batches of a step (`train.accumulate` of them) and add up their gradients, so that samples,
noise and result are those of one process with the same settings: the number of processes is no part of a recipe.
"""

import math
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

PATIENCE = timedelta(hours=2)  # the others wait for the first process while it encodes all latents


@dataclass(frozen=True, slots=True)
class World:
    """This process is number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    def share(self, count: int) -> range:
        """Which of `count` micro-batches this process does. Raises `ValueError` when they cannot be shared evenly."""
        if count % self.size:
            common = math.lcm(count, self.size)
            raise ValueError(
                f"train.accumulate {count} cannot be shared by {self.size} processes; expected a multiple of "
                f"{self.size}: --set train.accumulate={common}, with train.batch_size divided by {common // count} so "
                "that a step has as many samples as before"
            )
        return range(self.rank, count, self.size)

    def total(self, tensor: Tensor) -> Tensor:
        """Its sum over all processes."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """Those of all processes, of one shape: size *shape, by rank."""
        if self.size == 1:
            return tensor[None]
        every = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(every, tensor.contiguous())
        return torch.stack(every)

    def agreed(self, text: str) -> str:
        """What the first process says."""
        said: list[str] = [text]
        if self.size > 1:
            dist.broadcast_object_list(said)
        return said[0]

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


def announced() -> World:
    """What this process will be once it has joined the others that torchrun started."""
    return World(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


@contextmanager
def joined(device: str) -> Generator[World]:
    """The processes that torchrun started; without it, this one alone.

    Raises `ValueError` when "cuda" is to give each its own GPU and there are not so many.
    """
    if announced().size == 1:
        yield World()
        return
    if device == "cuda":  # each process its own GPU
        number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= count:
            raise ValueError(
                f"process {number + 1} of this machine finds no GPU of its own among {count}; expected as many GPUs as "
                f"processes: torchrun --nproc-per-node {count}"
            )
        torch.cuda.set_device(number)
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    # torchrun's agent keeps one store for all lives of its processes, and addresses of the dead would be found there:
    # https://github.com/pytorch/pytorch/issues/135712
    life = PrefixStore(f"life {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=life, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
