"""A map of classes as conditioning: what is where, brought to the latent's size and put beside it (LDM's
SpatialRescaler, semantic synthesis)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tintype.diffusion.denoiser import Conditioning
from tintype.nn.layers import to_channels_last


@dataclass(frozen=True, kw_only=True, slots=True)
class SpatialConfig:
    """`halvings`: how often the map is halved to be of the latent's size. Defaults are semantic_synthesis256 and 512:
    the classes of COCO-Stuff, an autoencoder of factor 4."""

    num_classes: int = 182
    out_channels: int = 3
    halvings: int = 2


class SpatialConditioner(nn.Module):
    """class maps: B H W int64 -> Conditioning(concat: B C h w)."""

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        self.config = config
        self.channel_mapper = nn.Conv2d(config.num_classes, config.out_channels, 1, bias=False)
        to_channels_last(self)

    def encode(self, shares: Tensor) -> Conditioning:
        """shares: B `num_classes` H W, how much of each class is at a place (one of them, usually all)."""
        for _ in range(self.config.halvings):
            shares = F.interpolate(shares, scale_factor=0.5, mode="bilinear")
        return Conditioning(concat=self.channel_mapper(shares))

    def forward(self, labels: Tensor) -> Conditioning:
        """Raises `ValueError` for a class that there is not and for sides that cannot be halved."""
        height, width = labels.shape[-2:]
        classes, multiple = self.config.num_classes, 2**self.config.halvings
        if height % multiple or width % multiple:
            raise ValueError(f"class map of {width} x {height}: both sides must be multiples of {multiple}")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ValueError(f"class map with classes {low} to {high}: expected 0 to {classes - 1}")
        weight = self.channel_mapper.weight
        one_hot = F.one_hot(labels.to(weight.device), classes).permute(0, 3, 1, 2)
        return self.encode(one_hot.to(weight.dtype))

    def empty(self, count: int) -> Conditioning:
        """There is no map of nothing: always `ValueError`."""
        raise ValueError(f"{count} empty class maps: this model was never trained without a map; expected cfg_scale 1")
