"""Multi-head attention and the transformer blocks of the U-Net, the autoencoder and CLIP."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.nn.layers import Layers


class KeysValues(NamedTuple):
    """Keys and values of one attention layer, each B heads L head_dim."""

    k: Tensor
    v: Tensor


class Attention(nn.Module):
    """Multi-head attention of x: B L D over itself or over context: B M C.

    Names and shapes are those of Stable Diffusion checkpoints: to_q, to_k, to_v (bias only with `qkv_bias`), to_out.
    """

    def __init__(
        self, dim: int, *, num_heads: int, head_dim: int, context_dim: int | None = None, qkv_bias: bool = False
    ) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, inner, bias=qkv_bias)
        self.to_k = nn.Linear(context_dim or dim, inner, bias=qkv_bias)
        self.to_v = nn.Linear(context_dim or dim, inner, bias=qkv_bias)
        self.to_out = nn.Linear(inner, dim)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # B L D -> B heads L head_dim

    def keys_values(self, context: Tensor) -> KeysValues:
        """What a context contributes, once for all steps that share it."""
        return KeysValues(self._heads(self.to_k(context)), self._heads(self.to_v(context)))

    def forward(self, x: Tensor, context: Tensor | KeysValues | None = None, *, causal: bool = False) -> Tensor:
        kv = context if isinstance(context, KeysValues) else self.keys_values(x if context is None else context)
        out = _attend(self._heads(self.to_q(x)), kv, causal=causal)
        return self.to_out(out.transpose(1, 2).flatten(2))  # B heads L head_dim -> B L D

    def own_values(self, x: Tensor, context: None = None) -> Tensor:
        """Self-attention whose map is the identity: each place reads itself alone (Ahn et al. 2024, eq. 11)."""
        return self.to_out(self.to_v(x))


def _attend(q: Tensor, kv: KeysValues, *, causal: bool) -> Tensor:
    """Fused attention. Training in bfloat16 on a CPU attends in float32: PyTorch's bfloat16 kernel is six times slower
    backwards (7.4 against 1.2 ms at 64 tokens, 32 x 4 heads of 44)."""
    k, v = kv
    if q.dtype != torch.bfloat16 or not q.is_cpu or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=causal).to(q.dtype)


class FeedForward(nn.Module):
    """GEGLU, then a projection back (Shazeer 2020, GLU Variants Improve Transformer)."""

    def __init__(self, dim: int, *, mult: int = 4) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * mult * dim)
        self.out = nn.Linear(mult * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return self.out(value * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward; each on a normed copy, added back."""

    def __init__(
        self, dim: int, *, num_heads: int, head_dim: int, context_dim: int, self_attention: bool = True
    ) -> None:
        super().__init__()
        self.self_attention = self_attention
        self.norm1 = nn.LayerNorm(dim)
        first_context = None if self_attention else context_dim
        self.attn1 = Attention(dim, num_heads=num_heads, head_dim=head_dim, context_dim=first_context)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, num_heads=num_heads, head_dim=head_dim, context_dim=context_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def keys_values(self, context: Tensor) -> tuple[KeysValues, ...]:
        """One per attention layer that reads the context, in order."""
        readers = (self.attn2,) if self.self_attention else (self.attn1, self.attn2)
        return tuple(reader.keys_values(context) for reader in readers)

    def forward(self, x: Tensor, context: tuple[KeysValues, ...]) -> Tensor:
        x = x + self.attn1(self.norm1(x), None if self.self_attention else context[0])
        x = x + self.attn2(self.norm2(x), context[-1])
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of x: B C H W, reading a context. In channels-last memory no pixel moves."""

    def __init__(
        self,
        channels: int,
        *,
        depth: int,
        num_heads: int,
        head_dim: int,
        context_dim: int,
        self_attention: bool = True,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.norm = nn.GroupNorm(norm_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.blocks = Layers(
            TransformerBlock(
                inner, num_heads=num_heads, head_dim=head_dim, context_dim=context_dim, self_attention=self_attention
            )
            for _ in range(depth)
        )
        self.proj_out = nn.Linear(inner, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def keys_values(self, context: Tensor) -> tuple[tuple[KeysValues, ...], ...]:
        return tuple(block.keys_values(context) for block in self.blocks)

    def forward(self, x: Tensor, context: tuple[tuple[KeysValues, ...], ...]) -> Tensor:
        height = x.shape[-2]
        tokens = self.proj_in(to_tokens(self.norm(x)))  # B HW D
        for block, kv in zip(self.blocks, context, strict=True):
            tokens = block(tokens, kv)
        return x + to_image(self.proj_out(tokens), height)


class AttentionBlock(nn.Module):
    """Self-attention over the pixels of x: B C H W, added back; no context, no feed-forward."""

    def __init__(self, channels: int, *, num_heads: int = 1, eps: float = 1e-6, norm_groups: int = 32) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels, eps=eps)
        self.attention = Attention(channels, num_heads=num_heads, head_dim=channels // num_heads, qkv_bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + to_image(self.attention(to_tokens(self.norm(x))), x.shape[-2])


def to_tokens(x: Tensor) -> Tensor:
    """B C H W -> B HW C; a view when x is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def to_image(tokens: Tensor, height: int) -> Tensor:
    """B HW C -> B C H W in channels-last memory; a view."""
    return tokens.unflatten(1, (height, -1)).permute(0, 3, 1, 2)
