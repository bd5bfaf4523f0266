"""How much memory there is to work in."""

import psutil
import torch


def free_memory(device: torch.device) -> int:
    """Bytes that a device could still give; of the CPU those that the system could free for a new program."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
