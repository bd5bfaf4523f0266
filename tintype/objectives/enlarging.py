"""What steers an upscaler, as training reads it."""

import torch

from tintype.common.device import sent
from tintype.conditioning.low import folded, noised
from tintype.diffusion.denoiser import Conditioning
from tintype.diffusion.schedule import Schedule
from tintype.objectives.base import Batch


class LowCondition:
    """Column "low": B 3 H W in [-1, 1], the small picture: beside the noise, itself with noise of a level that is drawn
    from the first `levels` of the schedule and told as a class. Never left out."""

    name = "low"
    network = None

    def __init__(self, schedule: Schedule, *, fold: int, levels: int) -> None:
        if levels < 1:
            raise ValueError(f"levels {levels}: expected 1 or more levels of noise, the first of which is the least")
        self.schedule = schedule
        self.fold = fold
        self.levels = levels

    def __call__(self, batch: Batch, noise: torch.Generator | None) -> Conditioning:
        low = batch["low"].float()
        if noise is None:
            return Conditioning(concat=folded(low, self.fold), vector=low.new_zeros(len(low), dtype=torch.long))
        level = torch.randint(self.levels, (len(low),), generator=noise)
        sigma = self.schedule.sigma(level.double()).float()[:, None, None, None]
        drawn = torch.randn(low.shape, generator=noise)
        low = noised(low, sent(drawn, low.device), sent(sigma, low.device))
        return Conditioning(concat=folded(low, self.fold), vector=sent(level, low.device))
