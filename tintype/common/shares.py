"""Tensors of which each process may have a share, some rows (DTensors of one dimension of processes).

What makes shares is imported where it is used: it takes PyTorch seconds, and only `train.parallel=fsdp` needs it.
"""

from collections.abc import Iterable

from torch import Tensor


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a shared tensor, in place; another as it is."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A shared tensor put together, when all processes ask for it; another as it is."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, shared out as the other is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def by_kind(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Those that are shared and those that are not: an optimizer cannot compute with both at once."""
    from torch.distributed.tensor import DTensor

    every = list(tensors)
    shared: list[Tensor] = [tensor for tensor in every if isinstance(tensor, DTensor)]
    rest = [tensor for tensor in every if not isinstance(tensor, DTensor)]
    return [group for group in (shared, rest) if group]
