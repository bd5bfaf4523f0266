"""Configurations of a whole CLIP: from transformers' and open_clip's JSON, or from the shapes of a file.

Their fields and defaults are dataclasses here, so that reading is typed and what they cannot say is named.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from tintype.common.config import Json, from_json
from tintype.families.shapes import Shapes, below, shape_of
from tintype.models.clip import Activation, CLIPTextConfig
from tintype.models.clip_image import CLIPImageConfig, Colour
from tintype.models.clip_pair import CLIPConfig

T = TypeVar("T")
ClipLayout = Literal["transformers", "open_clip"]
OPEN_CLIP_MARK, TRANSFORMERS_MARK = "visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformersTower:
    """CLIPTextConfig's and CLIPVisionConfig's common fields."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int = 12
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformersText(TransformersTower):
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    vocab_size: int = 49_408
    max_position_embeddings: int = 77


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformersImage(TransformersTower):
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformersCLIP:
    """Of the whole CLIPConfig."""

    projection_dim: int = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenClipText:
    context_length: int = 77
    vocab_size: int = 49_408
    width: int = 512
    heads: int = 8
    layers: int = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenClipImage:
    image_size: int = 224
    layers: int = 12
    width: int = 768
    head_width: int = 64
    patch_size: int = 16
    mlp_ratio: float = 4.0
    patch_dropout: float = 0.0
    pool_type: Literal["tok", "avg"] = "tok"


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenClip:
    """`model_cfg` of open_clip_config.json, which is strict: what is not here makes another network."""

    embed_dim: int
    vision_cfg: OpenClipImage
    text_cfg: OpenClipText = field(default_factory=OpenClipText)
    quick_gelu: bool = False
    init_logit_bias: float | None = None
    init_logit_scale: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Colours:
    mean: Colour = CLIPImageConfig().mean
    std: Colour = CLIPImageConfig().std


def clip_from_transformers(config: Mapping[str, Json], pictures: Mapping[str, Json]) -> CLIPConfig:
    """config: of CLIPModel (config.json); pictures: of its CLIPImageProcessor (preprocessor_config.json), or empty.
    Raises `ValueError` naming what is another kind of network."""
    if config.get("model_type") != "clip":
        raise ValueError(f"config.json: model_type is {config.get('model_type')!r}; expected 'clip'")
    text = _known(TransformersText, config.get("text_config"))
    image = _known(TransformersImage, config.get("vision_config"))
    for name, tower in (("text_config", text), ("vision_config", image)):
        if tower.layer_norm_eps != 1e-5:
            raise ValueError(f"{name}.layer_norm_eps is {tower.layer_norm_eps}; expected 1e-05")
    if text.intermediate_size != 4 * text.hidden_size:
        raise ValueError(f"text_config.intermediate_size is {text.intermediate_size}; expected {4 * text.hidden_size}")
    dim = _known(TransformersCLIP, dict(config)).projection_dim
    colours = {"mean": pictures.get("image_mean"), "std": pictures.get("image_std")}
    told = _known(Colours, {name: value for name, value in colours.items() if value is not None})
    return CLIPConfig(
        text=CLIPTextConfig(
            vocabulary_size=text.vocab_size,
            context_length=text.max_position_embeddings,
            width=text.hidden_size,
            num_layers=text.num_hidden_layers,
            num_heads=text.num_attention_heads,
            activation=text.hidden_act,
            projection_dim=dim,
        ),
        image=CLIPImageConfig(
            image_size=image.image_size,
            patch_size=image.patch_size,
            width=image.hidden_size,
            num_layers=image.num_hidden_layers,
            num_heads=image.num_attention_heads,
            activation=image.hidden_act,
            projection_dim=dim,
            mlp_width=_unless(4 * image.hidden_size, image.intermediate_size),
            mean=told.mean,
            std=told.std,
        ),
    )


def clip_from_open_clip(config: Mapping[str, Json]) -> CLIPConfig:
    """open_clip_config.json, whole. Raises `ValueError` naming what is another kind of network."""
    model = from_json(OpenClip, config.get("model_cfg"))
    told = _known(Colours, config.get("preprocess_cfg") or {})
    image, text = model.vision_cfg, model.text_cfg
    activation: Activation = "quick_gelu" if model.quick_gelu else "gelu"
    return CLIPConfig(
        text=CLIPTextConfig(
            vocabulary_size=text.vocab_size,
            context_length=text.context_length,
            width=text.width,
            num_layers=text.layers,
            num_heads=text.heads,
            activation=activation,
            projection_dim=model.embed_dim,
        ),
        image=CLIPImageConfig(
            image_size=image.image_size,
            patch_size=image.patch_size,
            width=image.width,
            num_layers=image.layers,
            num_heads=image.width // image.head_width,
            activation=activation,
            projection_dim=model.embed_dim,
            mlp_width=_unless(4 * image.width, int(image.width * image.mlp_ratio)),
            pooling="class" if image.pool_type == "tok" else "mean",
            mean=told.mean,
            std=told.std,
        ),
        logit_bias=model.init_logit_bias is not None,
    )


def layout_of(shapes: Shapes) -> ClipLayout | None:
    """Whose CLIP a file holds, if it is one."""
    if OPEN_CLIP_MARK in shapes:
        return "open_clip"
    return "transformers" if TRANSFORMERS_MARK in shapes else None


def clip_from_shapes(shapes: Shapes, layout: ClipLayout, activation: Activation) -> CLIPConfig:
    """What shapes do not tell is as in the networks that were released: the class token stands for a picture, heads
    are 64 wide, but 16 to an image tower of width 1024 and more."""
    if layout == "open_clip":
        patches, inner = shape_of(shapes, OPEN_CLIP_MARK), "visual.transformer.resblocks.0.mlp.c_fc.weight"
        places = shape_of(shapes, "visual.positional_embedding")[0]
        words, context = shape_of(shapes, "token_embedding.weight"), shape_of(shapes, "positional_embedding")[0]
        dim = shape_of(shapes, "text_projection")[1]
        layers = ("visual.transformer.resblocks.", "transformer.resblocks.")
    else:
        patches, inner = shape_of(shapes, TRANSFORMERS_MARK), "vision_model.encoder.layers.0.mlp.fc1.weight"
        places = shape_of(shapes, "vision_model.embeddings.position_embedding.weight")[0]
        words = shape_of(shapes, "text_model.embeddings.token_embedding.weight")
        context = shape_of(shapes, "text_model.embeddings.position_embedding.weight")[0]
        dim = shape_of(shapes, "text_projection.weight")[0]
        layers = ("vision_model.encoder.layers.", "text_model.encoder.layers.")
    width, patch = patches[0], patches[2]
    counts = [len({name.partition(".")[0] for name in below(shapes, prefix)}) for prefix in layers]
    return CLIPConfig(
        text=CLIPTextConfig(
            vocabulary_size=words[0],
            context_length=context,
            width=words[1],
            num_layers=counts[1],
            num_heads=max(words[1] // 64, 1),
            activation=activation,
            projection_dim=dim,
        ),
        image=CLIPImageConfig(
            image_size=patch * round((places - 1) ** 0.5),
            patch_size=patch,
            width=width,
            num_layers=counts[0],
            num_heads=16 if width >= 1024 else max(width // 64, 1),
            activation=activation,
            projection_dim=dim,
            mlp_width=_unless(4 * width, shape_of(shapes, inner)[0]),
        ),
        logit_bias="logit_bias" in shapes,
    )


def read_config(path: Path) -> dict[str, Json]:
    """A file that is a JSON object. Raises `ValueError` when it is none."""
    try:
        found: Json = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); copy or download it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is {type(found).__name__}; expected an object of fields")
    return found


def _known(kind: type[T], config: Json) -> T:
    """The fields of a dataclass; transformers writes many more, and leaves out those at their default."""
    if config is None:
        config = {}
    names = {one.name for one in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    if isinstance(config, dict):
        config = {name: value for name, value in config.items() if name in names}
    return from_json(kind, config)


def _unless(usual: int, value: int) -> int | None:
    return None if value == usual else value
