"""What CompVis's and Stability's checkpoints call the parameters of our networks, and OpenCLIP those of its text tower.

In their U-Net every residual block, halving and doubling is one entry of a long list; the loops here count along.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tintype.common.keymap import CONV_1X1, Fused, KeyMap, Layout, Rule, inside, module, thirds
from tintype.families.diffusers_names import TRANSFORMER_BLOCK, Projection
from tintype.models.autoencoder import AutoencoderConfig
from tintype.models.clip import CLIPTextConfig
from tintype.models.token_transformer import TokenTransformerConfig
from tintype.models.unet import UNetConfig

RES_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "shift_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "shortcut": "skip_connection",
}
AUTOENCODER_BLOCK = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"shortcut": "nin_shortcut"}
OPEN_CLIP_LAYER = {
    "norm1": "ln_1",
    "attention.to_out": "attn.out_proj",
    "norm2": "ln_2",
    "fc1": "mlp.c_fc",
    "fc2": "mlp.c_proj",
}
TOKEN_ATTENTION = {"norm1": "0"} | {f"attention.{name}": f"1.{name}" for name in ("to_q", "to_k", "to_v", "to_out")}
TOKEN_PERCEPTRON = {"norm2": "0", "fc1": "1.net.0.0", "fc2": "1.net.2"}
CONV_1D = Layout(to_ours=lambda weight: weight.flatten(1), to_theirs=lambda weight: weight[:, :, None])
TURNED = Layout(to_ours=lambda weight: weight.t(), to_theirs=lambda weight: weight.t())
PARTS = ("to_q", "to_k", "to_v")


def unet_names(config: UNetConfig, *, projection: Projection) -> KeyMap:
    """LDM's UNetModel below `model.diffusion_model.`; `projection` "conv" up to SD 1.x, "linear" since SD 2."""
    return KeyMap(_unet(config, projection))


def autoencoder_names(config: AutoencoderConfig) -> KeyMap:
    """LDM's AutoencoderKL, or VQModelInterface with a codebook, below `first_stage_model.`."""
    return KeyMap(_autoencoder(config))


def open_clip_names(config: CLIPTextConfig) -> KeyMap:
    """OpenCLIP's text tower (SD 2.x: `cond_stage_model.model.`, SDXL: `conditioner.embedders.1.model.`)."""
    return KeyMap(_open_clip(config))


def token_transformer_names(config: TokenTransformerConfig) -> KeyMap:
    """x-transformers' TransformerWrapper (`cond_stage_model.transformer.`), without the `to_logits` head that it has
    and never uses."""
    return KeyMap(_token_transformer(config))


def class_names() -> KeyMap:
    """LDM's ClassEmbedder (`cond_stage_model.`)."""
    return KeyMap([Rule("embedding.weight", "embedding.weight")])


def spatial_names() -> KeyMap:
    """LDM's SpatialRescaler (`cond_stage_model.`)."""
    return KeyMap([Rule("channel_mapper.weight", "channel_mapper.weight")])


def _unet(config: UNetConfig, projection: Projection) -> Iterator[Rule | Fused]:
    yield from module("time_embed.0", "time_embed.0")
    yield from module("time_embed.2", "time_embed.2")
    if config.guidance_dim is not None:
        yield Rule("guidance_embed.weight", "time_embed.cond_proj.weight")
    if config.num_classes is not None:
        yield Rule("vector_embed.weight", "label_emb.weight")
    if config.vector_dim is not None:
        yield from module("vector_embed.0", "label_emb.0.0")
        yield from module("vector_embed.2", "label_emb.0.2")
    yield from module("conv_in", "input_blocks.0.0")

    last = len(config.mult) - 1
    entry = 1
    for level, depth in enumerate(config.depth):
        for stage in range(config.num_blocks):
            yield from _stage(config, f"down.{level}.stages.{stage}", f"input_blocks.{entry}", level, depth, projection)
            entry += 1
        if level < last:
            yield from _resample(config, f"down.{level}.resample", f"input_blocks.{entry}.0", "op")
            entry += 1

    yield from _stage(config, "middle.0", "middle_block", last, config.middle_depth, projection)
    yield from inside("middle.1.block", f"middle_block.{2 if config.middle_depth else 1}", RES_BLOCK)

    for number, level in enumerate(range(last, -1, -1)):
        depth = config.depth[level]
        first = number * (config.num_blocks + 1)
        for stage in range(config.num_blocks + 1):
            theirs = f"output_blocks.{first + stage}"
            yield from _stage(config, f"up.{number}.stages.{stage}", theirs, level, depth, projection)
        if level > 0:
            theirs = f"output_blocks.{first + config.num_blocks}.{2 if depth else 1}"
            yield from _resample(config, f"up.{number}.resample", theirs, "conv")
    yield from module("norm_out", "out.0")
    yield from module("conv_out", "out.2")


def _stage(
    config: UNetConfig, ours: str, theirs: str, level: int, depth: int, projection: Projection
) -> Iterator[Rule | Fused]:
    """A residual block and, with `depth`, the attention after it."""
    yield from inside(f"{ours}.block", f"{theirs}.0", RES_BLOCK)
    here, there = f"{ours}.attention", f"{theirs}.1"
    if depth and config.context_dim is None:
        heads, _ = config.heads(config.width * config.mult[level])
        yield from module(f"{here}.norm", f"{there}.norm")
        for kind in ("weight", "bias"):
            parts = tuple(f"{here}.attention.{part}.{kind}" for part in PARTS)
            yield _by_heads(parts, f"{there}.qkv.{kind}", heads)
        yield from module(f"{here}.attention.to_out", f"{there}.proj_out", CONV_1D)
    elif depth:
        layout = CONV_1X1 if projection == "conv" else None
        yield from module(f"{here}.norm", f"{there}.norm")
        yield from module(f"{here}.proj_in", f"{there}.proj_in", layout)
        for block in range(depth):
            yield from inside(f"{here}.blocks.{block}", f"{there}.transformer_blocks.{block}", TRANSFORMER_BLOCK)
        yield from module(f"{here}.proj_out", f"{there}.proj_out", layout)


def _by_heads(ours: tuple[str, ...], theirs: str, heads: int) -> Fused:
    """Queries, keys and values of one head after the other (QKVAttentionLegacy), as a 1D convolution."""

    def split(whole: Tensor) -> list[Tensor]:
        apart = whole.unflatten(0, (heads, 3, -1))
        return [apart[:, part].reshape(len(whole) // 3, *whole.shape[1:2]) for part in range(3)]

    def join(parts: Sequence[Tensor]) -> Tensor:
        whole = torch.stack([part.unflatten(0, (heads, -1)) for part in parts], dim=1).flatten(0, 2)
        return whole[..., None] if whole.ndim > 1 else whole

    return Fused(ours, theirs, split, join)


def _resample(config: UNetConfig, ours: str, theirs: str, conv: str) -> Iterator[Rule]:
    if config.resample_in_blocks:
        yield from inside(ours, theirs, RES_BLOCK)
    else:
        yield from module(f"{ours}.conv", f"{theirs}.{conv}")


def _autoencoder(config: AutoencoderConfig) -> Iterator[Rule]:
    levels = list(range(len(config.mult)))
    for half, way, order, blocks in (
        ("encoder", "down", levels, config.num_blocks),
        ("decoder", "up", levels[::-1], config.num_blocks + 1),
    ):
        yield from module(f"{half}.conv_in", f"{half}.conv_in")
        position = 0  # in our one sequence of blocks, attention and resampling
        for level in order:
            theirs = f"{half}.{way}.{level}"
            for block in range(blocks):
                yield from inside(f"{half}.{way}.{position}", f"{theirs}.block.{block}", AUTOENCODER_BLOCK)
                position += 1
                if level in config.attention_levels:
                    yield from _attention(f"{half}.{way}.{position}", f"{theirs}.attn.{block}")
                    position += 1
            if level != order[-1]:
                yield from module(f"{half}.{way}.{position}.conv", f"{theirs}.{way}sample.conv")
                position += 1
        yield from inside(f"{half}.middle.0", f"{half}.mid.block_1", AUTOENCODER_BLOCK)
        if config.middle_attention:
            yield from _attention(f"{half}.middle.1", f"{half}.mid.attn_1")
        yield from inside(f"{half}.middle.2", f"{half}.mid.block_2", AUTOENCODER_BLOCK)
        yield from module(f"{half}.norm_out", f"{half}.norm_out")
        yield from module(f"{half}.conv_out", f"{half}.conv_out")
    yield from module("quant_conv", "quant_conv")
    if config.codebook_size is not None:
        yield Rule("codebook.weight", "quantize.embedding.weight")
    yield from module("post_quant_conv", "post_quant_conv")


def _attention(ours: str, theirs: str) -> Iterator[Rule]:
    yield from module(f"{ours}.norm", f"{theirs}.norm")
    for part, name in zip((*PARTS, "to_out"), ("q", "k", "v", "proj_out"), strict=True):
        yield from module(f"{ours}.attention.{part}", f"{theirs}.{name}", CONV_1X1)


def _open_clip(config: CLIPTextConfig) -> Iterator[Rule | Fused]:
    yield Rule("token_embedding.weight", "token_embedding.weight")
    yield Rule("position_embedding.weight", "positional_embedding")
    yield from open_clip_layers(config.num_layers)
    yield from module("norm", "ln_final")
    if config.projection_dim:
        yield Rule("projection.weight", "text_projection", TURNED)


def open_clip_layers(count: int) -> Iterator[Rule | Fused]:
    """The layers of either tower."""
    for layer in range(count):
        ours, theirs = f"layers.{layer}", f"transformer.resblocks.{layer}"
        yield from inside(ours, theirs, OPEN_CLIP_LAYER)
        for kind in ("weight", "bias"):
            parts = (f"{ours}.attention.{part}.{kind}" for part in PARTS)
            yield thirds(parts, f"{theirs}.attn.in_proj_{kind}")


def _token_transformer(config: TokenTransformerConfig) -> Iterator[Rule]:
    """Attention and perceptron are two layers there."""
    yield Rule("token_embedding.weight", "token_emb.weight")
    yield Rule("position_embedding.weight", "pos_emb.emb.weight")
    for layer in range(config.num_layers):
        yield from inside(f"layers.{layer}", f"attn_layers.layers.{2 * layer}", TOKEN_ATTENTION)
        yield from inside(f"layers.{layer}", f"attn_layers.layers.{2 * layer + 1}", TOKEN_PERCEPTRON)
    yield from module("norm", "norm")
