"""How networks compute while they are trained: compiled, or with less memory. What they are called and hold stays."""

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from torch import nn

NETWORKS = "tintype.models."  # the package whose classes are whole networks


@runtime_checkable
class Recomputing(Protocol):
    """A network that can keep less for the way back and compute it again."""

    checkpointing: bool


def fit_networks(parts: Mapping[str, nn.Module], *, compiled: bool, checkpointing: bool) -> None:
    """Compile the networks of some parts in place, at their next call; let those that can recompute what they would
    keep.

    Raises `ValueError` when there is nothing to compile, or none that can recompute.
    """
    networks = [network for part in parts.values() for network in _networks(part)]
    recomputing = [network for network in networks if isinstance(network, Recomputing)]
    if compiled and not networks:
        raise ValueError("train.compile true: no network of tintype.models among what is trained; expected one")
    if checkpointing and not recomputing:
        raise ValueError("train.checkpointing true: no U-Net among what is trained, which can; expected false")
    for network in recomputing:
        network.checkpointing = checkpointing
    for network in networks if compiled else ():
        network.compile()


def _networks(part: nn.Module) -> Iterator[nn.Module]:
    """The topmost modules that are classes of `tintype.models`."""
    if type(part).__module__.startswith(NETWORKS):
        yield part
        return
    for child in part.children():
        yield from _networks(child)
