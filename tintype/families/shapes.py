"""Configurations of networks, read from the names and shapes of their tensors in LDM's layout.

What shapes do not tell (into how many heads attention divides, say) comes from the family's released configuration.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tintype.models.autoencoder import AutoencoderConfig
from tintype.models.clip import Activation, CLIPTextConfig
from tintype.models.token_transformer import TokenTransformerConfig
from tintype.models.unet import UNetConfig

Shapes = Mapping[str, tuple[int, ...]]


def below(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    """The entries whose names begin so, without it."""
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def unet_config(shapes: Shapes, released: UNetConfig) -> UNetConfig:
    """Of LDM's UNetModel. Raises `ValueError` naming the tensor that tells and is missing."""
    width, in_channels = shape_of(shapes, "input_blocks.0.0.weight")[:2]
    blocks = _count(shapes, r"input_blocks\.(\d+)\.")
    halvings = [number for number in range(blocks) if f"input_blocks.{number}.0.op.weight" in shapes]
    in_blocks = not halvings
    levels = len(halvings) + 1 if halvings else blocks // 3  # all that halve in residual blocks have two a level
    if levels < 1 or (blocks - levels) % levels:
        raise ValueError(
            f"{blocks} input_blocks with {len(halvings)} halvings; expected as many to each level of a U-Net"
        )
    num_blocks = (blocks - levels) // levels
    firsts = [1 + level * (num_blocks + 1) for level in range(levels)]
    out_channels = [shape_of(shapes, f"input_blocks.{first}.0.out_layers.3.weight")[0] for first in firsts]
    depth = tuple(_depth(shapes, f"input_blocks.{first}.1") for first in firsts)
    context = [shape_of(shapes, name)[1] for name in shapes if name.endswith("attn2.to_k.weight")]
    first_scale = shape_of(shapes, f"input_blocks.{firsts[0]}.0.emb_layers.1.weight")[0]
    return dataclasses.replace(
        released,
        in_channels=in_channels,
        out_channels=shape_of(shapes, "out.2.weight")[0],
        width=width,
        mult=tuple(channels // width for channels in out_channels),
        num_blocks=num_blocks,
        depth=depth,
        middle_depth=_depth(shapes, "middle_block.1"),
        context_dim=context[0] if context else None,
        self_attention=released.self_attention if len(released.self_attention) == levels else (),
        vector_dim=shape_of(shapes, "label_emb.0.0.weight")[1] if "label_emb.0.0.weight" in shapes else None,
        num_classes=shape_of(shapes, "label_emb.weight")[0] if "label_emb.weight" in shapes else None,
        scale_shift=first_scale == 2 * out_channels[0],
        resample_in_blocks=in_blocks and levels > 1,
        guidance_dim=shapes["time_embed.cond_proj.weight"][1] if "time_embed.cond_proj.weight" in shapes else None,
    )


class AutoencoderPlaces(NamedTuple):
    """Where a layout has the parts of an encoder that tell its configuration; {} stands for a level."""

    level: str
    block: str
    attention: str
    middle: str


LDM_PLACES = AutoencoderPlaces("encoder.down.{}.", "block.{}.", "attn.0.", "encoder.mid.attn_1.")
DIFFUSERS_PLACES = AutoencoderPlaces(
    "encoder.down_blocks.{}.", "resnets.{}.", "attentions.0.", "encoder.mid_block.attentions.0."
)


def autoencoder_config(shapes: Shapes, places: AutoencoderPlaces = LDM_PLACES) -> AutoencoderConfig:
    """Of LDM's AutoencoderKL and VQModel, or of diffusers' classes of the same names."""
    width, image_channels = shape_of(shapes, "encoder.conv_in.weight")[:2]
    number = r"(\d+)"
    levels = range(_count(shapes, re.escape(places.level).replace(r"\{\}", number)))
    first = (places.level + places.block).format(0, "{}")
    inside = [places.level.format(level) for level in levels]
    return AutoencoderConfig(
        image_channels=image_channels,
        latent_channels=shape_of(shapes, "post_quant_conv.weight")[1],
        width=width,
        mult=tuple(shape_of(shapes, level + places.block.format(0) + "conv2.weight")[0] // width for level in inside),
        num_blocks=_count(shapes, re.escape(first).replace(r"\{\}", number)),
        attention_levels=tuple(
            level for level in levels if any(name.startswith(inside[level] + places.attention) for name in shapes)
        ),
        middle_attention=any(name.startswith(places.middle) for name in shapes),
        codebook_size=shape_of(shapes, "quantize.embedding.weight")[0]
        if "quantize.embedding.weight" in shapes
        else None,
    )


def clip_text_config(shapes: Shapes) -> CLIPTextConfig:
    """Of transformers' CLIPTextModel, names without "text_model."; CLIP-L's kind."""
    return _clip(
        words=shape_of(shapes, "embeddings.token_embedding.weight"),
        places=shape_of(shapes, "embeddings.position_embedding.weight"),
        num_layers=_count(shapes, r"encoder\.layers\.(\d+)\."),
        activation="quick_gelu",
    )


def open_clip_config(shapes: Shapes, released: CLIPTextConfig) -> CLIPTextConfig:
    """Of OpenCLIP's text tower: with a projection if the released one has it, and not more layers than that: SD 2.x
    leaves out the last."""
    config = _clip(
        words=shape_of(shapes, "token_embedding.weight"),
        places=shape_of(shapes, "positional_embedding"),
        num_layers=min(_count(shapes, r"transformer\.resblocks\.(\d+)\."), released.num_layers),
        activation="gelu",
    )
    projection = shape_of(shapes, "text_projection")[1] if released.projection_dim else None
    return dataclasses.replace(config, projection_dim=projection)


def token_transformer_config(shapes: Shapes, released: TokenTransformerConfig) -> TokenTransformerConfig:
    """Of x-transformers' TransformerWrapper, whose layers attend and compute in turn."""
    vocabulary_size, width = shape_of(shapes, "token_emb.weight")
    inner = shape_of(shapes, "attn_layers.layers.0.1.to_q.weight")[0]
    return TokenTransformerConfig(
        vocabulary_size=vocabulary_size,
        context_length=shape_of(shapes, "pos_emb.emb.weight")[0],
        width=width,
        num_layers=_count(shapes, r"attn_layers\.layers\.(\d+)\.") // 2,
        num_heads=inner // released.head_dim,
        head_dim=released.head_dim,
    )


def _clip(
    *, words: tuple[int, ...], places: tuple[int, ...], num_layers: int, activation: Activation
) -> CLIPTextConfig:
    """Heads are 64 wide in every CLIP tower that was released."""
    return CLIPTextConfig(
        vocabulary_size=words[0],
        context_length=places[0],
        width=words[1],
        num_layers=num_layers,
        num_heads=max(words[1] // 64, 1),
        activation=activation,
    )


def _depth(shapes: Shapes, place: str) -> int:
    """Blocks of the spatial transformer there, 1 for plain attention."""
    return _count(shapes, re.escape(place) + r"\.transformer_blocks\.(\d+)\.") or int(f"{place}.qkv.weight" in shapes)


def _count(names: Iterable[str], pattern: str) -> int:
    """How many numbers there are: a lone large one adds nothing, so that no header can ask for a million layers."""
    found = (re.match(pattern, name) for name in names)
    return len({match[1] for match in found if match})


def shape_of(shapes: Shapes, name: str) -> tuple[int, ...]:
    """Of a weight. Raises `ValueError` when it is absent, a vector, or empty."""
    if name not in shapes:
        raise ValueError(f"no {name}; expected the networks of a Stable Diffusion or LDM checkpoint")
    if len(shapes[name]) < 2 or 0 in shapes[name]:
        raise ValueError(f"{name} is {shapes[name]}; expected the weight of a layer")
    return shapes[name]
