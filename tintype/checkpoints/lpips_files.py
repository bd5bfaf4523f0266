"""The weights of LPIPS from files that the user has: VGG16's as torchvision names them, lpips's of the channels."""

import pickle
import struct
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tintype.checkpoints.native import load_strict
from tintype.checkpoints.tensors import open_tensors
from tintype.models.lpips import LPIPS, lpips_names

# How torch.save began before version 1.6, and these files do
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
DAMAGE = (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, pickle.UnpicklingError, struct.error)


def load_lpips(files: Sequence[Path]) -> LPIPS:
    """From torchvision's `vgg16-397923af.pth` and lpips's `weights/v0.1/vgg.pth`, or from one file of both (the state
    of an `lpips.LPIPS` module), .pth or .safetensors; what else they hold is left alone.

    Raises `ValueError` for a file that is damaged or not only tensors, and for weights that are not there or of another
    network.
    """
    where = ", ".join(map(str, files)) or "no file"
    found = {name: value for file in files for name, value in _tensors(file).items()}
    state: dict[str, Tensor] = {}
    for ours, theirs in lpips_names().items():
        name = next((name for name in (ours, *theirs) if name in found), None)
        if name is None:
            wanted = "torchvision's vgg16-397923af.pth" if ours.startswith("convs") else "lpips's weights/v0.1/vgg.pth"
            raise ValueError(f"{where}: no {theirs[0]} for LPIPS; expected {wanted} among the files")
        value = found[name].float()
        state[ours] = value.flatten() if ours.startswith("weights") else value
    network = LPIPS()
    load_strict(network, state, where)
    return network.requires_grad_(False).eval()


def _tensors(file: Path) -> dict[str, Tensor]:
    """Old files are read by torch's restricted unpickler, which makes tensors and plain values only."""
    try:
        with file.open("rb") as opened:
            legacy = opened.read(len(LEGACY)) == LEGACY
        if not legacy:
            tensors = open_tensors(file)
            return {name: tensors.read(name) for name in tensors.tensors}
        content: object = torch.load(file, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise ValueError(f"{file} cannot be read as weights ({error}); copy or download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no tensors by name; expected a state dict")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
