"""An exponential moving average of parameters: the weights that are used and published."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tintype.common.shares import like, local, whole


def warmed(decay: float) -> Callable[[int], float]:
    """Averages start fast: decay after n updates is min(decay, (1 + n) / (10 + n)), as in latent-diffusion."""
    return lambda updates: min(decay, (1 + updates) / (10 + updates))


class EMA:
    """`decay` says, of the number of earlier updates, how much of the average stays."""

    def __init__(self, module: nn.Module, decay: Callable[[int], float]) -> None:
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self._whole: dict[str, Tensor] | None = None

    @torch.no_grad()
    def update(self, module: nn.Module, updates: int) -> None:
        """Mix in the parameters after the given number of earlier updates."""
        self._whole = None
        values = {name: local(value) for name, value in module.state_dict().items() if value.is_floating_point()}
        averages = [local(self.average[name]) for name in values]
        # One kernel for all tensors (a U-Net has hundreds); it has no public name.
        torch._foreach_lerp_(averages, list(values.values()), 1 - self.decay(updates))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

    def gather(self) -> None:
        """Put the average together, where processes have shares of it: all of them must call this."""
        self._whole = {name: whole(value) for name, value in self.average.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Whole tensors. Where processes have shares, those that `gather` put together after the last update."""
        if self._whole is not None:
            return self._whole
        assert all(local(value) is value for value in self.average.values()), "shares: call gather in all processes"
        return self.average

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Strict: the names must be the module's own. Takes whole tensors."""
        if state.keys() != self.average.keys():
            raise ValueError(f"EMA names differ from the module's: {sorted(state.keys() ^ self.average.keys())[:5]}")
        self._whole = None
        for name, value in state.items():
            self.average[name].copy_(like(value, self.average[name]))
