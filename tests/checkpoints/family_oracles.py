"""diffusers' pipelines of every family of Stable Diffusion, small and with random weights, saved in both layouts."""

import dataclasses
from pathlib import Path

import diffusers
import torch
from clip_oracles import their_tokenizer
from diffusers import DDIMScheduler, DDPMScheduler, DiffusionPipeline
from network_oracles import randomize, their_autoencoder, their_clip_text, their_unet
from safetensors.torch import save_file
from torch import Tensor

from tintype.conditioning.text import TextConfig
from tintype.conditioning.towers import TextTowersConfig
from tintype.families import diffusers_names
from tintype.families.base import ConditionerConfig, Family, FamilyConfig
from tintype.families.detect import CLIP, OPEN_CLIP, TEXT_MODEL, XL_FIRST, family_of
from tintype.families.single_file import names
from tintype.families.stable_diffusion import FAMILIES
from tintype.models.unet import UNetConfig

PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd1-inpainting": "StableDiffusionInpaintPipeline",
    "sd1-pix2pix": "StableDiffusionInstructPix2PixPipeline",
    "sd2": "StableDiffusionPipeline",
    "sd2-v": "StableDiffusionPipeline",
    "sd2-inpainting": "StableDiffusionInpaintPipeline",
    "sd2-depth": "StableDiffusionDepth2ImgPipeline",
    "sd2-upscaler": "StableDiffusionUpscalePipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sdxl-inpainting": "StableDiffusionXLInpaintPipeline",
    "sdxl-pix2pix": "StableDiffusionXLInstructPix2PixPipeline",
    "sdxl-refiner": "StableDiffusionXLImg2ImgPipeline",
}
SD = {family.config.name: family for family in FAMILIES}
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}
SETTINGS = {"beta_schedule": "scaled_linear", "steps_offset": 1}
STABLE = {"set_alpha_to_one": False, "clip_sample": False}
UPSCALER_BETAS = {"beta_start": 0.0001, "beta_end": 0.02}  # x4-upscaling.yaml
BETAS = {"beta_start": 0.00085, "beta_end": 0.012}


def small(family: Family) -> FamilyConfig:
    """Of the same kind, levels and size of heads; a picture has 64 x 64 pixels."""
    config = family.config
    return dataclasses.replace(
        config,
        unet=_small_unet(config.unet, _small_conditioner(config.conditioner)),
        autoencoder=dataclasses.replace(
            config.autoencoder, width=32, num_blocks=1, mult=tuple(1 for _ in config.autoencoder.mult)
        ),
        conditioner=_small_conditioner(config.conditioner),
        size=64,
    )


def _small_unet(unet: UNetConfig, conditioner: ConditionerConfig) -> UNetConfig:
    widths = [tower.clip.width for tower in text_towers(conditioner)]
    numbers = 0
    if isinstance(conditioner, TextTowersConfig):
        numbers = sum(1 if name == "aesthetic_score" else 2 for name in conditioner.numbers) * conditioner.number_dim
    return dataclasses.replace(
        unet,
        width=64 if unet.head_dim else 32,
        mult=tuple(min(one, 2) for one in unet.mult),
        num_blocks=1,
        depth=tuple(min(one, 2) for one in unet.depth),
        middle_depth=min(unet.middle_depth, 2),
        context_dim=sum(widths),
        vector_dim=unet.vector_dim and widths[-1] + numbers,
    )


def _small_conditioner(config: ConditionerConfig | None) -> TextConfig | TextTowersConfig:
    match config:
        case TextConfig():
            return _small_tower(config)
        case TextTowersConfig():
            return dataclasses.replace(config, towers=tuple(_small_tower(one) for one in config.towers))
    raise AssertionError


def _small_tower(tower: TextConfig) -> TextConfig:
    """SD 2's keeps its layers: what is left out of a file is a layer of a certain number."""
    width = 128 if tower.pooled else 64
    layers = 23 if tower.pad == "zero" and not tower.pooled else 3
    clip = dataclasses.replace(tower.clip, width=width, num_heads=width // 64, num_layers=layers)
    return dataclasses.replace(tower, clip=dataclasses.replace(clip, projection_dim=width if tower.pooled else None))


def text_towers(conditioner: ConditionerConfig | None) -> tuple[TextConfig, ...]:
    return conditioner.towers if isinstance(conditioner, TextTowersConfig) else (conditioner,)


def pipeline(name: str) -> DiffusionPipeline:
    """With random weights; DDIM as Stable Diffusion's repositories configure it."""
    family, config = SD[name], small(SD[name])
    betas = UPSCALER_BETAS if name == "sd2-upscaler" else BETAS
    parts = {
        "vae": their_autoencoder(config.autoencoder),
        "unet": their_unet(config.unet, linear=family.projection == "linear"),
        "scheduler": DDIMScheduler(**SETTINGS, **STABLE, **betas, prediction_type=PREDICTIONS[config.prediction]),
    }
    parts["vae"].register_to_config(scaling_factor=config.space.scale[0])
    parts["unet"].register_to_config(sample_size=64 // config.autoencoder.factor)
    towers = text_towers(config.conditioner)
    suffixes = ["_2"] if name == "sdxl-refiner" else ["", "_2"][: len(towers)]
    for suffix, tower in zip(suffixes, towers, strict=True):
        parts[f"text_encoder{suffix}"] = their_clip_text(tower.clip)
        parts[f"tokenizer{suffix}"] = their_tokenizer("!" if tower.pad == "zero" else "<|endoftext|>")
    for seed, part in enumerate(part for part in parts.values() if isinstance(part, torch.nn.Module)):
        randomize(part, seed)
    made = getattr(diffusers, PIPELINES[name])(**parts, **_others(name))
    made.set_progress_bar_config(disable=True)
    return made


def _others(name: str) -> dict[str, object]:
    if name == "sd2-upscaler":
        return {"low_res_scheduler": DDPMScheduler(**UPSCALER_BETAS, beta_schedule="scaled_linear")}
    if name == "sd2-depth":
        return {"depth_estimator": None, "feature_extractor": None}
    if name == "sdxl-refiner":
        absent = {"text_encoder": None, "tokenizer": None}
        return {**absent, "requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}
    if name.startswith("sdxl"):
        return {"force_zeros_for_empty_prompt": True}
    return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def single_file(name: str, theirs: DiffusionPipeline) -> dict[str, Tensor]:
    """A pipeline's weights in LDM's layout, with what released files hold beside them."""
    family, config = SD[name], small(SD[name])
    unet = diffusers_names.unet_names(config.unet, projection=family.projection)
    autoencoder = diffusers_names.autoencoder_names(config.autoencoder)
    ours = _below("unet.", unet.to_ours(theirs.unet.state_dict()))
    ours |= _below("autoencoder.", autoencoder.to_ours(theirs.vae.state_dict()))
    towers = text_towers(config.conditioner)
    encoders = [part for key, part in theirs.components.items() if key.startswith("text_encoder") and part is not None]
    for number, (tower, encoder) in enumerate(zip(towers, encoders, strict=True)):
        place = f"conditioner.towers.{number}." if isinstance(config.conditioner, TextTowersConfig) else "conditioner."
        plain = {key.removeprefix(TEXT_MODEL): tensor for key, tensor in encoder.state_dict().items()}
        clip = diffusers_names.clip_text_names(tower.clip, prefix="")
        ours |= _below(f"{place}encoder.", clip.to_ours(plain))
    tensors = names(config, family_of(config)).to_theirs(ours)
    return {key: tensor.contiguous() for key, tensor in tensors.items()} | beside(name, tensors)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def beside(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What no network of ours wants."""
    found = {"betas": torch.zeros(1000), "alphas_cumprod": torch.zeros(1000), "model_ema.decay": torch.tensor(0.9999)}
    position_ids = torch.arange(77)[None]
    if any(key.startswith(CLIP) for key in tensors):
        found[f"{CLIP}text_model.embeddings.position_ids"] = position_ids
    if any(key.startswith(XL_FIRST) for key in tensors):
        found[f"{XL_FIRST}text_model.embeddings.position_ids"] = position_ids
        found[f"{XL_FIRST}text_projection.weight"] = torch.zeros(64, 64)
        found["conditioner.embedders.1.model.logit_scale"] = torch.tensor(4.6)
    if any(key.startswith(OPEN_CLIP) for key in tensors):
        layer = f"{OPEN_CLIP}transformer.resblocks.22."
        above = {key.replace(".22.", ".23."): tensor + 1 for key, tensor in tensors.items() if key.startswith(layer)}
        found |= above | {f"{OPEN_CLIP}text_projection": torch.randn(64, 64)}
        found[f"{OPEN_CLIP}logit_scale"] = torch.tensor(4.6)
    return found


def save_single_file(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path, metadata={"format": "pt"})
    return path
