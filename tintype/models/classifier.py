"""A small convolutional classifier: judge of generated pictures, and features of a learned perceptual loss."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.nn.blocks import Downsample, ResBlock
from tintype.nn.layers import Layers


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig:
    """A residual block per level, each at half the resolution of the one before; the first at half the picture's."""

    num_classes: int = 256
    width: int = 32
    mult: tuple[int, ...] = (1, 2, 4, 6)
    norm_groups: int = 8


class Classifier(nn.Module):
    """image: B 3 H W in [-1, 1] -> logits: B num_classes."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * mult for mult in config.mult]
        self.stem = nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        self.blocks = Layers(
            ResBlock(a, b, norm_groups=config.norm_groups)
            for a, b in zip((widths[0], *widths), widths, strict=False)
        )
        self.halve = Layers(Downsample(width) for width in widths[:-1])
        self.norm = nn.GroupNorm(config.norm_groups, widths[-1])
        self.head = nn.Linear(widths[-1], config.num_classes)
        self.to(memory_format=torch.channels_last)

    def features(self, image: Tensor) -> list[Tensor]:
        """The output of each level, finest first: B C H/2 W/2, B C' H/4 W/4, …"""
        x = self.stem(image.contiguous(memory_format=torch.channels_last))
        found: list[Tensor] = []
        halvings = list(self.halve)
        for level, block in enumerate(self.blocks):
            x = block(x)
            found.append(x)
            if level < len(halvings):
                x = halvings[level](x)
        return found

    def forward(self, image: Tensor) -> Tensor:
        x = F.silu(self.norm(self.features(image)[-1]))
        return self.head(x.mean(dim=(2, 3)))
