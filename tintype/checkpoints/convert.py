"""From any layout that opens to any other."""

import re
from pathlib import Path

import torch

from tintype.checkpoints import load
from tintype.checkpoints.diffusers_folder import INDEX
from tintype.checkpoints.diffusers_write import save_diffusers_folder
from tintype.checkpoints.model_folder import save_model
from tintype.checkpoints.single_file import save_single_file
from tintype.checkpoints.tensors import open_tensors
from tintype.checkpoints.weight_files import weight_files
from tintype.common.registry import pick
from tintype.diffusion.scaling import Prediction
from tintype.families.detect import ENTRANCE

LAYOUTS = {"single": save_single_file, "diffusers": save_diffusers_folder, "tintype": save_model}
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WEIGHTS = (".ckpt", ".pt", ".pth", ".bin")  # that are pickles, which nobody should be sent any more


def convert(
    source: str | Path,
    target: Path,
    *,
    layout: str | None = None,
    dtype: str | None = None,
    prediction: Prediction | None = None,
    vae: str | Path | None = None,
    variant: str | None = None,
) -> None:
    """Write the model again: layout "single" (one file in LDM's layout, unasked for a target in .safetensors),
    "diffusers" (a folder) or "tintype". dtype: of the weights, unasked that of the source's U-Net.

    Raises `ValueError` for what `load` refuses, a target that is there, or one that the layout cannot be.
    """
    save, precision = pick("layout", _layout(target, layout), LAYOUTS), None
    if dtype is not None:
        precision = pick("dtype", dtype, PRECISIONS)
    model = load(source, device="cpu", prediction=prediction, vae=vae, variant=variant)
    save(target, model, dtype=precision or _precision(Path(model.source), variant))


def _layout(target: Path, asked: str | None) -> str:
    """Raises `ValueError` for a target that is there, lies nowhere, or is named as another kind of file."""
    single = target.suffix == ".safetensors"
    layout = asked or ("single" if single else "diffusers")
    if target.exists():
        raise ValueError(f"{target} is there already; expected a new name")
    if not target.resolve().parent.is_dir():
        raise ValueError(f"{target.resolve().parent} is no folder; expected one that is there")
    named = not single and re.fullmatch(r"\.[A-Za-z]+", target.suffix) is not None
    if (layout == "single") != single or target.suffix in WEIGHTS or (named and asked is None):
        raise ValueError(
            f"{target}: expected a name in .safetensors for one file, and no such ending for a folder"
            + (" (or say --layout diffusers)" if named and target.suffix not in WEIGHTS else "")
        )
    return layout


def _precision(source: Path, variant: str | None) -> torch.dtype:
    """That of the U-Net in the source, or the least of ours that holds it."""
    if source.is_file():
        stored = open_tensors(source).dtype(ENTRANCE)
    else:
        folder = (source / INDEX).is_file()
        file = open_tensors(weight_files(source / "unet", variant) if folder else source / "unet.safetensors")
        stored = file.dtype(next(iter(file.tensors)))
    if stored in PRECISIONS.values():
        return stored
    return torch.float16 if stored.itemsize == 1 else torch.float32
