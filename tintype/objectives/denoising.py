"""The one diffusion objective: the network's answer at a random noise level against the scaling's target.

Which prediction (eps, v, x0, flow, EDM) and which schedule are the denoiser's business, so this file serves all.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tintype.conditioning.text import TextConditioner, Tokens, dropped
from tintype.diffusion.denoiser import Denoiser
from tintype.diffusion.scaling import Scaling
from tintype.diffusion.schedule import Schedule
from tintype.models.unet import UNet
from tintype.objectives.base import Batch


class TextDiffusion(nn.Module):
    """What a text-to-image run trains, together: the U-Net and the text tower."""

    def __init__(self, unet: UNet, text: TextConditioner) -> None:
        super().__init__()
        self.unet = unet
        self.text = text


class DenoisingObjective:
    """Batches hold "mean" and "std": B C h w of the wrapped latent's posterior, "ids": B L and "end": B of the
    caption. One part, "diffusion". Mean squared error of the network's own output, in its own parametrization."""

    def __init__(self, model: TextDiffusion, schedule: Schedule, scaling: Scaling, *, caption_dropout: float) -> None:
        self.model = model
        self.schedule = schedule
        self.scaling = scaling
        self.caption_dropout = caption_dropout
        self.parts: Mapping[str, nn.Module] = {"diffusion": model}
        self._empty = model.text.tokens([""])

    def loss(self, part: str, batch: Batch, noise: torch.Generator, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        mean, std = batch["mean"].float(), batch["std"].float()
        x0 = mean + std * torch.randn(mean.shape, generator=noise).to(mean.device)
        sigma = self.schedule.draw(len(x0), noise)
        drawn = torch.randn(x0.shape, generator=noise).to(x0.device)
        tokens = dropped(Tokens(batch["ids"], batch["end"]), self._empty, rate=self.caption_dropout, noise=noise)

        denoiser = Denoiser(self.model.unet, self.schedule, self.scaling)
        noisy = x0 + sigma.to(x0)[:, None, None, None] * drawn
        answer = denoiser.output(noisy, sigma, self.model.text.encode(tokens))
        return (answer - denoiser.target(x0, drawn, sigma)).square().mean(), {}
