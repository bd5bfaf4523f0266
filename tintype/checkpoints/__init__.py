"""Weights on disk. `load` opens a model by name or path."""

import os
from importlib import resources
from pathlib import Path

from tintype.common.config import nearest
from tintype.common.device import usable_device
from tintype.families.base import LatentDiffusion


def embedded() -> list[str]:
    """Names of the models inside the package."""
    return sorted(
        entry.name for entry in resources.files("tintype.weights").iterdir() if (entry / "model.json").is_file()
    )


def load(name: str | Path = "default", *, device: str | None = None) -> LatentDiffusion:
    """An embedded model's name, or the path of a model folder; on a GPU where there is one, or on `device`.

    Raises `ValueError` when the name is neither, the weights are damaged or the device is not there.
    """
    from tintype.checkpoints.model_folder import load_model

    name = str(name)
    device = usable_device(device)
    with resources.as_file(resources.files("tintype.weights")) as weights:
        if name in embedded():
            return load_model(weights / name, device=device)
        path = Path(os.path.expanduser(name))
        if path.is_dir():
            return load_model(path, device=device)
    if path.exists():
        raise ValueError(
            f"{name} is a file; expected a model folder (model.json and weights) or {nearest('', embedded())}"
        )
    raise ValueError(f"no model {name!r}; expected {nearest(name, embedded())}, or the path of a model folder")
