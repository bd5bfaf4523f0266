"""A small convolutional classifier: judge of generated pictures, and features of a learned perceptual loss."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.nn.blocks import ResBlock
from tintype.nn.layers import Layers, to_channels_last


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig:
    """One residual block per level; a patch of 4 x 4 pixels enters as one place, each further level halves the size.
    The head sees where things are: with 256 drawings it learns several times faster than from a spatial mean."""

    num_classes: int = 256
    image_size: int = 64
    widths: tuple[int, ...] = (64, 128, 256)
    norm_groups: int = 8


class Classifier(nn.Module):
    """image: B 3 S S in [-1, 1], S the configured size -> logits: B num_classes."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (3, *config.widths)
        self.halve = Layers(
            nn.Conv2d(a, b, 2 if level else 4, stride=2 if level else 4)
            for level, (a, b) in enumerate(zip(inputs, config.widths, strict=False))
        )
        self.blocks = Layers(ResBlock(width, width, norm_groups=config.norm_groups) for width in config.widths)
        self.norm = nn.GroupNorm(config.norm_groups, config.widths[-1])
        places = (config.image_size // 2 ** (len(config.widths) + 1)) ** 2
        self.head = nn.Linear(places * config.widths[-1], config.num_classes)
        nn.init.zeros_(self.head.weight)
        to_channels_last(self)

    def features(self, image: Tensor) -> list[Tensor]:
        """The output of each level, finest first: B C S/4 S/4, B C' S/8 S/8, …"""
        x = image.contiguous(memory_format=torch.channels_last)
        found: list[Tensor] = []
        for halve, block in zip(self.halve, self.blocks, strict=True):
            x = block(halve(x))
            found.append(x)
        return found

    def forward(self, image: Tensor) -> Tensor:
        return self.head(F.silu(self.norm(self.features(image)[-1])).flatten(1))
