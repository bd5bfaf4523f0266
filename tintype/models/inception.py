"""The Inception network of 2015-12-05 that FID, KID and the Inception score are defined by (Szegedy et al. 2016).

It is the one of TensorFlow's archive, whose layers differ from torchvision's in three ways: averages leave out the
border that was added, the last block takes a maximum where an average was meant, and there are 1008 classes. Names of
parameters are those of the file `pt_inception-2015-12-05-6726825d.pth`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.nn.layers import to_channels_last

SIDE = 299  # pixels of what the network sees
FEATURES, CLASSES = 2048, 1008


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution of a block, in a branch: same size, or a half of it where `stride` is 2."""

    name: str
    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1


Step = Conv | tuple[Conv, Conv] | str  # a pair: both of the same input, side by side; a str: what is pooled


class FrozenNorm(nn.Module):
    """Batch norm with the statistics of training; it counts no batches, and not all files have such counts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=1e-3)


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int | tuple[int, int], *, stride: int = 1, same: bool = False
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if same else (0, 0)
        self.conv = nn.Conv2d(in_channels, out_channels, sides, stride=stride, padding=padding, bias=False)
        self.bn = FrozenNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """Branches that see the same input, joined: B C H W -> B C' H W, or a half of each side."""

    def __init__(self, channels: int, branches: Iterable[tuple[Step, ...]]) -> None:
        super().__init__()
        self.branches = tuple(branches)
        self.out_channels = sum(self._add(channels, branch) for branch in self.branches)

    def _add(self, channels: int, branch: tuple[Step, ...]) -> int:
        for step in branch:
            pair = step if isinstance(step, tuple) else (step,)
            convs = [one for one in pair if isinstance(one, Conv)]
            for one in convs:
                made = ConvNorm(channels, one.channels, one.kernel, stride=one.stride, same=one.stride == 1)
                self.add_module(one.name, made)
            channels = sum(one.channels for one in convs) or channels
        return channels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._run(x, branch) for branch in self.branches], dim=1)

    def _run(self, x: Tensor, branch: tuple[Step, ...]) -> Tensor:
        for step in branch:
            match step:
                case Conv():
                    x = self.get_submodule(step.name)(x)
                case (first, second):
                    x = torch.cat([self.get_submodule(one.name)(x) for one in (first, second)], dim=1)
                case "average":
                    x = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
                case "maximum":
                    x = F.max_pool2d(x, 3, stride=1, padding=1)
                case _:
                    x = F.max_pool2d(x, 3, stride=2)
        return x


def _block_35(pooled: int) -> list[tuple[Step, ...]]:
    """At 35 x 35 places."""
    return [
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5)),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, 3), Conv("branch3x3dbl_3", 96, 3)),
        ("average", Conv("branch_pool", pooled)),
    ]


def _to_17() -> list[tuple[Step, ...]]:
    return [
        (Conv("branch3x3", 384, 3, 2),),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, 3), Conv("branch3x3dbl_3", 96, 3, 2)),
        ("halved",),
    ]


def _block_17(inner: int) -> list[tuple[Step, ...]]:
    across, down = (1, 7), (7, 1)
    return [
        (Conv("branch1x1", 192),),
        (Conv("branch7x7_1", inner), Conv("branch7x7_2", inner, across), Conv("branch7x7_3", 192, down)),
        (
            Conv("branch7x7dbl_1", inner),
            Conv("branch7x7dbl_2", inner, down),
            Conv("branch7x7dbl_3", inner, across),
            Conv("branch7x7dbl_4", inner, down),
            Conv("branch7x7dbl_5", 192, across),
        ),
        ("average", Conv("branch_pool", 192)),
    ]


def _to_8() -> list[tuple[Step, ...]]:
    return [
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, 3, 2)),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, (1, 7)),
            Conv("branch7x7x3_3", 192, (7, 1)),
            Conv("branch7x7x3_4", 192, 3, 2),
        ),
        ("halved",),
    ]


def _block_8(pool: str) -> list[tuple[Step, ...]]:
    across, down = (1, 3), (3, 1)
    return [
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), (Conv("branch3x3_2a", 384, across), Conv("branch3x3_2b", 384, down))),
        (
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, 3),
            (Conv("branch3x3dbl_3a", 384, across), Conv("branch3x3dbl_3b", 384, down)),
        ),
        (pool, Conv("branch_pool", 192)),
    ]


class Inception(nn.Module):
    """image: B 3 H W, levels 0 to 255, any size -> features B 2048, and logits B 1008 without their bias, as the
    Inception score has always been computed (a slip of its first program)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, same=True)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        blocks = {
            "5b": _block_35(32),
            "5c": _block_35(64),
            "5d": _block_35(64),
            "6a": _to_17(),
            "6b": _block_17(128),
            "6c": _block_17(160),
            "6d": _block_17(160),
            "6e": _block_17(192),
            "7a": _to_8(),
            "7b": _block_8("average"),
            "7c": _block_8("maximum"),
        }
        channels = 192
        self.mixed: list[str] = []
        for name, branches in blocks.items():
            block = Mixed(channels, branches)
            self.add_module(f"Mixed_{name}", block)
            self.mixed.append(f"Mixed_{name}")
            channels = block.out_channels
        self.fc = nn.Linear(FEATURES, CLASSES)
        to_channels_last(self)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = (resized(image, SIDE) - 128) / 128
        x = x.to(self.fc.weight.dtype).contiguous(memory_format=torch.channels_last)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # B 64 147 147
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))  # B 192 71 71
        x = F.max_pool2d(x, 3, stride=2)  # B 192 35 35
        for name in self.mixed:
            x = self.get_submodule(name)(x)
        x = x.mean(dim=(2, 3))  # B 2048, of 8 x 8 places
        return x, x @ self.fc.weight.T


def resized(image: Tensor, side: int) -> Tensor:
    """B C H W -> B C side side float32, as TensorFlow 1's `resize_bilinear`: corners coincide at the top left only, and
    nothing is smoothed before a picture is made smaller."""
    x = image.float()
    for dim in (3, 2):
        size = x.shape[dim]
        place = torch.arange(side, dtype=torch.float32, device=x.device) * torch.tensor(size / side)
        low = place.long()
        high = (low + 1).clamp_max(size - 1)
        shape = (side, 1) if dim == 2 else (side,)
        before, after = x.index_select(dim, low), x.index_select(dim, high)
        x = before + (after - before) * (place - low).reshape(shape)
    return x
