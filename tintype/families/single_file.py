"""The names of a whole model in one file, as CompVis and Stability wrote it: every network's behind its prefix.

On our side a name begins with "unet.", "autoencoder." or "conditioner.".
"""

import re
from collections.abc import Iterator, Mapping

from tintype.common.keymap import KeyMap
from tintype.conditioning.bert import BertConfig
from tintype.conditioning.class_label import ClassConfig
from tintype.conditioning.layout import LayoutConfig
from tintype.conditioning.spatial import SpatialConfig
from tintype.conditioning.text import TextConfig
from tintype.conditioning.towers import TextTowersConfig
from tintype.families import diffusers_names, ldm_names
from tintype.families.base import ConditionerConfig, Family, FamilyConfig
from tintype.families.detect import AUTOENCODER, CLIP, OPEN_CLIP, REFINER, TEXT_MODEL, UNET, XL_FIRST, XL_SECOND

AVERAGED = "model_ema."
COND = "cond_stage_model."
# What such files hold beside the networks: averages, buffers that follow from the schedule, losses' own networks, the
# last layer and the projection of SD 2's text tower, MiDaS, the first stage once more as what conditions
# inpainting_big, markers of merges
BESIDE = re.compile(
    r"model_ema\.|betas$|alphas_cumprod|sqrt_|log_one_minus_|posterior_|lvlb_weights$|logvar$|scale_factor$"
    r"|denoiser\.sigmas$|v_pred$|ztsnr$|first_stage_model\.(loss|model_ema)\.|depth_model\.|low_scale_model\."
    r"|(cond_stage_model|conditioner\.embedders\.\d)\.(.*\.)?(position_ids|logit_scale|attn_mask)$"
    r"|(embedding_manager|safety_checker|loss|optimizer\w*)\.|(epoch|global_step)$|(cond_stage_model|conditioner\.embedders\.\d)\.(.*\.)?(vision_model|visual_projection|visual)\."
    r"|cond_stage_model\.model\.(text_projection$|transformer\.resblocks\.23\.)"
    r"|(cond_stage_model|conditioner\.embedders\.0)\.(transformer\.)?text_projection(\.weight)?$"
    r"|cond_stage_model\.transformer\.to_logits\."
    r"|cond_stage_model\.(encoder|decoder|quant_conv|post_quant_conv|quantize|loss)\."
)


def names(config: FamilyConfig, family: Family, *, text_model: bool = True) -> KeyMap:
    """`text_model`: whether names of CLIP's tower begin so; files of either spelling are about."""
    unet = ldm_names.unet_names(config.unet, projection=family.projection).below("unet.", UNET)
    conditioner = [one.below("conditioner.", "") for one in _conditioner(config.conditioner, text_model)]
    autoencoder = ldm_names.autoencoder_names(config.autoencoder).below("autoencoder.", AUTOENCODER)
    return KeyMap(rule for one in (unet, autoencoder, *conditioner) for rule in one.rules)


def expects_text_model(names: Mapping[str, object]) -> bool:
    """Whether this file spells CLIP's names with "text_model."."""
    return any(f"{prefix}{TEXT_MODEL}" in name for name in names for prefix in (CLIP, XL_FIRST))


def averaged_names(names: Mapping[str, object]) -> dict[str, str]:
    """For each tensor of the U-Net the name of its average, where the file has them: LDM leaves out the dots."""
    found = {
        name: f"{AVERAGED}{name.removeprefix('model.').replace('.', '')}" for name in names if name.startswith(UNET)
    }
    return found if found and all(average in names for average in found.values()) else {}


def _conditioner(config: ConditionerConfig | None, text_model: bool) -> Iterator[KeyMap]:
    spelled = TEXT_MODEL if text_model else ""
    match config:
        case TextConfig() if config.clip.activation == "quick_gelu":
            yield diffusers_names.clip_text_names(config.clip, prefix=CLIP + spelled).below("encoder.", "")
        case TextConfig():
            yield ldm_names.open_clip_names(config.clip).below("encoder.", OPEN_CLIP)
        case TextTowersConfig(towers=(first, second)):
            clip = diffusers_names.clip_text_names(first.clip, prefix=XL_FIRST + spelled)
            yield clip.below("towers.0.encoder.", "")
            yield ldm_names.open_clip_names(second.clip).below("towers.1.encoder.", XL_SECOND)
        case TextTowersConfig(towers=(only,)):
            yield ldm_names.open_clip_names(only.clip).below("towers.0.encoder.", REFINER)
        case TextTowersConfig():
            raise ValueError(f"{len(config.towers)} text towers: no file in LDM's layout has so many")
        case BertConfig() | LayoutConfig():
            yield ldm_names.token_transformer_names(config.encoder).below("encoder.", CLIP)
        case ClassConfig():
            yield ldm_names.class_names().below("", COND)
        case SpatialConfig():
            yield ldm_names.spatial_names().below("", COND)
        case None:
            pass
