"""Weights on disk. `load` opens a model by name or path."""

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tintype.common.config import nearest
from tintype.common.device import usable_device
from tintype.common.registry import pick
from tintype.families.base import LatentDiffusion
from tintype.weights import embedded

if TYPE_CHECKING:
    from tintype.checkpoints.single_file import FirstStage
    from tintype.diffusion.scaling import Prediction
    from tintype.models.autoencoder import Autoencoder

Precision = Literal["float32", "float16", "bfloat16"]


def load(
    name: str | Path = "default",
    *,
    device: str | None = None,
    dtype: Precision = "float32",
    prediction: "Prediction | None" = None,
    vae: str | Path | None = None,
    variant: str | None = None,
) -> LatentDiffusion:
    """An embedded model's name; the path of a .safetensors or .ckpt file, of a folder in diffusers' layout or of one of
    ours; or, where there is no such path, a name on the Hugging Face hub.

    device: "cuda" where there is one, unless said. dtype: of the U-Net and the text towers; the autoencoder is float32.
    prediction: "eps" or "v", or diffusers' words, for files that do not tell (SD 2.x). vae: an autoencoder to take
    instead of the model's own. variant: of the weights in a diffusers folder ("fp16").

    Nothing in a file is run, and only a name on the hub is asked of a network. Raises `ValueError` when there is no
    such model, its weights are damaged, of another shape or not all there, or the device is not there.
    """
    import torch

    from tintype.checkpoints.diffusers_folder import INDEX, load_diffusers_folder
    from tintype.checkpoints.model_folder import CONFIG, load_model
    from tintype.checkpoints.single_file import load_single_file
    from tintype.diffusion.scaling import SCALINGS
    from tintype.families.diffusers_configs import PREDICTIONS

    device = usable_device(device)
    kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    precision = pick("dtype", dtype, kinds)
    if prediction is not None:
        known: dict[str, Prediction] = {**{str(one): one for one in SCALINGS}, **PREDICTIONS}
        prediction = pick("prediction", prediction, known)
    if str(name) in embedded():
        path = Path(str(resources.files("tintype.weights") / str(name)))
    else:
        path = _found(name, variant)
    if path.is_dir() and (path / CONFIG).is_file():
        for option, value in (("prediction", prediction), ("vae", vae), ("variant", variant)):
            if value is not None:
                raise ValueError(f"{option} {value}: {name} is a model folder of ours; leave it out")
        return load_model(path, device=device, dtype=precision)
    first_stage = None if vae is None else _first_stage(vae, device)
    if path.is_dir() and not (path / INDEX).is_file():
        within = f"; open {path / 'model'}" if (path / "model" / CONFIG).is_file() else ""  # what a run published
        raise ValueError(
            f"{path} is a folder without {INDEX} or {CONFIG}; expected a model in diffusers' layout or ours{within}"
        )
    if path.is_dir():
        return load_diffusers_folder(
            path, prediction=prediction, first_stage=first_stage, variant=variant, device=device, dtype=precision
        )
    return load_single_file(path, prediction=prediction, first_stage=first_stage, device=device, dtype=precision)


def _found(name: str | Path, variant: str | None = None) -> Path:
    from tintype.checkpoints.hub import fetched, is_hub_name

    path = Path(os.path.expanduser(name))
    if path.exists():
        return path
    if is_hub_name(str(name)):
        return fetched(str(name), variant=variant)
    raise ValueError(
        f"no model {str(name)!r}; expected {nearest(str(name), embedded())}, the path of a file or folder, or a name "
        "on the Hugging Face hub (owner/repository)"
    )


def load_autoencoder(name: str | Path, *, device: str | None = None) -> "Autoencoder":
    """A model's first stage, or one in a file or folder of its own: of ours, in LDM's layout or in diffusers'. float32.

    `name` is as in `load`. Raises `ValueError`.
    """
    from tintype.checkpoints.model_folder import AUTOENCODER, CONFIG
    from tintype.checkpoints.native import load_network
    from tintype.checkpoints.tensors import open_tensors
    from tintype.common.files import METADATA_KEY
    from tintype.models.autoencoder import Autoencoder, AutoencoderConfig

    device = usable_device(device)
    packaged = str(name) in embedded()
    path = Path(str(resources.files("tintype.weights") / str(name))) if packaged else _found(name)
    if path.is_dir() and (path / CONFIG).is_file():
        path = path / AUTOENCODER
    if path.is_file() and METADATA_KEY in open_tensors(path).metadata:
        return load_network(path, "autoencoder", AutoencoderConfig, Autoencoder).to(device)
    return _first_stage(path, device).network


def _first_stage(name: str | Path, device: str) -> "FirstStage":
    from tintype.checkpoints.diffusers_folder import load_first_stage_folder
    from tintype.checkpoints.single_file import load_first_stage

    path = _found(name)
    return load_first_stage_folder(path, device=device) if path.is_dir() else load_first_stage(path, device=device)
