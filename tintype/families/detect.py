"""Which family a checkpoint is of, and its networks' configurations, from the header of a file in LDM's layout."""

import dataclasses
import re
from collections.abc import Iterable

from tintype.conditioning.bert import BertConfig
from tintype.conditioning.class_label import ClassConfig
from tintype.conditioning.layout import LayoutConfig
from tintype.conditioning.spatial import SpatialConfig
from tintype.conditioning.text import TextConfig
from tintype.conditioning.towers import TextTowersConfig
from tintype.diffusion.scaling import Prediction
from tintype.families.base import ConditionerConfig, ConditionerKind, Family, FamilyConfig, Tells, suited
from tintype.families.latent_diffusion import FAMILIES as LATENT_DIFFUSION
from tintype.families.shapes import (
    Shapes,
    below,
    clip_text_config,
    open_clip_config,
    shape_of,
    token_transformer_config,
    unet_config,
)
from tintype.families.stable_diffusion import FAMILIES as STABLE_DIFFUSION
from tintype.models.autoencoder import AutoencoderConfig

FAMILIES = {family.config.name: family for family in (*STABLE_DIFFUSION, *LATENT_DIFFUSION)}

UNET, AUTOENCODER = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
XL_FIRST, XL_SECOND = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
REFINER = "conditioner.embedders.0.model."
TEXT_MODEL = "text_model."
CLASSES, CLASS_MAPS = "cond_stage_model.embedding.weight", "cond_stage_model.channel_mapper.weight"
ENTRANCE = f"{UNET}input_blocks.0.0.weight"

KINDS: dict[str, ConditionerKind] = {  # a tensor, or the beginning of several: the first that is there decides
    XL_SECOND: "clip_and_open_clip",
    REFINER: "open_clip_pooled",
    OPEN_CLIP: "open_clip",
    f"{CLIP}{TEXT_MODEL}": "clip",
    f"{CLIP}embeddings.": "clip",
    f"{CLIP}token_emb.weight": "bert",
    CLASSES: "class",
    CLASS_MAPS: "spatial",
}
LAYOUT_TOKENS = 92
OTHERS = {  # what people take for checkpoints, by how some of their tensors' names begin
    r"lora_unet_|lora_te|.*[._]lora[._]": "a LoRA; open the checkpoint it was made for",
    r"control_model\.|controlnet_": "a ControlNet",
    r"model\.diffusion_model\.joint_blocks\.": "Stable Diffusion 3, a transformer, which is not opened",
    r"(model\.diffusion_model\.)?double_blocks\.": "FLUX, a transformer, which is not opened",
    r"edm_mean$": "Playground 2.5, whose EDM scaling is not known here",
    r"(first_stage_model\.)?decoder\.": "an autoencoder alone; give it as vae= beside a checkpoint",
    r"string_to_param\.|emb_params$|clip_[lg]$": "a textual inversion",
    r"down_blocks\.": "diffusers' U-Net alone; open the whole folder",
    r"input_blocks\.": "a U-Net alone; a checkpoint has its text encoder and autoencoder too",
    r"text_model\.": "a text encoder alone",
}


def check_whole(shapes: Shapes, *, autoencoder: bool) -> None:
    """Raises `ValueError` saying what a header in LDM's layout looks like that is not of a latent diffusion model with
    (when `autoencoder` is wanted) its first stage."""
    if ENTRANCE not in shapes or "edm_mean" in shapes:
        raise ValueError(f"no U-Net of Stable Diffusion ({ENTRANCE}): {_other(shapes)}")
    if _kind(shapes) == "none" and any(name.endswith("attn2.to_k.weight") for name in shapes):
        raise ValueError("it has no text encoder, whose context its U-Net reads; expected a whole checkpoint")
    if autoencoder and f"{AUTOENCODER}post_quant_conv.weight" not in shapes:
        raise ValueError("it has no autoencoder; give one beside it as vae=, --vae at the command line")


def tells(shapes: Shapes, autoencoder: AutoencoderConfig) -> Tells:
    """What a header in LDM's layout shows."""
    return Tells(
        conditioner=_kind(shapes),
        extra_channels=shape_of(shapes, ENTRANCE)[1] - autoencoder.latent_channels,
        codebook=autoencoder.codebook_size is not None,
        levels=len(autoencoder.mult),
        classes=f"{UNET}label_emb.weight" in shapes,
    )


def detect(found: Tells, prediction: Prediction | None = None) -> Family:
    """The family, with `prediction` where that is given. Raises `ValueError` naming the closest when there is none,
    and the choices when a checkpoint does not tell which of several it is of."""
    fitting = [family for family in FAMILIES.values() if not family.tells.distance(found)]
    if not fitting:
        close = sorted(FAMILIES.values(), key=lambda family: family.tells.distance(found))[:2]
        raise ValueError(f"no family has {found}; the closest are {_told(close)}")
    if prediction is None and len(fitting) == 1:
        return fitting[0]
    if prediction is None:
        names = " or ".join(f"{family.config.prediction} ({family.config.name})" for family in fitting)
        raise ValueError(
            f"a file of this kind does not tell what its U-Net predicts: {names}. Give prediction=, --prediction at "
            "the command line; the page it comes from says which"
        )
    exact = [family for family in fitting if family.config.prediction == prediction]
    family = (exact or fitting)[0]
    return dataclasses.replace(family, config=dataclasses.replace(family.config, prediction=prediction))


def family_of(config: FamilyConfig) -> Family:
    """The released family that a model says it is of. Raises `ValueError` for a model of our own."""
    if config.name not in FAMILIES:
        raise ValueError(f"the model is of the family {config.name!r}; expected a released one: {', '.join(FAMILIES)}")
    return FAMILIES[config.name]


def fitted(shapes: Shapes, family: Family, autoencoder: AutoencoderConfig) -> FamilyConfig:
    """The family's configuration with networks of the sizes in the header."""
    config = family.config
    return suited(
        dataclasses.replace(
            config,
            unet=unet_config(below(shapes, UNET), config.unet),
            autoencoder=autoencoder,
            conditioner=_conditioner(shapes, config.conditioner),
        )
    )


def _conditioner(shapes: Shapes, released: ConditionerConfig | None) -> ConditionerConfig | None:
    match released, _kind(shapes):
        case TextConfig(), "clip":
            return dataclasses.replace(released, clip=clip_text_config(_clip(shapes, CLIP)))
        case TextConfig(), _:
            clip = open_clip_config(below(shapes, OPEN_CLIP), released.clip)
            return dataclasses.replace(released, clip=clip)
        case TextTowersConfig(towers=(first, second)), _:
            towers = (
                dataclasses.replace(first, clip=clip_text_config(_clip(shapes, XL_FIRST))),
                dataclasses.replace(second, clip=open_clip_config(below(shapes, XL_SECOND), second.clip)),
            )
            return dataclasses.replace(released, towers=towers)
        case TextTowersConfig(towers=(only,)), _:
            tower = dataclasses.replace(only, clip=open_clip_config(below(shapes, REFINER), only.clip))
            return dataclasses.replace(released, towers=(tower,))
        case ((BertConfig() | LayoutConfig()), _):
            encoder = token_transformer_config(below(shapes, CLIP), released.encoder)
            return dataclasses.replace(released, encoder=encoder)
        case ClassConfig(), _:
            num_classes, width = shape_of(shapes, CLASSES)[:2]
            null = None if released.null_class is None else num_classes - 1  # it is the last where there is one
            return dataclasses.replace(released, num_classes=num_classes, width=width, null_class=null)
        case SpatialConfig(), _:
            out_channels, num_classes = shape_of(shapes, CLASS_MAPS)[:2]
            return dataclasses.replace(released, num_classes=num_classes, out_channels=out_channels)
        case _:
            return released


def _clip(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(TEXT_MODEL): shape for name, shape in below(shapes, prefix).items()}


def _kind(shapes: Shapes) -> ConditionerKind:
    for beginning, kind in KINDS.items():
        if any(name.startswith(beginning) for name in shapes):
            places = shapes.get(f"{CLIP}pos_emb.emb.weight", (0,))
            return "layout" if kind == "bert" and places[0] == LAYOUT_TOKENS else kind
    return "none"


def _other(shapes: Shapes) -> str:
    for beginning, what in OTHERS.items():
        if any(re.match(beginning, name) for name in shapes):
            return f"it looks like {what}"
    some = ", ".join(sorted(shapes)[:3])
    return f"its tensors are named {some}; expected a Stable Diffusion or LDM checkpoint"


def _told(families: Iterable[Family]) -> str:
    return " and ".join(f"{family.config.name} ({family.tells})" for family in families)
