"""The one diffusion objective: the network's answer at a random noise level against the scaling's target.

Which prediction (eps, v, x0, flow, EDM) and which schedule are the denoiser's business, what steers is that of
`conditions`, how much a level counts that of `weighting`; so this file serves every latent diffusion model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from tintype.common.device import sent
from tintype.diffusion.denoiser import Conditioning, Denoiser
from tintype.diffusion.draws import DrawsConfig, draw
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.scaling import Scaling, eps
from tintype.diffusion.schedule import DDPM, Schedule
from tintype.diffusion.weighting import WeightingConfig, answer_weights
from tintype.models.autoencoder import Autoencoder
from tintype.models.unet import UNet
from tintype.objectives.base import Batch
from tintype.objectives.conditions import Condition, together

AS_IT_IS = LatentSpace(scale=(1.0,))


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoisingConfig:
    """`distance` between answer and target: squared, absolute, or squared below `huber` and absolute above (smoothly:
    2 c (sqrt(d^2 + c^2) - c)).

    `offset_noise`: std of noise that is one number a channel, added to the noise (Guttenberg 2023);
    `input_perturbation`: std of noise that is added to the network's input alone (Ning et al. 2023, algorithm 1).
    """

    distance: Literal["l2", "l1", "huber"] = "l2"
    huber: float = 0.1
    weighting: WeightingConfig = field(default_factory=WeightingConfig)
    draws: DrawsConfig = field(default_factory=DrawsConfig)
    offset_noise: float = 0.0
    input_perturbation: float = 0.0

    def __post_init__(self) -> None:
        if not self.huber > 0:
            raise ValueError(f"huber {self.huber}: expected more than 0")
        for name in ("offset_noise", "input_perturbation"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)}: expected 0 or more")


class Trained(nn.Module):
    """What is trained together: the U-Net and the networks of its conditions, by their names."""

    def __init__(self, unet: UNet, conditions: Sequence[Condition]) -> None:
        super().__init__()
        self.unet = unet
        for condition in conditions:
            if condition.network is not None:
                self.add_module(condition.name, condition.network)


class DenoisingObjective:
    """Batches hold "mean" and "std": B C h w of the raw latent's posterior, or with a `first_stage` "image": B 3 H W in
    [-1, 1]; and the columns of the conditions. One part, "diffusion". The first stage is used as it is, not trained.
    `relative`: see `Denoiser`.

    Raises `ValueError` where eps is to be predicted from a latent without any signal.
    """

    def __init__(
        self,
        unet: UNet,
        conditions: Sequence[Condition] = (),
        *,
        schedule: Schedule,
        scaling: Scaling,
        config: DenoisingConfig | None = None,
        space: LatentSpace = AS_IT_IS,
        first_stage: Autoencoder | None = None,
        relative: bool = False,
    ) -> None:
        silent = isinstance(schedule, DDPM) and schedule.config.zero_terminal_snr and schedule.config.sigma_max is None
        if silent and scaling is eps:
            raise ValueError("eps says nothing about x0 at zero terminal SNR; use prediction v or x0, or a sigma_max")
        self.conditions = tuple(conditions)
        self.config = config or DenoisingConfig()
        self.space = space
        self.first_stage = None if first_stage is None else first_stage.eval().requires_grad_(False)
        self.denoiser = Denoiser(unet, schedule, scaling, relative=relative)
        self.parts: Mapping[str, nn.Module] = {"diffusion": Trained(unet, self.conditions)}

    def loss(self, part: str, batch: Batch, noise: torch.Generator, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        mean, std = self.posterior(batch)
        x0 = mean + std * sent(torch.randn(mean.shape, generator=noise), mean.device)
        sigma = draw(self.config.draws, self.denoiser.schedule, len(x0), noise)
        drawn = torch.randn(x0.shape, generator=noise)
        if self.config.offset_noise:
            drawn += self.config.offset_noise * torch.randn(*x0.shape[:2], 1, 1, generator=noise)
        drawn = sent(drawn, x0.device)
        cond = self.conditioning(batch, noise)
        seen = drawn
        if self.config.input_perturbation:
            seen = drawn + self.config.input_perturbation * sent(torch.randn(x0.shape, generator=noise), x0.device)
        distances = self.distances(x0, sigma, drawn, cond, seen=seen)

        weights = answer_weights(sigma, self.denoiser.scaling, self.config.weighting)
        if weights is None:
            return distances.mean(), {}
        return (distances.flatten(1).mean(dim=1) * sent(weights.float(), x0.device)).mean(), {}

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the wrapped latents: B C h w each."""
        if self.first_stage is None:
            mean, std = batch["mean"].float(), batch["std"].float()
        else:
            with torch.no_grad():
                encoded = self.first_stage.encode(batch["image"])
            mean, std = encoded.mean, encoded.std
        scale = sent(torch.tensor(self.space.scale).abs()[:, None, None], std.device)
        return self.space.wrap(mean), std * scale

    def conditioning(self, batch: Batch, noise: torch.Generator | None = None) -> Conditioning:
        """What steers each sample; left out now and then as `noise` says, without it never."""
        return together([condition(batch, noise) for condition in self.conditions])

    def distances(
        self, x0: Tensor, sigma: Tensor, noise: Tensor, cond: Conditioning, *, seen: Tensor | None = None
    ) -> Tensor:
        """Of the answer at x0 + sigma * seen (`noise`, unless told) from its target: B C h w, sigma: B."""
        noisy = x0 + sent(sigma.float(), x0.device)[:, None, None, None] * (noise if seen is None else seen)
        difference = self.denoiser.output(noisy, sigma, cond) - self.denoiser.target(x0, noise, sigma, cond)
        match self.config.distance:
            case "l2":
                return difference.square()
            case "l1":
                return difference.abs()
            case "huber":
                c = self.config.huber
                return 2 * c * ((difference.square() + c**2).sqrt() - c)
