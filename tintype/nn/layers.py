"""Small things about modules: a typed list, and their memory layout."""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar, cast

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Layers(nn.Module, Generic[M]):
    """Like `nn.ModuleList`, but iterating gives the elements' own type. Parameters are named by position."""

    def __init__(self, modules: Iterable[M]) -> None:
        super().__init__()
        for position, module in enumerate(modules):
            self.add_module(str(position), module)

    def __iter__(self) -> Iterator[M]:
        return iter(cast("Iterable[M]", self._modules.values()))

    def __len__(self) -> int:
        return len(self._modules)


def to_channels_last(module: nn.Module) -> None:
    """Lay out all convolution weights so that pictures stay B H W C in memory from end to end."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
