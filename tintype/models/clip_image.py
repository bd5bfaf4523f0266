"""CLIP's image transformer (Radford et al. 2021; Dosovitskiy et al. 2021), as OpenAI and OpenCLIP built it."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tintype.models.clip import Activation, CLIPLayer
from tintype.nn.attention import to_image, to_tokens
from tintype.nn.layers import Layers, to_channels_last

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class CLIPImageConfig:
    """Defaults are CLIP ViT-B/32's image tower. pooling: what stands for the picture, the class token or the mean of
    the patches (open_clip: pool_type tok, avg). mlp_width: inside the perceptrons, 4 * width where it is not said.
    mean, std: of the pictures it learned from, in [0, 1], by colour."""

    image_size: int = 224
    patch_size: int = 32
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    activation: Activation = "quick_gelu"
    projection_dim: int | None = 512
    mlp_width: int | None = None
    pooling: Literal["class", "mean"] = "class"
    mean: Colour = (0.48145466, 0.4578275, 0.40821073)
    std: Colour = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size}: expected a multiple of patch_size {self.patch_size}")
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width}: expected a multiple of num_heads {self.num_heads}")

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, slots=True)
class CLIPImageOutput:
    """hidden: the normed embeddings and each layer's output, B 1+N D, the class token first; pooled: B D or
    B projection_dim, from the last of them after the final norm."""

    hidden: tuple[Tensor, ...]
    pooled: Tensor


class CLIPImage(nn.Module):
    """image: B 3 S S in [-1, 1], S the configured size -> CLIPImageOutput. Raises `ValueError` for another size."""

    def __init__(self, config: CLIPImageConfig) -> None:
        super().__init__()
        self.config = config
        width, size, out = config.width, config.patch_size, config.projection_dim
        self.patch_embedding = nn.Conv2d(3, width, size, stride=size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.position_embedding = nn.Embedding(1 + config.num_patches, width)
        self.norm_in = nn.LayerNorm(width)
        self.layers = Layers(
            CLIPLayer(
                width,
                num_heads=config.num_heads,
                activation=config.activation,
                causal=False,
                mlp_width=config.mlp_width,
            )
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, out, bias=False) if out else nn.Identity()
        for parameter in (self.class_embedding, self.position_embedding.weight):
            nn.init.normal_(parameter, std=width**-0.5)
        to_channels_last(self)

    def forward(self, image: Tensor, kept: Tensor | None = None) -> CLIPImageOutput:
        """kept: B K, the numbers of the patches to look at, row by row from the top left; the others are left out
        (patch dropout, Li et al. 2023, FLIP). None: all."""
        hidden = self._hidden(image, kept)
        last = self.norm(hidden[-1])
        pooled = last[:, 0] if self.config.pooling == "class" else last[:, 1:].mean(dim=1)
        return CLIPImageOutput(hidden, self.projection(pooled))

    def features(self, image: Tensor) -> list[Tensor]:
        """The patches after each layer, first to last, as maps: B D S/patch_size S/patch_size."""
        side = self.config.image_size // self.config.patch_size
        return [to_image(tokens[:, 1:], side) for tokens in self._hidden(image, None)[1:]]

    def _hidden(self, image: Tensor, kept: Tensor | None) -> tuple[Tensor, ...]:
        expected = (3, self.config.image_size, self.config.image_size)
        if image.shape[1:] != expected:
            raise ValueError(f"pictures of shape {tuple(image.shape[1:])}; expected {expected}: resize and crop them")
        mean, std = (image.new_tensor(colour)[:, None, None] for colour in (self.config.mean, self.config.std))
        patches = to_tokens(self.patch_embedding((image / 2 + 0.5 - mean) / std))  # B N D
        places = self.position_embedding.weight
        patches = patches + places[1:]
        if kept is not None:
            patches = patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[2]))  # B K D
        first = (self.class_embedding + places[0]).to(patches.dtype).expand(len(image), 1, -1)
        hidden = [self.norm_in(torch.cat((first, patches), dim=1))]  # B 1+N D
        for layer in self.layers:
            hidden.append(layer(hidden[-1]))
        return tuple(hidden)
