"""A part of a prepared data set: `selection.safetensors` names it and the samples that are kept, nothing is copied."""

import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tintype.common.config import from_json, to_json
from tintype.common.files import load_metadata, load_tensors, save_tensors
from tintype.data.prepared import Prepared
from tintype.data.views import Part

SELECTION = "selection.safetensors"


def save_selection(folder: Path, prepared: Prepared, kept: NDArray[np.int64]) -> None:
    """Write which samples of `prepared` are kept. Its path is told relative to `folder`, so that both may move."""
    told = {"prepared": os.path.relpath(prepared.folder, folder), "digest": prepared.info.digest}
    save_tensors(folder / SELECTION, {"kept": torch.from_numpy(kept)}, to_json(told))


def open_selection(folder: Path) -> tuple[Part, str]:
    """The samples, and a digest of them. Raises `ValueError` when what they are selected from is not as it was."""
    path = folder / SELECTION
    told = from_json(dict[str, str], load_metadata(path))
    prepared = Prepared(Path(os.path.normpath(folder / told["prepared"])))
    if prepared.info.digest != told["digest"]:
        raise ValueError(
            f"{path} was selected from another {prepared.folder} than is there now; expected that data set unchanged: "
            "filter it again"
        )
    kept = load_tensors(path)["kept"].numpy()
    return Part(prepared, kept), sha256(told["digest"].encode() + kept.astype("<i8").tobytes()).hexdigest()
