"""The transformer over token ids that latent-diffusion trains together with its U-Net: x-transformers' `Encoder`.

It reads captions in BERT's vocabulary (text to image) and boxes written as tokens (layout to image).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tintype.nn.attention import Attention
from tintype.nn.layers import Layers


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenTransformerConfig:
    """Defaults are the text encoder of latent-diffusion's text-to-image model of 1.45 billion parameters."""

    vocabulary_size: int = 30_522
    context_length: int = 77
    width: int = 1280
    num_layers: int = 32
    num_heads: int = 8
    head_dim: int = 64


class TokenTransformerLayer(nn.Module):
    """Self-attention and a two-layer perceptron, pre-normed; no mask, so that padding is read as well."""

    def __init__(self, config: TokenTransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads=config.num_heads, head_dim=config.head_dim)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class TokenTransformer(nn.Module):
    """ids: B L -> B L D, normed. Raises `ValueError` for more than `context_length` tokens."""

    def __init__(self, config: TokenTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.position_embedding = nn.Embedding(config.context_length, config.width)
        self.layers = Layers(TokenTransformerLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        length, most = ids.shape[1], self.config.context_length
        if length > most:
            raise ValueError(f"{length} tokens: this encoder reads {most} at most; cut them first")
        x = self.token_embedding(ids) + self.position_embedding.weight[:length]  # B L D
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)
