"""What a family of checkpoints is, as data, and a model of it put together."""

from dataclasses import dataclass

import torch

from tintype.common.config import added
from tintype.conditioning.text import TextConditioner, TextConfig
from tintype.diffusion.denoiser import Denoiser
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.names import Conventions
from tintype.diffusion.scaling import SCALINGS, Prediction
from tintype.diffusion.schedule import DDPMConfig, EDMConfig, FlowConfig, make_schedule
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.unet import UNet, UNetConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyConfig:
    """Everything but the weights. `size`, `steps`, `cfg_scale`, `sampler`, `scheduler`: what a request gets that does
    not say; without `scheduler` the sampler's own spacing. `conventions`: what our samplers' names mean here."""

    name: str
    unet: UNetConfig
    autoencoder: AutoencoderConfig
    conditioner: TextConfig
    schedule: DDPMConfig | EDMConfig | FlowConfig
    prediction: Prediction
    space: LatentSpace
    size: int
    steps: int = 25
    cfg_scale: float = 7.0
    sampler: str = "ddim"
    scheduler: str | None = "leading"
    conventions: Conventions = added("plain")

    def __post_init__(self) -> None:
        channels = self.autoencoder.latent_channels
        for name, entries in (("scale", self.space.scale), ("shift", self.space.shift)):
            if len(entries) not in (1, channels):
                raise ValueError(f"space.{name} has {len(entries)} entries; expected 1 or {channels}, one per channel")


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentDiffusion:
    """A model ready for use. `source` says where its weights came from, `digest` which they are (10 hex digits)."""

    config: FamilyConfig
    denoiser: Denoiser
    autoencoder: Autoencoder
    conditioner: TextConditioner
    source: str
    digest: str

    @property
    def space(self) -> LatentSpace:
        return self.config.space

    @property
    def device(self) -> torch.device:
        return self.autoencoder.post_quant_conv.weight.device


def assemble(
    config: FamilyConfig,
    *,
    unet: UNet,
    autoencoder: Autoencoder,
    conditioner: TextConditioner,
    source: str,
    digest: str,
) -> LatentDiffusion:
    """The networks of a family, joined by its schedule and prediction type."""
    denoiser = Denoiser(
        network=unet,
        schedule=make_schedule(config.schedule),
        scaling=SCALINGS[config.prediction],
        dtype=unet.conv_in.weight.dtype,
    )
    return LatentDiffusion(
        config=config, denoiser=denoiser, autoencoder=autoencoder, conditioner=conditioner, source=source, digest=digest
    )
