"""The patch critic of the first stage: PatchGAN (Isola et al. 2017, section 3.2.2) as VQGAN has it."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.nn.layers import Layers, to_channels_last

SLOPE = 0.2  # of the leaky rectifiers
STD = 0.02  # of initial weights
WIDEST = 8  # times the width of the first level


@dataclass(frozen=True, kw_only=True, slots=True)
class CriticConfig:
    """With 3 halvings each answer sees 70 x 70 pixels, with 2 of them 34 x 34."""

    image_channels: int = 3
    width: int = 64
    num_layers: int = 3  # halvings
    norm: Literal["batch", "act"] = "batch"

    def __post_init__(self) -> None:
        for name in ("image_channels", "width", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"critic: {name} {getattr(self, name)}: expected 1 or more")


class ActNorm(nn.Module):
    """A scale and a shift per channel, set by `fit` so that what they give has mean 0 and variance 1 (Kingma &
    Dhariwal 2018); B C H W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(channels))
        self.scale = nn.Parameter(torch.ones(channels))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        self.loc.copy_(-x.mean(dim=(0, 2, 3)))
        self.scale.copy_(1 / (x.transpose(0, 1).flatten(1).std(dim=1) + 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale[:, None, None] * (x + self.loc[:, None, None])


class Critic(nn.Module):
    """image: B 3 H W in [-1, 1] -> B 1 h w: how real each patch looks, unbounded; about one answer in 8 x 8 pixels.

    A critic only ever trains, so batch norms keep no running statistics: they are of the batch at hand.
    """

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * min(2**level, WIDEST) for level in range(config.num_layers + 1)]
        inner = list(pairwise(widths))
        bias = config.norm == "act"  # a batch norm takes the mean away
        self.conv_in = nn.Conv2d(config.image_channels, widths[0], 4, stride=2, padding=1)
        self.convs = Layers(
            nn.Conv2d(a, b, 4, stride=1 if level + 1 == len(inner) else 2, padding=1, bias=bias)
            for level, (a, b) in enumerate(inner)
        )
        self.norms = Layers(
            ActNorm(b) if config.norm == "act" else nn.BatchNorm2d(b, track_running_stats=False) for _, b in inner
        )
        self.conv_out = nn.Conv2d(widths[-1], 1, 4, padding=1)
        self._initialise()
        to_channels_last(self)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=STD)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, mean=1.0, std=STD)

    def fit(self, image: Tensor) -> None:
        """Set the scales and shifts of ActNorm layers from these pictures; other layers know no such thing."""
        with torch.no_grad():
            self._run(image, fit=True)

    def forward(self, image: Tensor) -> Tensor:
        return self._run(image)

    def _run(self, image: Tensor, *, fit: bool = False) -> Tensor:
        least = 3 * 2**self.config.num_layers
        if min(image.shape[-2:]) < least:
            height, width = image.shape[-2:]
            raise ValueError(
                f"a picture of {width} x {height}: a critic of {self.config.num_layers} layers expects sides of "
                f"{least} or more; give it fewer layers"
            )
        x = F.leaky_relu(self.conv_in(image.contiguous(memory_format=torch.channels_last)), SLOPE)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            if fit and isinstance(norm, ActNorm):
                norm.fit(x)
            x = F.leaky_relu(norm(x), SLOPE)
        return self.conv_out(x)
