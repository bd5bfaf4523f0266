"""Where networks compute."""

import re

import torch
from torch import Tensor


def usable_device(name: str | None = None) -> str:
    """`name` when it is a device of this machine; without a name a GPU where there is one, else the CPU.

    Raises `ValueError` for anything else.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if kind is None:
        raise ValueError(f"device {name!r}: expected cpu or cuda, or cuda:1 for the second of several")
    if name != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: PyTorch sees no CUDA device here; use cpu")
    if name != "cpu" and int(kind[1] or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r}: this machine has {torch.cuda.device_count()}, counted from cuda:0")
    return name


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; one of the CPU gets to a GPU through pinned memory, without waiting for its work."""
    if tensor.is_cpu and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
