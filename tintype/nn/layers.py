"""A list of modules that keeps its element type."""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar, cast

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
