"""Networks on a torus: what leaves a picture on one side comes back on the other."""

from typing import TypeVar

from torch import nn

from tintype.nn.twins import twin

M = TypeVar("M", bound=nn.Module)


def circular(network: M) -> M:
    """A copy that shares every parameter and in which each convolution sees the opposite side of the picture beyond
    an edge instead of zeros. The network itself stays as it is."""
    copied = twin(network)
    for module in copied.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.padding_mode = "circular"
    return copied
