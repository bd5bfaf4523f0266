"""From any layout that opens to any other."""

from pathlib import Path
from typing import Literal

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

Layout = Literal["single", "diffusers", "tintype"]
LAYOUTS = {"single": save_single_file, "diffusers": save_diffusers_folder, "tintype": save_model}


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
    if target.exists():
        raise ValueError(f"{target} is there already; expected a new name")
    chosen = layout or ("single" if target.suffix == ".safetensors" else "diffusers")
    save = pick("layout", chosen, LAYOUTS)
    if (chosen == "single") != (target.suffix == ".safetensors") or target.suffix in (".ckpt", ".pt", ".bin"):
        raise ValueError(f"{target}: expected a name in .safetensors for one file, and no such ending for a folder")
    model = load(source, device="cpu", prediction=prediction, vae=vae, variant=variant)
    if not target.resolve().parent.is_dir():
        raise ValueError(f"{target.resolve().parent} is no folder; expected one that is there")
    save(target, model, dtype=_precision(Path(model.source), dtype, variant))


def _precision(source: Path, asked: str | None, variant: str | None) -> torch.dtype:
    kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if asked is not None:
        return pick("dtype", asked, kinds)
    if source.is_file():
        return open_tensors(source).dtype(ENTRANCE)
    if (source / INDEX).is_file():
        file = open_tensors(weight_files(source / "unet", variant))
    else:
        file = open_tensors(source / "unet.safetensors")
    return file.dtype(next(iter(file.tensors)))
