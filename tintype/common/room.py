"""How much memory there is to work in."""

from pathlib import Path

import psutil
import torch

GROUP = Path("/sys/fs/cgroup")  # of a container: what its processes may use together


def free_memory(device: torch.device) -> int:
    """Bytes that a device could still give; of the CPU those that the system, or the container, could free for a new
    program, of a GPU also those that PyTorch keeps for later."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    free = psutil.virtual_memory().available
    try:
        limit, used = ((GROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        return free if limit == "max" else min(free, int(limit) - int(used))
    except (OSError, ValueError):  # no container
        return free
