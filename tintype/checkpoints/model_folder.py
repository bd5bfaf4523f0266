"""A whole model as a folder: `model.json` (the family's configuration) and one weight file a network."""

import hashlib
import json
import shutil
from pathlib import Path

import torch

from tintype.checkpoints.native import load_network, save_network
from tintype.common.config import from_json, to_json
from tintype.common.files import whole_folder
from tintype.conditioning.bert import BertConfig
from tintype.conditioning.class_label import ClassConfig
from tintype.conditioning.layout import LayoutConfig
from tintype.conditioning.spatial import SpatialConfig
from tintype.conditioning.text import TextConfig
from tintype.conditioning.towers import TextTowersConfig
from tintype.families.base import FamilyConfig, LatentDiffusion, assemble, make_conditioner
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.unet import UNet, UNetConfig

CONFIG = "model.json"
AUTOENCODER = "autoencoder.safetensors"
WEIGHTS = ("unet.safetensors", "conditioner.safetensors", AUTOENCODER)
CONDITIONER_KINDS = {  # as the header of the file says
    TextConfig: "text",
    TextTowersConfig: "text towers",
    BertConfig: "bert",
    LayoutConfig: "layout",
    ClassConfig: "class",
    SpatialConfig: "spatial",
}


def save_model(folder: Path, model: LatentDiffusion, *, dtype: torch.dtype) -> None:
    """Write the folder, weights as `dtype`; it is there whole or not at all. It replaces a model of the same name, but
    keeps what else lies there (a model card, say)."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = model.config
    with whole_folder(folder, replace=True) as temporary:
        for part, network in model.networks.items():
            own = getattr(config, part)
            kind = CONDITIONER_KINDS[type(own)] if part == "conditioner" else part
            save_network(temporary / f"{part}.safetensors", kind, own, network.state_dict(), dtype=dtype)
        (temporary / CONFIG).write_text(json.dumps(to_json(config), indent=1))
        if folder.exists():
            shutil.copytree(folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(CONFIG, *WEIGHTS))


def load_model(folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LatentDiffusion:
    """Raises `ValueError` naming the file that is missing, damaged or of another model."""
    _check_file(folder, CONFIG)
    try:
        config = from_json(FamilyConfig, json.loads((folder / CONFIG).read_text()))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG} is damaged ({error}); copy or download the folder again") from error
    files = [folder / name for name in _weights(config)]
    for file in files:
        _check_file(folder, file.name)
    unet_file, *conditioner_files, autoencoder_file = files
    unet = load_network(unet_file, "unet", UNetConfig, UNet)
    autoencoder = load_network(autoencoder_file, "autoencoder", AutoencoderConfig, Autoencoder)
    conditioner = None
    if config.conditioner is not None:
        kind = type(config.conditioner)
        conditioner = load_network(conditioner_files[0], CONDITIONER_KINDS[kind], kind, make_conditioner)
        conditioner = conditioner.to(device, dtype)
    networks = (unet, *([] if conditioner is None else [conditioner]), autoencoder)
    expected = (config.unet, *([] if conditioner is None else [config.conditioner]), config.autoencoder)
    for file, network, its in zip(files, networks, expected, strict=True):
        if network.config != its:
            raise ValueError(f"{file} is configured otherwise than {CONFIG} says; the folder mixes two models")
    return assemble(
        config,
        unet=unet.to(device, dtype),
        autoencoder=autoencoder.to(device),
        conditioner=conditioner,
        source=str(folder.resolve()),
        fingerprint=lambda: digest(folder, config),
    )


def _weights(config: FamilyConfig) -> tuple[str, ...]:
    return WEIGHTS if config.conditioner is not None else (WEIGHTS[0], WEIGHTS[-1])


def _check_file(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise ValueError(f"{folder} has no {name}; expected a folder with {CONFIG}, {', '.join(WEIGHTS)}")


def digest(folder: Path, config: FamilyConfig) -> str:
    """Ten hexadecimal digits that change with any weight or setting."""
    whole = hashlib.sha256()
    for file in (CONFIG, *_weights(config)):
        whole.update(hashlib.sha256((folder / file).read_bytes()).digest())
    return whole.hexdigest()[:10]
