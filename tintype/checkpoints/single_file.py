"""Whole models in one file in LDM's layout, read and written; autoencoders also in files of their own."""

import dataclasses
import re
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tintype.checkpoints.fill import fill, state
from tintype.checkpoints.model_folder import CONFIG
from tintype.checkpoints.native import read_header
from tintype.checkpoints.tensors import TensorFile, open_tensors
from tintype.common.config import Json, to_json
from tintype.common.files import METADATA_KEY, save_tensors
from tintype.common.hashes import digest
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.scaling import Prediction
from tintype.diffusion.schedule import DDPMConfig
from tintype.families import diffusers_names, ldm_names, single_file
from tintype.families.base import AnyConditioner, FamilyConfig, LatentDiffusion, assemble, make_conditioner
from tintype.families.detect import AUTOENCODER, check_whole, detect, family_of, fitted, tells
from tintype.families.diffusers_configs import PREDICTIONS
from tintype.families.shapes import DIFFUSERS_PLACES, LDM_PLACES, autoencoder_config, below
from tintype.families.single_file import BESIDE, averaged_names, expects_text_model
from tintype.models.autoencoder import Autoencoder
from tintype.models.unet import UNet
from tintype.nn.weightless import weightless

PREDICTION_KEY = "modelspec.prediction_type"  # of the safetensors metadata that Stability proposed


class FirstStage(NamedTuple):
    """An autoencoder that stands in for a checkpoint's own; `space` None: latents are wrapped as the family says."""

    network: Autoencoder
    space: LatentSpace | None
    paths: tuple[Path, ...]


class Networks(NamedTuple):
    """The parts of a model."""

    unet: UNet
    autoencoder: Autoencoder
    conditioner: AnyConditioner | None


def made(config: FamilyConfig, first_stage: FirstStage | None = None) -> Networks:
    """Without weights yet (on the meta device), but for an autoencoder that is given."""
    with weightless():
        autoencoder = first_stage.network if first_stage else Autoencoder(config.autoencoder)
        conditioner = None if config.conditioner is None else make_conditioner(config.conditioner)
        return Networks(UNet(config.unet), autoencoder, conditioner)


def load_single_file(
    path: Path,
    *,
    prediction: Prediction | None = None,
    first_stage: FirstStage | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LatentDiffusion:
    """The autoencoder is float32 whatever the rest is: SDXL's overflows in float16.

    Raises `ValueError` naming what is missing, unexpected or of another shape, and the family it was taken for.
    """
    file = open_tensors(path)
    if METADATA_KEY in file.metadata:
        whole = (path.parent / CONFIG).is_file()
        what = f"open the folder {path.parent}" if whole else "it makes no pictures alone: see docs/training.md"
        raise ValueError(f"{path} is one network of ours, {read_header(path).kind}; {what}")
    try:
        check_whole(file.shapes, autoencoder=first_stage is None)
        own = first_stage.network.config if first_stage else autoencoder_config(below(file.shapes, AUTOENCODER))
        family = detect(tells(file.shapes, own), prediction or _said_prediction(file))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    try:
        config = _as_said(file, fitted(file.shapes, family, own), first_stage)
        networks = made(config, first_stage)
        wanted: dict[str, nn.Module | None] = networks._asdict()
        if first_stage:
            del wanted["autoencoder"]
        fill(
            {part: network for part, network in wanted.items() if network is not None},
            file,
            single_file.names(config, family, text_model=expects_text_model(file.shapes)),
            dtypes={"unet": dtype, "conditioner": dtype},
            device=device,
            beside=re.compile(f"{BESIDE.pattern}|{AUTOENCODER}") if first_stage else BESIDE,
            renamed=averaged_names(file.shapes) if family.averaged else {},
        )
    except ValueError as error:
        raise ValueError(f"{path} looks most like the family {family.config.name}, but {error}") from error
    networks.autoencoder.to(device)
    paths = (path, *(first_stage.paths if first_stage else ()))
    return assemble(config, **networks._asdict(), source=str(path.resolve()), fingerprint=lambda: digest(paths))


def load_first_stage(path: Path, *, device: str = "cpu") -> FirstStage:
    """An autoencoder in a file of its own, in either layout, or that of a whole checkpoint. Raises `ValueError`."""
    file = open_tensors(path)
    whole = file.below(AUTOENCODER) if any(name.startswith(AUTOENCODER) for name in file.shapes) else file
    whole = whole.renamed(diffusers_names.modern_attention)
    theirs = any(name.startswith("encoder.down_blocks.") for name in whole.shapes)
    try:
        with weightless():
            network = Autoencoder(autoencoder_config(whole.shapes, DIFFUSERS_PLACES if theirs else LDM_PLACES))
        names = diffusers_names.autoencoder_names if theirs else ldm_names.autoencoder_names
        beside = re.compile(f"loss\\.|model_ema\\.|{BESIDE.pattern}")
        rules = names(network.config).below("autoencoder.", "")
        fill({"autoencoder": network}, whole, rules, device=device, beside=beside)
    except ValueError as error:
        raise ValueError(f"{path} is no autoencoder: {error}") from error
    return FirstStage(network, None, (path,))


def save_single_file(path: Path, model: LatentDiffusion, *, dtype: torch.dtype) -> None:
    """In LDM's layout, safetensors. What the family says and the file does not is lost: the size of pictures, the
    sampler. Raises `ValueError` for a model of a family that has no such layout, or that would open as another."""
    family = family_of(model.config)
    tensors = single_file.names(model.config, family).to_theirs(state(model.networks))
    _check_told(model.config, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    if isinstance(model.config.schedule, DDPMConfig) and model.config.schedule.zero_terminal_snr:
        tensors["ztsnr"] = torch.zeros(0)
    if model.space != family.config.space:
        tensors["scale_factor"] = torch.tensor(model.space.scale[0], dtype=torch.float64)
    said = {ours: theirs for theirs, ours in PREDICTIONS.items()}[model.config.prediction]
    save_tensors(path, tensors, texts={PREDICTION_KEY: said})


def _check_told(config: FamilyConfig, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises `ValueError` for a model that a file without configuration would be taken for another."""
    family = detect(tells(shapes, config.autoencoder), config.prediction)
    told = fitted(shapes, family, autoencoder_config(below(shapes, AUTOENCODER)))
    if isinstance(told.schedule, DDPMConfig) and isinstance(config.schedule, DDPMConfig):  # a mark in the file tells
        schedule = dataclasses.replace(told.schedule, zero_terminal_snr=config.schedule.zero_terminal_snr)
        told = dataclasses.replace(told, schedule=schedule)
    told = dataclasses.replace(told, space=dataclasses.replace(told.space, scale=config.space.scale[:1]))  # likewise
    for part in ("unet", "autoencoder", "conditioner", "schedule", "space"):
        others = differing(to_json(getattr(told, part)), to_json(getattr(config, part)), part)
        if others:
            raise ValueError(
                f"one file does not tell that {', '.join(others)} (it would open as {family.config.name}); expected a "
                "folder as target"
            )


def differing(usual: Json, own: Json, name: str) -> list[str]:
    """The fields that are not as usual, as "unet.num_heads is 4, not 8"."""
    if isinstance(usual, dict) and isinstance(own, dict):
        pairs = ((key, usual.get(key), own.get(key)) for key in usual | own)
        return [line for key, one, other in pairs for line in differing(one, other, f"{name}.{key}")]
    if isinstance(usual, list) and isinstance(own, list) and any(isinstance(one, dict) for one in own):
        numbered = enumerate(zip_longest(usual, own))
        return [line for number, both in numbered for line in differing(*both, f"{name}.{number}")]
    return [] if usual == own else [f"{name} is {own}, not {usual}"]


def _said_prediction(file: TensorFile) -> Prediction | None:
    """What the file itself says, which few do."""
    if "v_pred" in file.shapes:
        return "v"
    said = file.metadata.get(PREDICTION_KEY, "")
    return "v" if said == "v" else PREDICTIONS.get(said)


def _as_said(file: TensorFile, config: FamilyConfig, first_stage: FirstStage | None) -> FamilyConfig:
    """With the scale of latents, and the zero terminal signal, of a file that holds them."""
    if first_stage is not None and first_stage.space is not None:
        config = dataclasses.replace(config, space=first_stage.space)
    elif "scale_factor" in file.shapes:
        config = dataclasses.replace(config, space=LatentSpace(scale=(float(file.read("scale_factor")),)))
    if "ztsnr" in file.shapes and isinstance(config.schedule, DDPMConfig):
        config = dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, zero_terminal_snr=True))
    return config
