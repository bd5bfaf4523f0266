"""Small things about modules: a typed list, a convolution, and their memory layout."""

import math
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


def check_groups(groups: int, widths: Iterable[int]) -> None:
    """Raise `ValueError` where a group norm of so many groups does not fit these numbers of channels."""
    for channels in widths:
        if groups < 1 or channels % groups:
            raise ValueError(
                f"norm_groups {groups}: {channels} channels do not divide into as many; expected a divisor of every "
                f"level's width, such as {math.gcd(channels, groups)}"
            )


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the size: B C H W -> B C' H W.

    oneDNN lays out the weight anew at every call. Where pixels are few that takes longer than the arithmetic, so there,
    for inference on the CPU, the convolution is one matrix product with the weight as it lies (1280 channels, one core:
    8 x 8 pixels take 46 % of oneDNN's time, 16 x 16 take 82 %, more take as long or longer).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        pixels = input.numel() // self.in_channels
        zeros = self.padding_mode == "zeros"
        if torch.is_grad_enabled() or not input.is_cpu or 4 * pixels > self.out_channels or not zeros:
            return super().forward(input)
        padded = F.pad(input.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # B H+2 W+2 C
        windows = padded.unfold(1, 3, 1).unfold(2, 3, 1)  # B H W C 3 3
        patches = windows.permute(0, 1, 2, 4, 5, 3).flatten(3)  # B H W 9C
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # C' 9C, a view of channels-last memory
        return F.linear(patches, weight, self.bias).permute(0, 3, 1, 2)


def conv_of_doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution of x: B C H W grown twice by nearest neighbour, without growing it: B C' 2H 2W.

    Each pixel of the large picture sees two rows and two columns of the small one, so four 2x2 kernels, made of sums of
    the 3x3 one, do with four ninths of the multiplications. The same up to rounding. Worth it where pixels are more
    than channels (SD 1.5's decoder: 55 % of the time; 16 x 16 pixels of 1280 channels: as long).
    """
    whole = weight.permute(0, 2, 3, 1)  # C' 3 3 C, a view of channels-last memory
    kernels = [_folded(half, 2, column) for row in range(2) for half in [_folded(whole, 1, row)] for column in range(2)]
    filters = torch.cat(kernels).permute(0, 3, 1, 2)  # 4C' C 2 2, for even and odd rows, even and odd columns
    every = F.conv2d(x, filters, padding=1).unflatten(1, (2, 2, -1))  # B 2 2 C' H+1 W+1
    height, width = x.shape[-2:]
    size = (len(x), len(weight), 2 * height, 2 * width)
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for row in range(2):
        for column in range(2):
            here = every[:, row, column, :, row : row + height, column : column + width]
            out[:, :, row::2, column::2] = here if bias is None else here + bias[:, None, None]
    return out


def _folded(kernel: Tensor, dim: int, odd: int) -> Tensor:
    """Its three rows (or columns) as they fall on two: an even row of the doubled picture sees the one above and twice
    its own, an odd row twice its own and the one below."""
    first, second, third = kernel.split(1, dim)
    return torch.cat((first + second, third) if odd else (first, second + third), dim)


def to_channels_last(module: nn.Module) -> None:
    """Lay out all convolution weights so that pictures stay B H W C in memory from end to end."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
