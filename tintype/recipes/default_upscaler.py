"""An upscaler: pictures to four times their size, by latent diffusion from the latent of the small picture enlarged.

    tintype train default_upscaler --out runs/upscaler --set start=default

It learns from squares of 64 pixels of scenes of 64, 128 and 256 pixels, made four times smaller in one of several ways.
Its U-Net tells the difference from that latent, on which noise was put, and is told how much. `start` names the model
whose first stage and latent space it works in. Publishes `runs/upscaler/model`. On a GPU: `--set train.device=cuda
--set train.precision=bf16 --set train.batch_size=256 --set train.accumulate=1`.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tintype.checkpoints import load
from tintype.checkpoints.model_folder import AUTOENCODER, CONFIG, save_model
from tintype.common.config import Json, to_json
from tintype.data.encoding import make_latents
from tintype.data.latents import StoredLatents
from tintype.data.samples import Batches, Beside, Samples, latents, latents_beside
from tintype.data.scenes import SceneConfig, Scenes
from tintype.data.sources import appearance
from tintype.data.views import Sized
from tintype.data.windows import Enlarged, SceneWindows
from tintype.diffusion.scaling import Prediction
from tintype.diffusion.schedule import DDPMConfig, make_schedule
from tintype.families.base import FamilyConfig, LatentDiffusion, assemble
from tintype.generation import generate
from tintype.models.unet import UNet, UNetConfig
from tintype.objectives.denoising import DenoisingObjective
from tintype.objectives.enlarging import EnlargedCondition
from tintype.recipes.base import Recipe, Run, digest, load_average
from tintype.recipes.sheets import SHOWN, sheet
from tintype.tasks.pictures import data_url
from tintype.tasks.request import Request
from tintype.training.loop import TrainConfig
from tintype.training.state import MAY_CHANGE, TrainingState

GRID = 8  # pixels: where windows of large scenes begin
SEEN = 16  # pictures on a sheet


@dataclass(frozen=True, kw_only=True, slots=True)
class DefaultUpscaler(Recipe):
    """`scenes`: those of the smallest size; `sizes`: of all, in pixels. `windows`: how many squares are encoded, whole
    and from a part of their size. `scale`: how many times larger pictures become. `difference`: how much their latents
    differ from those of the small ones enlarged (std)."""

    scenes: SceneConfig
    sizes: tuple[int, ...]
    unet: UNetConfig
    schedule: DDPMConfig
    prediction: Prediction
    difference: float
    start: str = field(default="default", metadata=MAY_CHANGE)
    windows: int = 16_384
    scale: int = 4
    steps: int = field(default=8, metadata=MAY_CHANGE)  # of sampling

    def inputs(self) -> dict[str, str]:
        folder = Path(load(self.start, device="cpu").source)
        read = {"first stage": digest(folder / AUTOENCODER), "latent space": digest(folder / CONFIG)}
        return read | {"scenes": appearance(Scenes(self.scenes, font=self.font))}

    def prepare(self, out: Path) -> Run:
        torch.manual_seed(self.train.seed)
        start = load(self.start, device=self.train.device)
        family = self._family(start)
        windows = self._windows(self.windows)
        cut: dict[str, Json] = {"sizes": list(self.sizes), "grid": GRID, "seed": self.train.seed}
        told: dict[str, Json] = {"windows": to_json(self.scenes), **cut, **self.inputs()}
        whole = self._stored(out / "latents", windows, start, told)
        beside = self._stored(out / "enlarged", Enlarged(windows, self.scale), start, told | {"scale": self.scale})
        schedule, unet, levels = make_schedule(self.schedule), UNet(self.unet), self.unet.num_classes
        assert levels is not None  # `_family` has seen to it

        def averaged(state: TrainingState) -> LatentDiffusion:
            network = UNet(self.unet).to(self.train.device)
            load_average(network, state, "diffusion", prefix="unet.")
            return assemble(
                family,
                unet=network,
                autoencoder=start.autoencoder,
                conditioner=None,
                source="training",
                fingerprint=lambda: "0" * 10,
            )

        def draw(state: TrainingState) -> Image.Image:
            """Rows of what the model sees, what it makes of that, and what was."""
            shown = self._windows(SEEN, first=SHOWN)
            wanted = [Image.fromarray(picture_of(shown, number)) for number in range(SEEN)]
            small = [one.resize((one.width // self.scale, one.height // self.scale)) for one in wanted]
            model = averaged(state)
            made = [enlarged(model, one, seed=number) for number, one in enumerate(small)]
            seen = [one.resize(wanted[0].size, Image.Resampling.NEAREST) for one in small]
            return sheet([*seen, *made, *wanted], columns=SEEN, scale=2)

        def publish(state: TrainingState, out: Path) -> None:
            save_model(out / "model", averaged(state), dtype=torch.float16)

        return Run(
            objective=DenoisingObjective(
                unet,
                [
                    EnlargedCondition(
                        start.space,
                        schedule,
                        levels=levels,
                    )
                ],
                schedule=schedule,
                scaling=family.scaling,
                space=start.space,
                relative=family.relative,
            ),
            source=Batches(Beside(whole, beside), [latents, latents_beside], seed=self.train.seed),
            sheet=draw,
            publish=publish,
        )

    def _stored(self, folder: Path, samples: Sized, start: LatentDiffusion, told: dict[str, Json]) -> StoredLatents:
        source = json.dumps(told, sort_keys=True)
        make_latents(folder, samples, start.autoencoder, source=source, batch_size=64, replace=True)
        return StoredLatents(folder, autoencoder=start.autoencoder)

    def _windows(self, count: int, *, first: int = 0) -> SceneWindows:
        scenes = [Scenes(dataclasses.replace(self.scenes, size=size), font=self.font) for size in self.sizes]
        return SceneWindows(scenes, count, size=min(self.sizes), grid=GRID, seed=self.train.seed, first=first)

    def _family(self, start: LatentDiffusion) -> FamilyConfig:
        """What is published beside the weights."""
        first_stage = start.config.autoencoder
        if self.unet.in_channels != 2 * first_stage.latent_channels:
            raise ValueError(
                f"unet.in_channels {self.unet.in_channels}: expected {2 * first_stage.latent_channels}, the first "
                "stage's for the picture and for the small one enlarged"
            )
        if self.unet.num_classes is None:
            raise ValueError("unet.num_classes null: expected how many levels of noise it is told, such as 64")
        return FamilyConfig(
            name="tintype-upscaler",
            unet=self.unet,
            autoencoder=first_stage,
            conditioner=None,
            schedule=self.schedule,
            prediction=self.prediction,
            space=start.space,
            size=min(self.sizes),
            steps=self.steps,
            cfg_scale=1.0,
            scheduler="karras",
            further=("enlarged",),
            scale=self.scale,
            difference=self.difference,
        )


def picture_of(samples: Samples, index: int) -> NDArray[np.uint8]:
    picture = samples[index].picture
    assert picture is not None
    return picture


def enlarged(model: LatentDiffusion, picture: Image.Image, *, seed: int) -> Image.Image:
    return generate(model, Request(task="upscale", image=data_url(picture), seed=seed))[0]


def default_upscaler() -> DefaultUpscaler:
    return DefaultUpscaler(
        scenes=SceneConfig(objects=(0.25, 0.25, 0.25, 0.25), seed=1),
        sizes=(64, 128, 256),
        unet=UNetConfig(
            in_channels=32,
            out_channels=16,
            width=56,
            mult=(1, 2),
            num_blocks=2,
            depth=(0, 1),
            middle_depth=1,
            context_dim=None,
            num_heads=None,
            head_dim=28,
            num_classes=64,
            norm_groups=8,
        ),
        schedule=DDPMConfig(betas="cosine", sigma_max=2.0, draw_exponent=2.0),
        prediction="v",
        difference=0.2,
        train=TrainConfig(
            steps=10_000, batch_size=16, accumulate=2, learning_rate=1.2e-3, hold=0.4, ema_decay=0.998, save_every=250
        ),
        sheet_every=2000,
    )
