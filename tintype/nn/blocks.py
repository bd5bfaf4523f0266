"""Convolutional blocks of the U-Net and the autoencoder. Images are B C H W in channels-last memory."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.nn.layers import Conv3x3, conv_of_doubled


class ResBlock(nn.Module):
    """Two normed 3x3 convolutions and a shortcut.

    `shift_dim`: width of the embedding that `shift_proj` turns into a per-channel shift between the two
    convolutions, or (with `scale_shift`) a scale and a shift of the second norm. The caller projects, so that it may
    do so once for all blocks. `resample` halves or doubles the picture inside the block (LDM: resblock_updown).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        shift_dim: int | None = None,
        scale_shift: bool = False,
        resample: Literal["up", "down"] | None = None,
        eps: float = 1e-5,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        self.resample: Literal["up", "down"] | None = resample
        self.scale_shift = scale_shift
        self.norm1 = nn.GroupNorm(norm_groups, in_channels, eps=eps)
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.shift_proj = nn.Linear(shift_dim, out_channels * (1 + scale_shift)) if shift_dim else None
        self.norm2 = nn.GroupNorm(norm_groups, out_channels, eps=eps)
        self.conv2 = Conv3x3(out_channels, out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def _resampled(self, x: Tensor) -> Tensor:
        match self.resample:
            case "up":
                return F.interpolate(x, scale_factor=2, mode="nearest")
            case "down":
                return F.avg_pool2d(x, 2)
            case None:
                return x

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        h = F.silu(self.norm1(x), inplace=not self.training)
        h = self.conv1(self._resampled(h))
        if shift is not None and self.scale_shift:
            scale, shift = shift[:, :, None, None].chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h if shift is None else h + shift[:, :, None, None])
        h = self.conv2(F.silu(h, inplace=not self.training))
        return self.shortcut(self._resampled(x)) + h


class Downsample(nn.Module):
    """Half the size by a strided convolution; `asymmetric` pads right and bottom only, as SD's autoencoder does."""

    def __init__(self, channels: int, *, asymmetric: bool = False) -> None:
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.asymmetric:
            return self.conv(x)
        return self.conv(F.pad(x, (0, 1, 0, 1), "circular" if self.conv.padding_mode == "circular" else "constant"))


class Upsample(nn.Module):
    """Twice the size by nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv3x3(channels, channels)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """`size`: (height, width) to reach when it is not just twice, as after halving an odd side."""
        pixels = x[:, 0].numel()
        twice = size is None or size == (2 * x.shape[-2], 2 * x.shape[-1])
        zeros = self.conv.padding_mode == "zeros"
        if twice and zeros and x.is_cpu and not torch.is_grad_enabled() and pixels > self.conv.out_channels:
            return conv_of_doubled(x, self.conv.weight, self.conv.bias)
        grown = F.interpolate(x, size=size, scale_factor=None if size else 2, mode="nearest")
        return self.conv(grown)
