"""A whole model as a folder: `model.json` (the family's configuration) and one weight file a network."""

import hashlib
import json
import shutil
from pathlib import Path

import torch

from tintype.checkpoints.native import load_network, save_network
from tintype.common.config import from_json, to_json
from tintype.common.files import whole_folder
from tintype.conditioning.text import TextConditioner, TextConfig
from tintype.families.base import FamilyConfig, LatentDiffusion, assemble
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.unet import UNet, UNetConfig

CONFIG = "model.json"
AUTOENCODER = "autoencoder.safetensors"
WEIGHTS = ("unet.safetensors", "conditioner.safetensors", AUTOENCODER)


def save_model(folder: Path, model: LatentDiffusion, *, dtype: torch.dtype) -> None:
    """Write the folder, weights as `dtype`; it is there whole or not at all. It replaces a model of the same name, but
    keeps what else lies there (a model card, say)."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    assert isinstance(model.denoiser.network, UNet)
    networks = (
        ("unet", model.config.unet, model.denoiser.network),
        ("text", model.config.conditioner, model.conditioner),
        ("autoencoder", model.config.autoencoder, model.autoencoder),
    )
    with whole_folder(folder, replace=True) as temporary:
        for (kind, config, network), file in zip(networks, WEIGHTS, strict=True):
            save_network(temporary / file, kind, config, network.state_dict(), dtype=dtype)
        (temporary / CONFIG).write_text(json.dumps(to_json(model.config), indent=1))
        if folder.exists():
            shutil.copytree(folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(CONFIG, *WEIGHTS))


def load_model(folder: Path, *, device: str = "cpu") -> LatentDiffusion:
    """Raises `ValueError` naming the file that is missing, damaged or of another model."""
    for file in (CONFIG, *WEIGHTS):
        if not (folder / file).is_file():
            raise ValueError(f"{folder} has no {file}; expected a folder with {CONFIG}, {', '.join(WEIGHTS)}")
    try:
        config = from_json(FamilyConfig, json.loads((folder / CONFIG).read_text()))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG} is damaged ({error}); copy or download the folder again") from error
    unet_file, conditioner_file, autoencoder_file = (folder / file for file in WEIGHTS)
    unet = load_network(unet_file, "unet", UNetConfig, UNet)
    text = load_network(conditioner_file, "text", TextConfig, TextConditioner)
    autoencoder = load_network(autoencoder_file, "autoencoder", AutoencoderConfig, Autoencoder)
    for file, own, expected in (
        (unet_file, unet.config, config.unet),
        (conditioner_file, text.config, config.conditioner),
        (autoencoder_file, autoencoder.config, config.autoencoder),
    ):
        if own != expected:
            raise ValueError(f"{file} is configured otherwise than {CONFIG} says; the folder mixes two models")
    return assemble(
        config,
        unet=unet.to(device),
        autoencoder=autoencoder.to(device),
        conditioner=text.to(device),
        source=str(folder.resolve()),
        digest=digest(folder),
    )


def digest(folder: Path) -> str:
    """Ten hexadecimal digits that change with any weight or setting."""
    whole = hashlib.sha256()
    for file in (CONFIG, *WEIGHTS):
        whole.update(hashlib.sha256((folder / file).read_bytes()).digest())
    return whole.hexdigest()[:10]
