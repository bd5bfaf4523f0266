"""What the parity tests of the networks leave open about attention."""

import math

import pytest
import torch
import torch.nn.functional as F

from tintype.nn.attention import Attention, AttentionBlock, SpatialTransformer, TransformerBlock, to_image, to_tokens


def test_attention_is_a_softmax_of_scaled_products() -> None:
    attention = Attention(12, num_heads=3, head_dim=5, context_dim=7, qkv_bias=True)
    x, context = torch.randn(2, 6, 12), torch.randn(2, 4, 7)
    heads = []
    for q, k, v in zip(
        attention.to_q(x).split(5, -1),
        attention.to_k(context).split(5, -1),
        attention.to_v(context).split(5, -1),
        strict=True,
    ):
        heads.append((q @ k.mT / math.sqrt(5)).softmax(-1) @ v)
    torch.testing.assert_close(attention(x, context), attention.to_out(torch.cat(heads, -1)))


def test_keys_and_values_may_be_computed_before() -> None:
    attention = Attention(12, num_heads=3, head_dim=4, context_dim=7)
    x, context = torch.randn(2, 6, 12), torch.randn(2, 4, 7)
    assert torch.equal(attention(x, attention.keys_values(context)), attention(x, context))


def test_causal_attention_does_not_see_what_follows() -> None:
    attention = Attention(8, num_heads=2, head_dim=4)
    x = torch.randn(1, 6, 8)
    changed = x.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(attention(x, causal=True)[:, :4], attention(changed, causal=True)[:, :4])
    assert not torch.allclose(attention(x)[:, :4], attention(changed)[:, :4])


def test_without_self_attention_both_layers_read_the_context() -> None:
    block = TransformerBlock(8, num_heads=2, head_dim=4, context_dim=6, self_attention=False)
    context = torch.randn(2, 5, 6)
    first, second = block.keys_values(context)
    assert torch.equal(first.k, block.attn1.keys_values(context).k)
    assert torch.equal(second.v, block.attn2.keys_values(context).v)
    x = torch.randn(2, 3, 8)
    alone = block(x[:, :1], (first, second))  # a token that reads the context only knows nothing of its neighbours
    torch.testing.assert_close(block(x, (first, second))[:, :1], alone)


def test_attention_of_pictures_starts_as_the_identity() -> None:
    x = torch.randn(2, 8, 4, 4)
    transformer = SpatialTransformer(8, depth=2, num_heads=2, head_dim=4, context_dim=6, norm_groups=4)
    assert torch.equal(transformer(x, transformer.keys_values(torch.randn(2, 5, 6))), x)
    assert AttentionBlock(8, num_heads=2, norm_groups=4)(x).shape == x.shape


def test_tokens_and_pictures_are_views_of_each_other() -> None:
    x = torch.arange(48.0).view(1, 2, 4, 6).contiguous(memory_format=torch.channels_last)
    tokens = to_tokens(x)
    assert tokens.shape == (1, 24, 2)
    assert tokens[0, 7].tolist() == x[0, :, 1, 1].tolist()
    image = to_image(tokens, 4)
    assert torch.equal(image, x)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert image.data_ptr() == tokens.data_ptr() == x.data_ptr()


def test_bfloat16_training_on_a_cpu_attends_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """And under autocast, where the fused kernel would otherwise turn its inputs back into bfloat16."""
    seen: list[torch.dtype] = []
    fused = F.scaled_dot_product_attention

    def watched(q: torch.Tensor, *rest: torch.Tensor, **options: bool) -> torch.Tensor:
        out = fused(q, *rest, **options)
        seen.append(out.dtype)
        return out

    monkeypatch.setattr("tintype.nn.attention.F.scaled_dot_product_attention", watched)
    attention = Attention(16, num_heads=2, head_dim=8)
    x = torch.randn(2, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        low = attention(x)
        with torch.no_grad():
            attention(x)
    assert seen == [torch.float32, torch.bfloat16]
    assert low.dtype == torch.bfloat16
    assert torch.allclose(low.float(), attention(x), atol=0.02)


def test_an_attention_in_bfloat16_trains_without_autocast() -> None:
    attention = Attention(16, num_heads=2, head_dim=8).bfloat16()
    out = attention(torch.randn(2, 5, 16).bfloat16())
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert attention.to_q.weight.grad is not None
