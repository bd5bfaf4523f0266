"""CLIP whole: an image tower and a text tower whose outputs share one space, and the temperature between them."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.models.clip import CLIPText, CLIPTextConfig
from tintype.models.clip_image import CLIPImage, CLIPImageConfig

LARGEST_SCALE = math.log(100)  # Radford et al. 2021, section 2.5: logits are never scaled by more


@dataclass(frozen=True, kw_only=True, slots=True)
class CLIPConfig:
    """logit_bias: there is one, as the sigmoid loss wants (SigLIP)."""

    text: CLIPTextConfig
    image: CLIPImageConfig
    logit_bias: bool = False

    def __post_init__(self) -> None:
        dims = (self.text.projection_dim, self.image.projection_dim)
        if dims[0] is None or dims[0] != dims[1]:
            raise ValueError(f"projection_dim of text and image are {dims[0]}, {dims[1]}; expected one number for both")


class CLIP(nn.Module):
    """(image: B 3 S S in [-1, 1], ids: B L, end: B) -> features of pictures and of texts, B D each, of length 1.

    `logit_scale` is the logarithm of what cosines are multiplied by: 1 / 0.07 at first, or 10 with a `logit_bias`,
    which begins at -10 (Zhai et al. 2023, section 3.2). Both are vectors of one number, since sharded training
    (FSDP2) takes no scalars.
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.image = CLIPImage(config.image)
        self.text = CLIPText(config.text)
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(10 if config.logit_bias else 1 / 0.07)))
        self.logit_bias = nn.Parameter(torch.full((1,), -10.0)) if config.logit_bias else None
        for tower in (self.image, self.text):
            _begin(tower)

    def forward(self, image: Tensor, ids: Tensor, end: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """kept: see `CLIPImage`."""
        return self.encode_image(image, kept), self.encode_text(ids, end)

    def encode_image(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        return F.normalize(self.image(image, kept).pooled.float(), dim=1)

    def encode_text(self, ids: Tensor, end: Tensor) -> Tensor:
        return F.normalize(self.text(ids, end).pooled.float(), dim=1)

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the temperature within bounds: to be called after each update."""
        self.logit_scale.clamp_(0, LARGEST_SCALE)


def _begin(tower: CLIPImage | CLIPText) -> None:
    """Initial weights as in OpenAI's CLIP: branches add less the deeper the tower."""
    width, layers = tower.config.width, tower.layers
    for layer in layers:
        attention = layer.attention
        for inner in (attention.to_q, attention.to_k, attention.to_v):
            nn.init.normal_(inner.weight, std=width**-0.5)
        nn.init.normal_(attention.to_out.weight, std=width**-0.5 * (2 * len(layers)) ** -0.5)
        nn.init.normal_(layer.fc1.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(layer.fc2.weight, std=width**-0.5 * (2 * len(layers)) ** -0.5)
        for linear in (attention.to_q, attention.to_k, attention.to_v, attention.to_out):
            nn.init.zeros_(linear.bias)
    if isinstance(tower.projection, nn.Linear):
        nn.init.normal_(tower.projection.weight, std=width**-0.5)
