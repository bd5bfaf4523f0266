"""A network for many calls with the same weights: its own forward code, without what `nn.Module` does around each call.

Looking up parameters and calling modules costs Python time, in a U-Net of nine million parameters a tenth of a forward.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def lean(network: M) -> M:
    """A copy that shares every parameter and in which plain layers are bare functions. It is for inference with the
    network as it is now: it follows weights that change in place, but knows nothing of modules exchanged later."""
    copy = object.__new__(type(network))
    members = {name: _function(child) or lean(child) for name, child in network.named_children()}
    parameters = dict(network.named_parameters(recurse=False))
    vars(copy).update(vars(network) | parameters | members | {"_modules": members})
    return copy


def _function(layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What a plain layer computes; None for other modules and for a layer that has hooks."""
    if vars(layer)["_forward_hooks"] or vars(layer)["_forward_pre_hooks"]:
        return None
    if type(layer) is nn.Linear:
        return partial(F.linear, weight=layer.weight, bias=layer.bias)
    if type(layer) is nn.LayerNorm:
        shape, weight, bias = layer.normalized_shape, layer.weight, layer.bias
        return partial(torch.layer_norm, normalized_shape=shape, weight=weight, bias=bias, eps=layer.eps)
    if type(layer) is nn.GroupNorm:
        groups, weight, bias = layer.num_groups, layer.weight, layer.bias
        return partial(torch.group_norm, num_groups=groups, weight=weight, bias=bias, eps=layer.eps)
    return None
