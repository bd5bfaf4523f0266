"""What diffusers and transformers call the parameters of our networks.

Indices follow from the configuration, so each map is made from one. A table names the layers of a block, a function
says where a network keeps its blocks.
"""

from collections.abc import Iterator
from typing import Literal

from tintype.common.keymap import CONV_1X1, KeyMap, Rule, inside, module
from tintype.models.autoencoder import AutoencoderConfig
from tintype.models.clip import CLIPTextConfig
from tintype.models.token_transformer import TokenTransformerConfig
from tintype.models.unet import UNetConfig

Projection = Literal["conv", "linear"]
VectorEmbedding = Literal["add_embedding", "class_embedding"]

RES_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "shift_proj": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "shortcut": "conv_shortcut",
}
ATTENTION = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # before diffusers 0.17
ATTENTION_BLOCK = {"norm": "group_norm"} | {f"attention.{ours}": theirs for ours, theirs in ATTENTION.items()}
TRANSFORMER_BLOCK = {
    "norm1": "norm1",
    **{f"attn1.{ours}": f"attn1.{theirs}" for ours, theirs in ATTENTION.items()},
    "norm2": "norm2",
    **{f"attn2.{ours}": f"attn2.{theirs}" for ours, theirs in ATTENTION.items()},
    "norm3": "norm3",
    "ff.proj": "ff.net.0.proj",
    "ff.out": "ff.net.2",
}
TEXT_LAYER = {
    "norm1": "layer_norm1",
    "attention.to_q": "self_attn.q_proj",
    "attention.to_k": "self_attn.k_proj",
    "attention.to_v": "self_attn.v_proj",
    "attention.to_out": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
TOKEN_LAYER = TEXT_LAYER | {
    "norm1": "self_attn_layer_norm",
    "norm2": "final_layer_norm",
    "fc1": "fc1",
    "fc2": "fc2",
}


def unet_names(
    config: UNetConfig, *, projection: Projection = "linear", vector: VectorEmbedding = "add_embedding"
) -> KeyMap:
    """UNet2DConditionModel, or UNet2DModel without `context_dim`.

    projection: what diffusers keeps around the transformer blocks, "conv" in SD 1.x (`use_linear_projection` false).
    vector: where it keeps the two layers of `vector_dim`, "class_embedding" in SD 2.1 unCLIP.
    """
    return KeyMap(_unet(config, projection, vector))


def autoencoder_names(config: AutoencoderConfig) -> KeyMap:
    """AutoencoderKL, or VQModel with a codebook. Pixels that enter as channels (`patch_size`) change no name."""
    return KeyMap(_autoencoder(config))


def modern_attention(name: str) -> str:
    """A parameter of an autoencoder as diffusers spells it since 0.17."""
    place, _, kind = name.rpartition(".")
    place, _, layer = place.rpartition(".")
    return f"{place}.{OLD_ATTENTION.get(layer, layer)}.{kind}" if ".attentions." in place else name


def clip_text_names(config: CLIPTextConfig, *, prefix: str = "text_model.") -> KeyMap:
    """CLIPTextModel and CLIPTextModelWithProjection. transformers from 5.6 on writes the first without `prefix`."""
    return KeyMap(_clip_text(config, prefix))


def token_transformer_names(config: TokenTransformerConfig) -> KeyMap:
    """LDMBertModel, without the `to_logits` head that it has and never uses."""
    return KeyMap(_token_transformer(config))


def _unet(config: UNetConfig, projection: Projection, vector: VectorEmbedding) -> Iterator[Rule]:
    yield from module("time_embed.0", "time_embedding.linear_1")
    yield from module("time_embed.2", "time_embedding.linear_2")
    if config.guidance_dim is not None:
        yield Rule("guidance_embed.weight", "time_embedding.cond_proj.weight")
    if config.num_classes is not None:
        yield Rule("vector_embed.weight", "class_embedding.weight")
    if config.vector_dim is not None:
        yield from module("vector_embed.0", f"{vector}.linear_1")
        yield from module("vector_embed.2", f"{vector}.linear_2")
    yield from module("conv_in", "conv_in")

    levels = len(config.mult)
    for way, depths, stages in (
        ("down", config.depth, config.num_blocks),
        ("up", config.depth[::-1], config.num_blocks + 1),
    ):
        for level, depth in enumerate(depths):
            ours, theirs = f"{way}.{level}", f"{way}_blocks.{level}"
            for stage in range(stages):
                yield from inside(f"{ours}.stages.{stage}.block", f"{theirs}.resnets.{stage}", RES_BLOCK)
                there = f"{theirs}.attentions.{stage}"
                yield from _attention(config, f"{ours}.stages.{stage}.attention", there, depth, projection)
            if level + 1 < levels and config.resample_in_blocks:
                yield from inside(f"{ours}.resample", f"{theirs}.{way}samplers.0", RES_BLOCK)
            elif level + 1 < levels:
                yield from module(f"{ours}.resample.conv", f"{theirs}.{way}samplers.0.conv")

    yield from inside("middle.0.block", "mid_block.resnets.0", RES_BLOCK)
    yield from _attention(config, "middle.0.attention", "mid_block.attentions.0", config.middle_depth, projection)
    yield from inside("middle.1.block", "mid_block.resnets.1", RES_BLOCK)
    yield from module("norm_out", "conv_norm_out")
    yield from module("conv_out", "conv_out")


def _attention(config: UNetConfig, ours: str, theirs: str, depth: int, projection: Projection) -> Iterator[Rule]:
    if depth and config.context_dim is None:
        yield from inside(ours, theirs, ATTENTION_BLOCK)
    elif depth:
        layout = CONV_1X1 if projection == "conv" else None
        yield from module(f"{ours}.norm", f"{theirs}.norm")
        yield from module(f"{ours}.proj_in", f"{theirs}.proj_in", layout)
        for block in range(depth):
            yield from inside(f"{ours}.blocks.{block}", f"{theirs}.transformer_blocks.{block}", TRANSFORMER_BLOCK)
        yield from module(f"{ours}.proj_out", f"{theirs}.proj_out", layout)


def _autoencoder(config: AutoencoderConfig) -> Iterator[Rule]:
    levels = list(range(len(config.mult)))
    for half, way, order, blocks in (
        ("encoder", "down", levels, config.num_blocks),
        ("decoder", "up", levels[::-1], config.num_blocks + 1),
    ):
        yield from module(f"{half}.conv_in", f"{half}.conv_in")
        position = 0  # in our one sequence of blocks, attention and resampling
        for number, level in enumerate(order):
            theirs = f"{half}.{way}_blocks.{number}"
            for block in range(blocks):
                yield from inside(f"{half}.{way}.{position}", f"{theirs}.resnets.{block}", RES_BLOCK)
                position += 1
                if level in config.attention_levels:
                    yield from inside(f"{half}.{way}.{position}", f"{theirs}.attentions.{block}", ATTENTION_BLOCK)
                    position += 1
            if number + 1 < len(levels):
                yield from module(f"{half}.{way}.{position}.conv", f"{theirs}.{way}samplers.0.conv")
                position += 1
        yield from inside(f"{half}.middle.0", f"{half}.mid_block.resnets.0", RES_BLOCK)
        if config.middle_attention:
            yield from inside(f"{half}.middle.1", f"{half}.mid_block.attentions.0", ATTENTION_BLOCK)
        yield from inside(f"{half}.middle.2", f"{half}.mid_block.resnets.1", RES_BLOCK)
        yield from module(f"{half}.norm_out", f"{half}.conv_norm_out")
        yield from module(f"{half}.conv_out", f"{half}.conv_out")
    yield from module("quant_conv", "quant_conv")
    if config.codebook_size is not None:
        yield Rule("codebook.weight", "quantize.embedding.weight")
    yield from module("post_quant_conv", "post_quant_conv")


def _clip_text(config: CLIPTextConfig, prefix: str) -> Iterator[Rule]:
    yield Rule("token_embedding.weight", f"{prefix}embeddings.token_embedding.weight")
    yield Rule("position_embedding.weight", f"{prefix}embeddings.position_embedding.weight")
    for layer in range(config.num_layers):
        yield from inside(f"layers.{layer}", f"{prefix}encoder.layers.{layer}", TEXT_LAYER)
    yield from module("norm", f"{prefix}final_layer_norm")
    if config.projection_dim:
        yield Rule("projection.weight", "text_projection.weight")


def _token_transformer(config: TokenTransformerConfig) -> Iterator[Rule]:
    yield Rule("token_embedding.weight", "model.embed_tokens.weight")
    yield Rule("position_embedding.weight", "model.embed_positions.weight")
    for layer in range(config.num_layers):
        yield from inside(f"layers.{layer}", f"model.layers.{layer}", TOKEN_LAYER)
    yield from module("norm", "model.layer_norm")
