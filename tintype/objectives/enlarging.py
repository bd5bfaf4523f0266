"""What steers an upscaler, as training reads it."""

import torch
from torch import Tensor

from tintype.common.device import sent
from tintype.conditioning.low import enlarged, noised
from tintype.diffusion.denoiser import Conditioning
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.schedule import Schedule
from tintype.models.autoencoder import Autoencoder
from tintype.objectives.base import Batch


class EnlargedCondition:
    """Column "low": B 3 H W in [-1, 1], the small picture. Beside the noise stands the latent of it enlarged, after
    noise was put on it, of a level that is drawn from the first `levels` of the schedule and told as a class. It is
    never left out, and the first stage not trained."""

    name = "enlarged"
    network = None

    def __init__(
        self, first_stage: Autoencoder, space: LatentSpace, schedule: Schedule, *, scale: int, levels: int
    ) -> None:
        if levels < 1:
            raise ValueError(f"levels {levels}: expected 1 or more levels of noise, the first of which is the least")
        self.first_stage = first_stage.eval().requires_grad_(False)
        self.space = space
        self.schedule = schedule
        self.scale = scale
        self.levels = levels

    def __call__(self, batch: Batch, noise: torch.Generator | None) -> Conditioning:
        low = batch["low"].float()
        if noise is None:
            return Conditioning(concat=self._shown(low), vector=low.new_zeros(len(low), dtype=torch.long))
        level = torch.randint(self.levels, (len(low),), generator=noise)
        sigma = self.schedule.sigma(level.double()).float()[:, None, None, None]
        drawn = torch.randn(low.shape, generator=noise)
        low = noised(low, sent(drawn, low.device), sent(sigma, low.device))
        return Conditioning(concat=self._shown(low), vector=sent(level, low.device))

    @torch.no_grad()
    def _shown(self, low: Tensor) -> Tensor:
        return self.space.wrap(self.first_stage.encode(enlarged(low, self.scale)).mean.float())
