"""Models written as folders in diffusers' layout, which diffusers opens: configurations, weights, tokenizers."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tintype.checkpoints.diffusers_folder import OTHER_SAMPLERS
from tintype.common.config import Json
from tintype.common.files import save_tensors, whole_folder
from tintype.common.keymap import KeyMap
from tintype.conditioning.bert import BertConditioner
from tintype.conditioning.text import TextConfig
from tintype.conditioning.tokenizer import vocabulary
from tintype.conditioning.towers import TextTowersConfig
from tintype.diffusion.names import DIFFUSERS
from tintype.diffusion.schedule import DDPMConfig
from tintype.families import diffusers_names
from tintype.families.base import Family, FamilyConfig, LatentDiffusion
from tintype.families.detect import family_of
from tintype.families.diffusers_configs import (
    SPACING_FLAGS,
    autoencoder_to,
    clip_text_to,
    plain_unet_to,
    schedule_to,
    token_transformer_to,
    unet_to,
)

log = logging.getLogger(__name__)

PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd1-inpainting": "StableDiffusionInpaintPipeline",
    "sd1-pix2pix": "StableDiffusionInstructPix2PixPipeline",
    "sd2": "StableDiffusionPipeline",
    "sd2-v": "StableDiffusionPipeline",
    "sd2-inpainting": "StableDiffusionInpaintPipeline",
    "sd2-upscaler": "StableDiffusionUpscalePipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sdxl-refiner": "StableDiffusionXLImg2ImgPipeline",
    "sdxl-inpainting": "StableDiffusionXLInpaintPipeline",
    "sdxl-pix2pix": "StableDiffusionXLInstructPix2PixPipeline",
    "ldm-text2img": "LDMTextToImagePipeline",
    "ldm-super-resolution": "LDMSuperResolutionPipeline",
    "ldm-unconditional": "LDMPipeline",
}
VERSION = "0.42.1"  # of diffusers, whose layout this is
WEIGHTS = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}


class Part(NamedTuple):
    """A network as a component of a pipeline."""

    name: str
    library: str
    kind: str
    settings: dict[str, Json]
    network: nn.Module
    names: KeyMap


def save_diffusers_folder(folder: Path, model: LatentDiffusion, *, dtype: torch.dtype) -> None:
    """It is there whole or not at all. Raises `ValueError` for a family that diffusers has no pipeline for, and when
    something of that name is there."""
    family = family_of(model.config)
    if family.config.name == "sd2-depth":
        raise ValueError(
            "diffusers' pipeline for sd2-depth holds a depth estimator, which the model here does not; expected a "
            "target in .safetensors"
        )
    if family.config.name not in PIPELINES:
        raise ValueError(f"diffusers has no pipeline for {family.config.name}; expected a target in .safetensors")
    if folder.exists():
        raise ValueError(f"{folder} is there already; expected a new name")
    if isinstance(model.conditioner, BertConditioner) and not model.conditioner.vocabulary.expanduser().is_file():
        raise ValueError(
            f"no {model.conditioner.vocabulary}; expected BERT's vocab.txt there, which the folder holds too"
        )
    parts = _parts(model, family)
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder) as temporary:
        index: dict[str, Json] = {"_class_name": PIPELINES[family.config.name], "_diffusers_version": VERSION}
        for part in parts:
            _write_part(temporary / part.name, part, dtype)
            index[part.name] = [part.library, part.kind]
        index |= _write_tokenizers(temporary, model) | _write_schedulers(temporary, model.config)
        _write_json(temporary / "model_index.json", index | _settings(model.config))


def _parts(model: LatentDiffusion, family: Family) -> list[Part]:
    config, networks = model.config, model.networks
    side = config.size // config.autoencoder.factor
    if config.unet.context_dim is None:
        kind, settings = "UNet2DModel", plain_unet_to(config.unet, sample_size=side)
    else:
        number_dim = config.conditioner.number_dim if isinstance(config.conditioner, TextTowersConfig) else 256
        settings = unet_to(config.unet, family.projection, sample_size=side, number_dim=number_dim)
        kind = "UNet2DConditionModel"
    names = diffusers_names.unet_names(config.unet, projection=family.projection)
    parts = [Part("unet", "diffusers", kind, settings, networks["unet"], names)]

    first_stage = "vqvae" if config.name.startswith("ldm-") else "vae"
    settings = autoencoder_to(config.autoencoder, config.space, sample_size=config.size)
    names = diffusers_names.autoencoder_names(config.autoencoder)
    parts.append(Part(first_stage, "diffusers", str(settings["_class_name"]), settings, model.autoencoder, names))

    for name, tower in zip(_tower_names(config), model.towers, strict=True):
        settings = clip_text_to(tower.encoder.config)
        kind = str(settings["architectures"][0]) if isinstance(settings["architectures"], list) else ""
        names = diffusers_names.clip_text_names(tower.encoder.config)
        parts.append(Part(name, "transformers", kind, settings, tower.encoder, names))
    if isinstance(model.conditioner, BertConditioner):
        encoder = model.conditioner.encoder
        names = diffusers_names.token_transformer_names(encoder.config)
        parts.append(
            Part("bert", "latent_diffusion", "LDMBertModel", token_transformer_to(encoder.config), encoder, names)
        )
    return parts


def _write_part(folder: Path, part: Part, dtype: torch.dtype) -> None:
    folder.mkdir()
    _write_json(folder / "config.json", part.settings)
    tensors = part.names.to_theirs(part.network.state_dict())
    if part.kind == "LDMBertModel":  # a head that transformers' class has and nobody uses
        width, words = tensors["model.embed_tokens.weight"].shape[::-1]
        tensors |= {"to_logits.weight": torch.zeros(words, width), "to_logits.bias": torch.zeros(words)}
    kinds = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    save_tensors(folder / WEIGHTS[part.library], kinds, texts={"format": "pt"})


def _tower_names(config: FamilyConfig) -> tuple[str, ...]:
    if isinstance(config.conditioner, TextTowersConfig):
        return ("text_encoder", "text_encoder_2")[-len(config.conditioner.towers) :]
    return ("text_encoder",) if isinstance(config.conditioner, TextConfig) else ()


def _write_tokenizers(folder: Path, model: LatentDiffusion) -> dict[str, Json]:
    """CLIP's vocabulary for each tower, with the sign that it pads with; BERT's own file."""
    index: dict[str, Json] = {}
    for tower_name, tower in zip(_tower_names(model.config), model.towers, strict=True):
        name = tower_name.replace("text_encoder", "tokenizer")
        index[name] = ["transformers", "CLIPTokenizer"]
        (folder / name).mkdir()
        pieces, merges = vocabulary()
        _write_json(folder / name / "vocab.json", dict[str, Json](pieces))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / name / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        signs: dict[str, Json] = {
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "!" if tower.config.pad == "zero" else "<|endoftext|>",
        }
        _write_json(folder / name / "special_tokens_map.json", signs)
        length: dict[str, Json] = {"model_max_length": tower.config.clip.context_length, "do_lower_case": True}
        _write_json(folder / name / "tokenizer_config.json", signs | length | {"tokenizer_class": "CLIPTokenizer"})
    if isinstance(model.conditioner, BertConditioner):
        index["tokenizer"] = ["transformers", "BertTokenizer"]
        (folder / "tokenizer").mkdir()
        shutil.copy(model.conditioner.vocabulary.expanduser(), folder / "tokenizer" / "vocab.txt")
        words: dict[str, Json] = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": model.conditioner.config.lowercase,
        }
        _write_json(folder / "tokenizer" / "tokenizer_config.json", words)
    return index


def _write_schedulers(folder: Path, config: FamilyConfig) -> dict[str, Json]:
    assert isinstance(config.schedule, DDPMConfig)  # as every released family's is
    kind, own = _scheduler(config.sampler)
    settings = schedule_to(config.schedule, config.prediction) | {"_class_name": kind} | own
    walked = config.scheduler if config.scheduler in ("leading", "trailing", "linspace") else None
    spacing = config.spacing or (None if walked == DIFFUSERS[kind].scheduler else walked)
    settings |= {} if spacing is None else {"timestep_spacing": spacing}  # else each class has its own
    settings |= {flag: True for flag, ours in SPACING_FLAGS.items() if ours in (config.scheduler, config.levels)}
    index: dict[str, Json] = {"scheduler": ["diffusers", kind]}
    (folder / "scheduler").mkdir()
    _write_json(folder / "scheduler" / "scheduler_config.json", settings)
    if config.name == "sd2-upscaler":  # noises the small picture
        low = schedule_to(DDPMConfig(start=0.0001, end=0.02), "eps")
        (folder / "low_res_scheduler").mkdir()
        _write_json(folder / "low_res_scheduler" / "scheduler_config.json", low | {"_class_name": "DDPMScheduler"})
        index["low_res_scheduler"] = ["diffusers", "DDPMScheduler"]
    return index


def _scheduler(sampler: str) -> tuple[str, dict[str, Json]]:
    """The class that samples so, and the settings that make it do it."""
    for (kind, setting, value), ours in OTHER_SAMPLERS.items():
        if sampler == ours:
            return kind, {setting: value}
    for kind, preset in DIFFUSERS.items():
        if sampler in (kind, preset.sampler):
            return kind, {"skip_prk_steps": True} if kind == "PNDMScheduler" else {}
    log.warning("no scheduler of diffusers samples as %s does; the folder says DDIMScheduler", sampler)
    return "DDIMScheduler", {}


def _settings(config: FamilyConfig) -> dict[str, Json]:
    """What else an index says."""
    none: list[Json] = [None, None]
    if isinstance(config.conditioner, TextTowersConfig):
        settings: dict[str, Json] = {"force_zeros_for_empty_prompt": config.conditioner.zeros_for_empty}
        if config.name == "sdxl-refiner":
            settings |= {"requires_aesthetics_score": True, "text_encoder": none, "tokenizer": none}
        return settings
    if config.name.startswith("ldm-"):
        return {}
    settings = {"safety_checker": none, "feature_extractor": none}
    return settings if config.name == "sd2-upscaler" else settings | {"requires_safety_checker": False}


def _write_json(path: Path, content: Mapping[str, Json]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
