"""Small things about modules: a typed list, a convolution, and their memory layout."""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class SameConv2d(nn.Conv2d):
    """A convolution of odd `kernel_size` whose output is as large as its input: B C H W -> B C' H W.

    For inference on the CPU it is one matrix product where oneDNN is slower: at 1x1, and where pixels are so few that
    laying out the weight anew, which oneDNN does at every call, takes longer than the arithmetic.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, input: Tensor) -> Tensor:
        side, margin = self.kernel_size[0], self.kernel_size[0] // 2
        pixels = input.numel() // self.in_channels
        if torch.is_grad_enabled() or not input.is_cpu or (side > 1 and 4 * pixels > self.out_channels):
            return super().forward(input)
        patches = input.permute(0, 2, 3, 1)  # B H W C
        if side > 1:
            padded = F.pad(patches, (0, 0, margin, margin, margin, margin))
            patches = padded.unfold(1, side, 1).unfold(2, side, 1).permute(0, 1, 2, 4, 5, 3).flatten(3)  # B H W 9C
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # C' 9C; a view of channels-last memory
        return F.linear(patches, weight, self.bias).permute(0, 3, 1, 2)


def to_channels_last(module: nn.Module) -> None:
    """Lay out all convolution weights so that pictures stay B H W C in memory from end to end."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
