"""The weights of LPIPS from files that the user has: VGG16's as torchvision names them, lpips's of the channels."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from tintype.checkpoints.native import load_strict
from tintype.checkpoints.tensors import open_tensors
from tintype.models.lpips import LPIPS, lpips_names


def load_lpips(files: Sequence[Path]) -> LPIPS:
    """From torchvision's `vgg16-397923af.pth` and lpips's `weights/v0.1/vgg.pth`, or from one file of both (the state
    of an `lpips.LPIPS` module), .pth or .safetensors; what else they hold is left alone.

    Raises `ValueError` for a file that is damaged or not only tensors, and for weights that are not there or of another
    network.
    """
    where = ", ".join(map(str, files)) or "no file"
    opened = [open_tensors(file) for file in files]
    found = {name: file for file in opened for name in file.tensors}
    state: dict[str, Tensor] = {}
    for ours, theirs in lpips_names().items():
        name = next((name for name in (ours, *theirs) if name in found), None)
        if name is None:
            wanted = "torchvision's vgg16-397923af.pth" if ours.startswith("convs") else "lpips's weights/v0.1/vgg.pth"
            raise ValueError(f"{where}: no {theirs[0]} for LPIPS; expected {wanted} among the files")
        value = found[name].read(name).float()
        state[ours] = value.flatten() if ours.startswith("weights") else value
    network = LPIPS()
    load_strict(network, state, where)
    return network.requires_grad_(False).eval()
