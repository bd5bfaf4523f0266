"""CLIP's text transformer (Radford et al. 2021), as OpenAI and OpenCLIP built it."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.nn.attention import Attention
from tintype.nn.layers import Layers

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CLIPTextConfig:
    """Defaults are CLIP ViT-L/14's text tower, the encoder of Stable Diffusion 1.x."""

    vocabulary_size: int = 49_408
    context_length: int = 77
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    activation: Activation = "quick_gelu"
    projection_dim: int | None = None


@dataclass(frozen=True, slots=True)
class CLIPTextOutput:
    """hidden: the embeddings and each layer's output, B L D; last: the last of them after the final norm;
    pooled: B D or B projection_dim, `last` at the end-of-text token, projected where the tower has a projection."""

    hidden: tuple[Tensor, ...]
    last: Tensor
    pooled: Tensor


class CLIPLayer(nn.Module):
    """Self-attention, in text causal, and a two-layer perceptron, pre-normed: B L D -> B L D."""

    def __init__(
        self, width: int, *, num_heads: int, activation: Activation, causal: bool, mlp_width: int | None = None
    ) -> None:
        super().__init__()
        self.activation = activation
        self.causal = causal
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads=num_heads, head_dim=width // num_heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width)
        inner = mlp_width or 4 * width
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), causal=self.causal)
        h = self.fc1(self.norm2(x))
        h = F.gelu(h) if self.activation == "gelu" else h * torch.sigmoid(1.702 * h)
        return x + self.fc2(h)


class CLIPText(nn.Module):
    """ids: B L (L at most `context_length`), `end`: B, where each text ends -> CLIPTextOutput."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.position_embedding = nn.Embedding(config.context_length, config.width)
        self.layers = Layers(
            CLIPLayer(config.width, num_heads=config.num_heads, activation=config.activation, causal=True)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        out = config.projection_dim
        self.projection = nn.Linear(config.width, out, bias=False) if out else nn.Identity()
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.01)

    def forward(self, ids: Tensor, end: Tensor) -> CLIPTextOutput:
        return self.transform(self.token_embedding(ids), end)

    def transform(self, embeddings: Tensor, end: Tensor) -> CLIPTextOutput:
        """From the tokens' embeddings, B L D, without positions."""
        x = embeddings + self.position_embedding.weight[: embeddings.shape[1]]  # B L D
        hidden = [x]
        for layer in self.layers:
            hidden.append(layer(hidden[-1]))
        last = self.norm(hidden[-1])
        pooled = self.projection(last[torch.arange(len(x), device=x.device), end])  # B D
        return CLIPTextOutput(tuple(hidden), last, pooled)
