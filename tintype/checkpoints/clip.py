"""Opens a CLIP: ours, or in transformers' or open_clip's layout."""

import re
from pathlib import Path

import torch

from tintype.checkpoints.fill import fill
from tintype.checkpoints.native import load_network, save_network
from tintype.checkpoints.tensors import TensorFile, open_tensors
from tintype.checkpoints.weight_files import weight_files
from tintype.common.device import usable_device
from tintype.common.files import METADATA_KEY
from tintype.common.keymap import KeyMap
from tintype.conditioning.clip import CLIPModel, CLIPModelConfig
from tintype.families.clip_configs import (
    clip_from_open_clip,
    clip_from_shapes,
    clip_from_transformers,
    layout_of,
    read_config,
)
from tintype.families.clip_names import open_clip_pair_names, transformers_clip_names
from tintype.models.clip import Activation
from tintype.models.clip_pair import CLIP, CLIPConfig
from tintype.nn.weightless import weightless

KIND = "clip"
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
BESIDE = re.compile(r"(text|vision)_model\.embeddings\.position_ids$")  # a buffer in older files of transformers


def save_clip(path: Path, config: CLIPModelConfig, weights: dict[str, torch.Tensor], *, dtype: torch.dtype) -> None:
    """One safetensors file with both towers, the temperature and, in its header, the configuration."""
    save_network(path, KIND, config, weights, dtype=dtype)


def load_clip(path: Path, *, device: str = "cpu", activation: Activation | None = None) -> CLIPModel:
    """A file that `save_clip` wrote; a folder of transformers (config.json) or open_clip (open_clip_config.json); or a
    file in either's names, whose shapes tell all but the activation: quick_gelu for OpenAI's weights, gelu for LAION's.

    float32, eval mode. Raises `ValueError` for what is none of these, not whole, or another kind of network.
    """
    if path.is_dir():
        network = _from_folder(path)
    else:
        file = open_tensors(path)
        if METADATA_KEY in file.metadata:
            return _ours(path, usable_device(device))
        layout = layout_of(file.shapes)
        if layout is None:
            raise ValueError(f"{path} holds no CLIP; expected both towers, in our names, transformers' or open_clip's")
        if activation is None:
            raise ValueError(
                f"{path}: its tensors do not tell the activation; say quick_gelu (OpenAI's weights) or gelu (LAION's), "
                "or open the folder with its config"
            )
        config = clip_from_shapes(file.shapes, layout, activation)
        names = transformers_clip_names if layout == "transformers" else open_clip_pair_names
        network = _filled(config, file, names(config))
    return CLIPModel(network.to(usable_device(device)))


def _ours(path: Path, device: str) -> CLIPModel:
    words: list[tuple[str, ...]] = []

    def build(config: CLIPModelConfig) -> CLIP:
        words.append(config.words)
        return CLIP(config.clip)

    network = load_network(path, KIND, CLIPModelConfig, build)
    return CLIPModel(network.to(device), words[0])


def _from_folder(folder: Path) -> CLIP:
    if (folder / OPEN_CLIP_CONFIG).is_file():
        config = clip_from_open_clip(read_config(folder / OPEN_CLIP_CONFIG))
        found = [folder / name for name in OPEN_CLIP_FILES if (folder / name).is_file()]
        if not found:
            raise ValueError(f"{folder} has no weights; expected one of {', '.join(OPEN_CLIP_FILES)}")
        return _filled(config, open_tensors(found[0]), open_clip_pair_names(config))
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no CLIP; expected config.json or {OPEN_CLIP_CONFIG} in it")
    pictures = folder / "preprocessor_config.json"
    told = read_config(pictures) if pictures.is_file() else {}
    config = clip_from_transformers(read_config(folder / "config.json"), told)
    return _filled(config, open_tensors(weight_files(folder)), transformers_clip_names(config))


def _filled(config: CLIPConfig, file: TensorFile, names: KeyMap) -> CLIP:
    with weightless():
        network = CLIP(config)
    try:
        fill({"clip": network}, file, names.below("clip.", ""), beside=BESIDE)
    except ValueError as error:
        raise ValueError(f"{file.where}: {error}") from error
    return network
