"""What steers an upscaler, as training reads it."""

import torch

from tintype.common.device import sent
from tintype.conditioning.low import noised
from tintype.diffusion.denoiser import Conditioning
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.schedule import Schedule
from tintype.objectives.base import Batch


class EnlargedCondition:
    """Column "beside": B C h w, raw latents of small pictures enlarged. They stand beside the noise, after noise was
    put on them, of a level that is drawn from the first `levels` of the schedule and told as a class (Ho et al. 2021:
    conditioning augmentation). Never left out."""

    name = "enlarged"
    network = None

    def __init__(self, space: LatentSpace, schedule: Schedule, *, levels: int) -> None:
        if levels < 1:
            raise ValueError(f"levels {levels}: expected 1 or more levels of noise, the first of which is the least")
        self.space = space
        self.schedule = schedule
        self.levels = levels

    def __call__(self, batch: Batch, noise: torch.Generator | None) -> Conditioning:
        latent = self.space.wrap(batch["beside"].float())
        if noise is None:
            return Conditioning(concat=latent, vector=latent.new_zeros(len(latent), dtype=torch.long))
        level = torch.randint(self.levels, (len(latent),), generator=noise)
        sigma = self.schedule.sigma(level.double()).float()[:, None, None, None]
        drawn = torch.randn(latent.shape, generator=noise)
        latent = noised(latent, sent(drawn, latent.device), sent(sigma, latent.device))
        return Conditioning(concat=latent, vector=sent(level, latent.device))
