"""Copies of networks that share their weights."""

import copy
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def twin(network: M) -> M:
    """A copy of the same parameters and buffers; what is changed of its modules leaves the network as it is."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, shared)
