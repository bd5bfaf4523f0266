"""Models as folders in diffusers' layout: a sub-folder a component, each with a `config.json` and its weights."""

import dataclasses
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import nn

from tintype.checkpoints.fill import fill
from tintype.checkpoints.single_file import FirstStage, made
from tintype.checkpoints.tensors import open_tensors
from tintype.checkpoints.weight_files import weight_files
from tintype.common.config import Json
from tintype.common.hashes import digest
from tintype.common.keymap import KeyMap
from tintype.conditioning.bert import BertConditioner, BertConfig
from tintype.conditioning.text import TextConfig
from tintype.conditioning.towers import TextTowersConfig
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.names import DIFFUSERS
from tintype.diffusion.scaling import Prediction
from tintype.families import diffusers_names
from tintype.families.base import (
    ConditionerConfig,
    ConditionerKind,
    FamilyConfig,
    LatentDiffusion,
    Tells,
    assemble,
    suited,
    towers,
)
from tintype.families.detect import detect
from tintype.families.diffusers_configs import (
    SPACING_FLAGS,
    Config,
    autoencoder_from,
    clip_text_from,
    number_dim_from,
    plain_unet_from,
    schedule_from,
    token_transformer_from,
    unet_from,
)
from tintype.families.diffusers_names import Projection
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.unet import UNetConfig
from tintype.nn.weightless import weightless

log = logging.getLogger(__name__)

INDEX = "model_index.json"
BESIDE = re.compile(
    r"(.*\.)?position_ids$|logit_scale$|to_logits\.|visual_projection|vision_model\.|text_projection\.weight$"
)
UNSCALED = ("LDMSuperResolutionPipeline",)  # that decode latents as they are, whatever the autoencoder's file says
ASSUMED: Config = {  # what Stable Diffusion's own files say, and our presets of the classes
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "thresholding": False,
    "final_sigmas_type": "zero",
    "solver_order": 2,
    "lower_order_final": True,
    "interpolation_type": "linear",
    "timestep_type": "discrete",
}
SOLVERS: Config = {"UniPCMultistepScheduler": "bh2", "DEISMultistepScheduler": "logrho"}
OTHER_SAMPLERS: dict[tuple[str, str, Json], str] = {  # that a class is by one of its settings
    ("PNDMScheduler", "skip_prk_steps", False): "pndm",
    ("DPMSolverMultistepScheduler", "algorithm_type", "sde-dpmsolver++"): "dpmpp_2m_sde",
}
UNSAID: Config = {"skip_prk_steps": False}  # what those classes take where a file does not say


class Component(NamedTuple):
    """One of a pipeline's parts: where it lies and what its configuration says."""

    folder: Path
    config: Config

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def kind(self) -> str:
        return str(self.config.get("_class_name"))


class Pipeline(NamedTuple):
    """What `model_index.json` names."""

    folder: Path
    settings: Config
    unet: Component
    autoencoder: Component
    scheduler: Component
    towers: tuple[Component, ...]
    bert: Component | None


class Filling(NamedTuple):
    """A network that a component's weights go into; `modern` makes older spellings of their names the present one."""

    component: Component
    network: nn.Module
    names: KeyMap
    modern: Callable[[str], str] = str
    dtype: torch.dtype = torch.float32


def load_diffusers_folder(
    folder: Path,
    *,
    prediction: Prediction | None = None,
    first_stage: FirstStage | None = None,
    variant: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LatentDiffusion:
    """variant: of the weights ("fp16"); unasked the plain ones, or the only ones there are. The autoencoder is float32.

    Raises `ValueError` naming the component and what in it is missing, unexpected, or beyond our networks.
    """
    pipeline = read_pipeline(folder)
    try:
        config, projection = family_config(pipeline, prediction, first_stage)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{folder}: {error}") from error
    networks = made(config, first_stage)
    names = diffusers_names.unet_names(config.unet, projection=projection)
    fillings = [Filling(pipeline.unet, networks.unet, names, dtype=dtype)]
    if first_stage is None:
        names = diffusers_names.autoencoder_names(config.autoencoder)
        fillings.append(Filling(pipeline.autoencoder, networks.autoencoder, names, diffusers_names.modern_attention))
    if isinstance(networks.conditioner, BertConditioner) and pipeline.bert is not None:
        networks.conditioner.vocabulary = folder / "tokenizer" / "vocab.txt"
        names = diffusers_names.token_transformer_names(networks.conditioner.encoder.config)
        fillings.append(Filling(pipeline.bert, networks.conditioner.encoder, names, dtype=dtype))
    for component, tower in zip(pipeline.towers, towers(networks.conditioner), strict=True):
        names = diffusers_names.clip_text_names(tower.encoder.config, prefix="")
        fillings.append(Filling(component, tower.encoder, names, _without_level, dtype))
    read = [path for filling in fillings for path in _fill(filling, variant, device)]
    networks.autoencoder.to(device)
    paths = [*read, *(first_stage.paths if first_stage else ())]
    return assemble(config, **networks._asdict(), source=str(folder.resolve()), fingerprint=lambda: digest(paths))


def load_first_stage_folder(folder: Path, *, variant: str | None = None, device: str = "cpu") -> FirstStage:
    """An autoencoder in a folder of its own, or the one of a whole pipeline. Raises `ValueError`."""
    component = read_pipeline(folder).autoencoder if (folder / INDEX).is_file() else _component(folder)
    config, space = autoencoder_from(component.config)
    with weightless():
        network = Autoencoder(config)
    names = diffusers_names.autoencoder_names(config)
    paths = _fill(Filling(component, network, names, diffusers_names.modern_attention), variant, device)
    return FirstStage(network, space, tuple(paths))


def read_pipeline(folder: Path) -> Pipeline:
    """Raises `ValueError` for a folder without an index, a U-Net or an autoencoder."""
    settings = _json(folder / INDEX)
    autoencoder = "vqvae" if (folder / "vqvae").is_dir() else "vae"
    towers = [name for name in ("text_encoder", "text_encoder_2") if names_class(settings, name)]
    return Pipeline(
        folder=folder,
        settings=settings,
        unet=_component(folder / "unet"),
        autoencoder=_component(folder / autoencoder),
        scheduler=Component(folder / "scheduler", _json(folder / "scheduler" / "scheduler_config.json")),
        towers=tuple(_component(folder / name) for name in towers),
        bert=_component(folder / "bert") if names_class(settings, "bert") else None,
    )


def names_class(settings: Config, part: str) -> bool:
    """Whether the index names a class for it; an absent part is there as [null, null] or not at all."""
    entry = settings.get(part)
    return isinstance(entry, list) and any(one is not None for one in entry)


def _fill(filling: Filling, variant: str | None, device: str) -> tuple[Path, ...]:
    component, network, names, modern, dtype = filling
    file = open_tensors(weight_files(component.folder, variant)).renamed(modern)
    try:
        fill({"it": network}, file, names.below("it.", ""), dtypes={"it": dtype}, device=device, beside=BESIDE)
    except ValueError as error:
        raise ValueError(f"{component.folder}: {error}") from error
    return file.paths


def _without_level(name: str) -> str:
    return name.removeprefix("text_model.")


def _component(folder: Path) -> Component:
    return Component(folder, _json(folder / "config.json"))


def _json(path: Path) -> Config:
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; expected a folder in diffusers' layout") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy or download it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged; expected an object; copy or download it again")
    return cast("Config", found)


# From a pipeline's configurations to a family's


def family_config(
    pipeline: Pipeline, prediction: Prediction | None, first_stage: FirstStage | None
) -> tuple[FamilyConfig, Projection]:
    """And how its U-Net keeps the layers around attention. Raises `ValueError` for what our networks do not do."""
    unet, projection = _unet(pipeline.unet)
    autoencoder, space = autoencoder_from(pipeline.autoencoder.config)
    if first_stage is not None:
        autoencoder, space = first_stage.network.config, first_stage.space or space
    schedule, said = schedule_from(pipeline.scheduler.config)
    kind = _kind(pipeline, projection)
    if unet.context_dim is not None and kind == "none":
        raise ValueError("unet reads a context, and the index names no text encoder that would give it one")
    found = Tells(
        conditioner=kind,
        extra_channels=unet.in_channels - autoencoder.latent_channels,
        codebook=autoencoder.codebook_size is not None,
        levels=len(autoencoder.mult),
        classes=unet.num_classes is not None,
    )
    released = detect(found, prediction or said).config
    config = dataclasses.replace(
        released,
        unet=unet,
        autoencoder=autoencoder,
        conditioner=_conditioner(pipeline, released.conditioner),
        schedule=schedule,
        space=LatentSpace(scale=(1.0,)) if pipeline.settings.get("_class_name") in UNSCALED else space,
        size=_size(pipeline, autoencoder, released),
    )
    return _sampled_as(suited(config), pipeline.scheduler), projection


def _unet(component: Component) -> tuple[UNetConfig, Projection]:
    if component.kind == "UNet2DModel":
        return plain_unet_from(component.config), "linear"
    return unet_from(component.config)


def _kind(pipeline: Pipeline, projection: Projection) -> ConditionerKind:
    match [tower.name for tower in pipeline.towers]:
        case ["text_encoder", "text_encoder_2"]:
            return "clip_and_open_clip"
        case ["text_encoder_2"]:
            return "open_clip_pooled"
        case ["text_encoder"]:
            return "clip" if projection == "conv" else "open_clip"
        case _:
            return "none" if pipeline.bert is None else "bert"


def _conditioner(pipeline: Pipeline, released: ConditionerConfig | None) -> ConditionerConfig | None:
    """The released family's, with the networks and the padding of this pipeline."""
    match released:
        case TextConfig():
            return _tower(pipeline.towers[0], released)
        case TextTowersConfig():
            pairs = zip(pipeline.towers, released.towers, strict=True)
            zeros = pipeline.settings.get("force_zeros_for_empty_prompt", released.zeros_for_empty)
            return dataclasses.replace(
                released,
                towers=tuple(_tower(*pair) for pair in pairs),
                number_dim=number_dim_from(pipeline.unet.config),
                zeros_for_empty=zeros is True,
            )
        case BertConfig() if pipeline.bert is not None:
            return dataclasses.replace(released, encoder=token_transformer_from(pipeline.bert.config))
        case _:
            return released


def _tower(component: Component, released: TextConfig) -> TextConfig:
    clip = clip_text_from(component.config)
    if not released.pooled:
        clip = dataclasses.replace(clip, projection_dim=None)
    tokenizer = component.folder.parent / component.name.replace("text_encoder", "tokenizer")
    signs = [
        _json(file)
        for file in (tokenizer / "tokenizer_config.json", tokenizer / "special_tokens_map.json")
        if file.is_file()
    ]
    found = [one.get("pad_token") for one in signs]
    pads = [sign.get("content") if isinstance(sign, dict) else sign for sign in found]
    pad = "zero" if "!" in pads else "end" if "<|endoftext|>" in pads else released.pad
    return dataclasses.replace(released, clip=clip, pad=pad)


def _size(pipeline: Pipeline, autoencoder: AutoencoderConfig, released: FamilyConfig) -> int:
    side = pipeline.unet.config.get("sample_size")
    return side * autoencoder.factor if isinstance(side, int) else released.size


def _sampled_as(config: FamilyConfig, scheduler: Component) -> FamilyConfig:
    """Sampled as the folder says, where that is a sampler we know; its spacings also go for samplers asked for by
    name, as with `from_config`."""
    spacing = _optional_word(scheduler, "timestep_spacing")
    if spacing not in (None, "leading", "trailing", "linspace"):
        raise ValueError(f"scheduler: timestep_spacing is {spacing!r}; expected leading, trailing or linspace")
    levels = next((ours for flag, ours in SPACING_FLAGS.items() if scheduler.config.get(flag) is True), None)
    config = dataclasses.replace(config, spacing=spacing, levels=levels)
    if scheduler.kind not in DIFFUSERS:
        log.warning("%s: no sampler %s here; sampled as %s", scheduler.folder, scheduler.kind, config.sampler)
        return config
    for name, value in ({**ASSUMED, "solver_type": SOLVERS.get(scheduler.kind, "midpoint")}).items():
        if scheduler.config.get(name, value) != value:
            log.warning("%s: %s is %s; taken as %s", scheduler.folder, name, scheduler.config[name], value)
    own = DIFFUSERS[scheduler.kind]
    walked = None if own.firm else spacing  # which has its own, whatever the file says
    usual = levels if levels is not None and own.flagged else walked
    return dataclasses.replace(config, sampler=_sampler(scheduler), scheduler=usual)


def _sampler(scheduler: Component) -> str:
    for (kind, setting, value), ours in OTHER_SAMPLERS.items():
        if scheduler.kind == kind and scheduler.config.get(setting, UNSAID.get(setting)) == value:
            return ours
    return scheduler.kind


def _optional_word(component: Component, name: str) -> str | None:
    word = component.config.get(name)
    if word is not None and not isinstance(word, str):
        raise ValueError(f"{component.name}: {name} is {word!r}; expected a word")
    return word
