"""Which downsampling factor is best? (LDM, section 4.1 and table 8.) First stages and diffusion models of six factors.

    python benchmarks/compression_study.py train --out runs/study    # all of it, for an hour and a half on two cores
    tintype train compression_study --set autoencoder=FILE           # one diffusion model: the one of factor 8

All first stages see the same pictures. All diffusion models are unconditional, of 2.8 million parameters, and do the
same number of operations, so those of a high factor see more samples (LDM, table 13, does
the same by the largest batch that a GPU holds).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tintype.checkpoints.native import load_network
from tintype.common.config import from_json, to_json
from tintype.common.files import whole_file
from tintype.data.encoding import stored_scenes
from tintype.data.samples import Batches, latents
from tintype.data.scenes import SceneConfig, Scenes
from tintype.data.sources import SceneImages, appearance
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.scaling import SCALINGS, Prediction
from tintype.diffusion.schedule import DDPMConfig, make_schedule
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.unet import UNet, UNetConfig
from tintype.objectives.autoencoding import AutoencodingConfig
from tintype.objectives.denoising import DenoisingObjective
from tintype.recipes.base import Recipe, Run, digest
from tintype.recipes.default_autoencoder import DefaultAutoencoder
from tintype.training.loop import Source, TrainConfig
from tintype.training.state import MAY_CHANGE, TrainingState

Factor = Literal[1, 2, 4, 8, 16, 32]
FACTORS: tuple[Factor, ...] = (1, 2, 4, 8, 16, 32)
CHECKPOINTS = 5
SPACE = "space.json"  # in the folder of a run: where its latents lie


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """What is made for one factor. `channels` of latents are those of LDM, table 8; `first_stage` the levels of the
    autoencoder after its patches of 2 x 2; `batch` and `steps` make 60 TFLOP (forward and backward)."""

    channels: int
    first_stage: tuple[int, ...]
    width: int
    mult: tuple[int, ...]
    attention: tuple[int, ...]
    head_dim: int
    batch: int
    steps: int = 3000


DESIGNS: dict[Factor, Design] = {
    1: Design(
        channels=3,
        first_stage=(),
        width=32,
        mult=(1, 1, 2, 4),
        attention=(0, 0, 0, 1),
        head_dim=32,
        batch=5,
        steps=2670,
    ),
    2: Design(channels=2, first_stage=(1,), width=32, mult=(1, 2, 4), attention=(0, 0, 1), head_dim=32, batch=9),
    4: Design(channels=3, first_stage=(1, 2), width=32, mult=(1, 2, 4), attention=(0, 1, 1), head_dim=32, batch=34),
    8: Design(channels=4, first_stage=(1, 2, 4), width=32, mult=(1, 2, 4), attention=(1, 1, 1), head_dim=32, batch=132),
    16: Design(channels=16, first_stage=(1, 2, 4, 4), width=64, mult=(1, 2), attention=(1, 1), head_dim=32, batch=192),
    32: Design(channels=64, first_stage=(1, 2, 4, 4, 4), width=128, mult=(1,), attention=(1,), head_dim=32, batch=350),
}


def first_stage(factor: Factor, *, features: str | None = None) -> DefaultAutoencoder:
    """The autoencoder of a factor above 1; `features`: weights of `scene_classifier` for its perceptual loss."""
    design = DESIGNS[factor]
    return DefaultAutoencoder(
        scenes=SceneConfig(),
        model=AutoencoderConfig(
            latent_channels=design.channels,
            width=32,
            mult=design.first_stage,
            num_blocks=1,
            patch_size=2,
            linear_shortcut=True,
            norm_groups=8,
        ),
        loss=AutoencodingConfig(features=0.1, features_from=1000),
        features=features,
        train=TrainConfig(steps=1800, batch_size=16, learning_rate=2e-3, warmup=50, hold=0.35, save_every=100),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressionStudy(Recipe):
    """An unconditional diffusion model in the latents of `autoencoder`, or without one of pixels. `latents`: how many
    scenes are encoded."""

    scenes: SceneConfig
    unet: UNetConfig
    schedule: DDPMConfig
    prediction: Prediction
    factor: Factor
    autoencoder: str | None = field(default=None, metadata=MAY_CHANGE)
    latents: int = 16_384

    def inputs(self) -> dict[str, str]:
        read = {"scenes": appearance(Scenes(self.scenes, font=self.font))}
        return read if self.factor == 1 else read | {"autoencoder": digest(self._file())}

    def _file(self) -> Path:
        if self.autoencoder is None:
            raise ValueError(f"a first stage of factor {self.factor} is expected: --set autoencoder=FILE")
        return Path(self.autoencoder)

    def prepare(self, out: Path) -> Run:
        scenes = Scenes(self.scenes, font=self.font)
        source, space = self._pixels(scenes) if self.factor == 1 else self._stored(scenes, out / "latents")
        with whole_file(out / SPACE) as path:
            path.write_text(json.dumps(to_json(space)))
        torch.manual_seed(self.train.seed)
        return Run(
            objective=DenoisingObjective(
                UNet(self.unet),
                schedule=make_schedule(self.schedule),
                scaling=SCALINGS[self.prediction],
                space=space,
            ),
            source=source,
            sheet=None,
            publish=_checkpoints_are_enough,
        )

    def _pixels(self, scenes: Scenes) -> tuple[Source, LatentSpace]:
        source = Pixels(scenes, self.latents)
        return source, _space(source.batch(0, min(self.latents, 1024))["mean"])

    def _stored(self, scenes: Scenes, folder: Path) -> tuple[Source, LatentSpace]:
        stage = load_network(self._file(), "autoencoder", AutoencoderConfig, Autoencoder).to(self.train.device)
        if (stage.config.factor, stage.config.latent_channels) != (self.factor, self.unet.in_channels):
            raise ValueError(
                f"{self._file()} has factor {stage.config.factor} and {stage.config.latent_channels} channels; "
                f"expected {self.factor} and {self.unet.in_channels}"
            )
        stored = stored_scenes(folder, scenes, self.latents, stage)
        return Batches(stored, [latents], seed=self.train.seed), stored.space(per_channel=True)


class Pixels:
    """{"mean", "std"}: scenes as their own latents, exactly known. `count` of them, endlessly, in their order."""

    def __init__(self, scenes: Scenes, count: int) -> None:
        self.images = SceneImages(scenes)
        self.count = count

    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        places = [position % self.count for position in range(first, first + count)]
        image = torch.cat([self.images.batch(place, 1)["image"] for place in places])
        return {"mean": image, "std": torch.zeros_like(image)}


def _space(image: Tensor) -> LatentSpace:
    spread = image.std(dim=(0, 2, 3), correction=0)
    return LatentSpace(shift=tuple(image.mean(dim=(0, 2, 3)).tolist()), scale=tuple((1 / spread).tolist()))


def read_space(out: Path) -> LatentSpace:
    """Of the run in this folder."""
    return from_json(LatentSpace, json.loads((out / SPACE).read_text()))


def _checkpoints_are_enough(state: TrainingState, out: Path) -> None:
    """The driver reads every checkpoint of a run; nothing else is published."""


def compression_study(factor: Factor = 8, *, autoencoder: str | None = None) -> CompressionStudy:
    design = DESIGNS[factor]
    return CompressionStudy(
        scenes=SceneConfig(),
        unet=UNetConfig(
            in_channels=design.channels,
            out_channels=design.channels,
            width=design.width,
            mult=design.mult,
            num_blocks=1,
            depth=design.attention,
            middle_depth=1,
            context_dim=None,
            num_heads=None,
            head_dim=design.head_dim,
            norm_groups=8,
        ),
        schedule=DDPMConfig(start=0.0015, end=0.0195),  # LDM's, for all factors
        prediction="v",
        factor=factor,
        autoencoder=autoencoder,
        train=TrainConfig(
            steps=design.steps,
            batch_size=design.batch,
            learning_rate=1e-3,
            warmup=50,
            hold=0.4,
            ema_decay=0.995,
            save_every=design.steps // CHECKPOINTS,
            keep=CHECKPOINTS,
        ),
    )
