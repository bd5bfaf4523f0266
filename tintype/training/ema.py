"""An exponential moving average of parameters: the weights that are used and published."""

import torch
from torch import Tensor, nn


class EMA:
    """Averages start fast: decay after n updates is min(decay, (1 + n) / (10 + n)), as in latent-diffusion."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, updates: int) -> None:
        """Mix in the parameters after the given number of earlier updates."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        return self.average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Strict: the names must be the module's own."""
        if state.keys() != self.average.keys():
            raise ValueError(f"EMA names differ from the module's: {sorted(state.keys() ^ self.average.keys())[:5]}")
        for name, value in state.items():
            self.average[name].copy_(value)
