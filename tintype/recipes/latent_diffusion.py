"""Latent diffusion of any data, steered by classes, text, boxes, maps or nothing.

    tintype train latent_diffusion --out runs/boxes --set autoencoder=FILE --set condition=layout
    tintype train latent_diffusion --out runs/birds --set data=latents/birds --set autoencoder=FILE \\
        --set condition=class --set steering.classes=200

Without `data` the samples are rendered scenes, stored as latents in the run's folder; `data` is a folder of latents, or
of pictures that `tintype prepare` made, which are encoded on the way. Publishes the whole model: `runs/boxes/model`.

Cost as it stands: a quarter of an hour for 2,000 steps of 32 on two CPU cores; enough to see places and colours, not
drawings (see `default_text2img` for those).
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from tintype.checkpoints import load
from tintype.checkpoints.model_folder import save_model
from tintype.checkpoints.native import load_network, read_space
from tintype.common.config import added, to_json
from tintype.common.registry import pick
from tintype.common.rng import generator
from tintype.conditioning.class_label import ClassConditioner, ClassConfig
from tintype.conditioning.layout import LayoutConditioner, LayoutConfig
from tintype.conditioning.spatial import SpatialConditioner, SpatialConfig
from tintype.conditioning.text import TextConditioner, TextConfig, word_ids
from tintype.data.augment import any_caption, flips
from tintype.data.buckets import order_of
from tintype.data.encoding import make_latents
from tintype.data.latents import StoredLatents
from tintype.data.opening import open_samples
from tintype.data.samples import Batches, Column, Samples, SceneSamples, images, latents
from tintype.data.scenes import SceneConfig, Scenes
from tintype.data.sources import appearance
from tintype.data.views import Part, Sized
from tintype.diffusion.latent_space import LatentMoments, LatentSpace
from tintype.diffusion.scaling import SCALINGS, Prediction
from tintype.diffusion.schedule import DDPMConfig, EDMConfig, FlowConfig, make_schedule
from tintype.diffusion.spacing import SPACINGS
from tintype.families.base import FamilyConfig, LatentDiffusion, assemble
from tintype.generation import generate
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.clip import CLIPTextConfig
from tintype.models.unet import UNet, UNetConfig
from tintype.objectives.base import Batch
from tintype.objectives.conditions import Frozen, together
from tintype.objectives.denoising import DenoisingConfig, DenoisingObjective
from tintype.objectives.validation import validation_losses
from tintype.recipes.base import Recipe, Run, digest, load_average
from tintype.recipes.default_text2img import taught_words
from tintype.recipes.sheets import SHOWN, sheet
from tintype.recipes.steering import (
    Steered,
    Steering,
    SteeringConfig,
    SteeringSizes,
    check_steering,
    columns_of,
    conditions_of,
    nothing,
    steered_unet,
    steering_config,
    warn_of_words,
)
from tintype.tasks.request import Request
from tintype.training.hooks import Measured
from tintype.training.loop import TrainConfig
from tintype.training.state import MAY_CHANGE, TrainingState

PART = "diffusion"
AT_ONCE = 8  # samples of a validation batch: of its own, so that its numbers do not depend on the training's
MEASURED = 64  # pictures that the latent space is measured on where no latents are stored


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentDiffusionTraining(Recipe):
    """`autoencoder` names the first stage, or `frozen` a model (name, folder, checkpoint) whose first stage, latent
    space and, for text, tower are used as they are. `samples`: how many scenes; `held_out`: how many samples, the
    data's last, are not trained on but drawn, and measured at `levels` noise levels. `mirrored`: every other picture is
    turned left to right (of stored latents: `tintype latents --mirrored`). Of several captions one is drawn each time.

    `unet`: its channels in and out, context and vector are set to what the first stage and `condition` need. `text`:
    the tower that is trained; of scenes it knows the words, else CLIP's vocabulary.
    """

    scenes: SceneConfig
    unet: UNetConfig
    text: CLIPTextConfig
    schedule: DDPMConfig | EDMConfig | FlowConfig
    prediction: Prediction
    loss: DenoisingConfig = field(default_factory=DenoisingConfig)
    condition: Steered = "text"
    steering: SteeringSizes = field(default_factory=SteeringSizes)
    dropout: float = 0.1
    mirrored: bool = added(False)
    data: str | None = field(default=None, metadata=MAY_CHANGE)
    autoencoder: str | None = field(default=None, metadata=MAY_CHANGE)
    frozen: str | None = field(default=None, metadata=MAY_CHANGE)
    samples: int = 16_384
    held_out: int = 32
    levels: int = 8
    validate_every: int = field(default=1000, metadata=MAY_CHANGE)
    steps: int = field(default=25, metadata=MAY_CHANGE)  # of sampling, as are the next two
    cfg_scale: float = field(default=3.0, metadata=MAY_CHANGE)
    scheduler: str = field(default="trailing", metadata=MAY_CHANGE)

    def inputs(self) -> dict[str, str]:
        if self.data is None:
            read = {"scenes": appearance(Scenes(self.scenes, font=self.font))}
        else:
            read = {"data": open_samples(Path(self.data)).digest}
        match self._first_stage():
            case Path() as file:
                return read | {"autoencoder": digest(file)}
            case model:
                return read | {"frozen": load(model, device="cpu").digest}

    def _first_stage(self) -> Path | str:
        """The file of a first stage, or the name of a model that brings it."""
        match self.autoencoder, self.frozen:
            case str(file), None:
                return Path(file)
            case None, str(model):
                return model
            case _:
                raise ValueError(
                    "a first stage is expected: --set autoencoder=FILE (see `tintype train autoencoder`), or "
                    "--set frozen=MODEL, not both"
                )

    def prepare(self, out: Path) -> Run:
        for name in ("samples", "held_out", "levels", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected 1 or more")
        spacing = pick("scheduler", self.scheduler, SPACINGS)
        spacing(make_schedule(self.schedule), self.steps)  # refuses what no sheet could be drawn with
        torch.manual_seed(self.train.seed)
        taken = self._taken()
        data = self._data(out, taken.first_stage)
        channels, factor = taken.first_stage.config.latent_channels, taken.first_stage.config.factor
        config = steering_config(self.condition, self.steering, text=self._text(), factor=factor)
        if taken.tower is not None:
            config = taken.tower.config
            warn_of_words(taken.tower, data.training)
        check_steering(config, data.every, data=self.data or "the scenes")
        space = taken.space or data.space(taken.first_stage)
        unet_config = steered_unet(self.unet, config, channels=channels)
        unet, steering = UNet(unet_config), taken.tower or _network(config)
        family = FamilyConfig(
            name=f"tintype-{self.condition}",
            unet=unet_config,
            autoencoder=taken.first_stage.config,
            conditioner=config,
            schedule=self.schedule,
            prediction=self.prediction,
            space=space,
            size=data.size,
            steps=self.steps,
            cfg_scale=1.0 if steering is None else self.cfg_scale,
            scheduler=self.scheduler,
        )

        def objective(unet: UNet, steering: Steering | None, *, pictures: bool) -> DenoisingObjective:
            conditions = conditions_of(steering, dropout=self.dropout)
            if taken.tower is not None:
                conditions = [Frozen(one, device=self.train.device) for one in conditions]
            return DenoisingObjective(
                unet,
                conditions,
                schedule=make_schedule(self.schedule),
                scaling=SCALINGS[self.prediction],
                config=self.loss,
                space=space,
                first_stage=taken.first_stage if pictures else None,
            )

        @cache  # made when first asked for: most processes of several never are
        def other() -> tuple[UNet, Steering | None]:
            steering = taken.tower or _network(config)
            return UNet(unet_config).to(self.train.device), steering and steering.to(self.train.device)

        def averaged(state: TrainingState) -> tuple[UNet, Steering | None]:
            unet, steering = other()
            load_average(unet, state, PART, prefix="unet.")
            if taken.tower is None and steering is not None:
                (condition,) = conditions_of(steering, dropout=self.dropout)
                load_average(steering, state, PART, prefix=f"{condition.name}.")
            return unet, steering

        def model(state: TrainingState) -> LatentDiffusion:
            unet, steering = averaged(state)
            return assemble(
                family,
                unet=unet,
                autoencoder=taken.first_stage,
                conditioner=steering,
                source="training",
                fingerprint=lambda: "0" * 10,
            )

        shown = [*data.shown(columns_of(steering), device=self.train.device)]

        def draw(state: TrainingState) -> Image.Image:
            return sheet(self._drawn(model(state), shown), columns=8, scale=max(1, 128 // data.size))

        def measure(state: TrainingState) -> dict[str, float]:
            unet, steering = averaged(state)
            measured = objective(unet, steering, pictures="image" in shown[0])
            shares = (torch.arange(self.levels, dtype=torch.float64) + 0.5) / self.levels
            sigmas = measured.denoiser.schedule.at(shares).tolist()
            with self.train.computing():
                losses = validation_losses(measured, shown, sigmas, seed=self.train.seed).tolist()
            told = {f"loss at sigma {sigma:.4g}": loss for sigma, loss in zip(sigmas, losses, strict=True)}
            return {"loss": sum(losses) / len(losses)} | told

        return Run(
            objective=objective(unet, steering, pictures=data.stored is None),
            source=Batches(
                data.training,
                [images if data.stored is None else latents, *columns_of(steering)],
                seed=self.train.seed,
                augment=[any_caption, *([flips()] if self.mirrored else [])],
                order=order_of(data.training.sizes, batch_size=self.train.batch_size, seed=self.train.seed),
            ),
            sheet=draw,
            publish=lambda state, out: save_model(out / "model", model(state), dtype=torch.float16),
            hooks=(Measured(out / "validation.jsonl", measure, every=self.validate_every, last=self.train.steps),),
        )

    def _taken(self) -> "Taken":
        """What is used as it is."""
        named = self._first_stage()
        if isinstance(named, Path):
            stage = load_network(named, "autoencoder", AutoencoderConfig, Autoencoder).to(self.train.device)
            return Taken(stage, read_space(named), None)
        model = load(named, device=self.train.device)
        if self.condition != "text":
            return Taken(model.autoencoder, model.space, None)
        if not isinstance(model.conditioner, TextConditioner):
            raise ValueError(f"frozen={self.frozen}: its prompts are not read by one CLIP tower; expected such a model")
        return Taken(model.autoencoder, model.space, model.conditioner)

    def _text(self) -> TextConfig:
        """Of a tower that is trained."""
        if self.data is not None:
            return TextConfig(clip=self.text, pooled=True)
        words = taught_words(self.scenes)
        clip = dataclasses.replace(self.text, vocabulary_size=len(word_ids(words)))
        return TextConfig(clip=clip, words=words, pooled=True)

    def _data(self, out: Path, first_stage: Autoencoder) -> "Data":
        if self.data is None:
            scenes = Scenes(self.scenes, font=self.font)
            told = json.dumps({"config": to_json(self.scenes), "appearance": appearance(scenes)}, sort_keys=True)
            samples = SceneSamples(scenes, self.samples)
            make_latents(out / "latents", samples, first_stage, source=told, batch_size=64, replace=True)
            stored = StoredLatents(out / "latents", autoencoder=first_stage)
            unseen = SceneSamples(scenes, self.held_out, first=SHOWN)
            return Data(every=stored, training=stored, unseen=unseen, stored=stored, size=self.scenes.size)
        folder = Path(self.data)
        samples = open_samples(folder).samples
        stored = StoredLatents(folder, autoencoder=first_stage) if isinstance(samples, StoredLatents) else None
        if (count := len(samples) - self.held_out) < 1:
            raise ValueError(f"data={folder} has {len(samples)} samples, held_out is {self.held_out}; expected more")
        factor = 1 if stored is None else first_stage.config.factor
        return Data(
            every=samples,
            training=Part(samples, range(count)),
            unseen=Part(samples, range(count, len(samples))),
            stored=stored,
            size=int(samples.sizes[0].max()) * factor,
        )

    def _drawn(self, model: LatentDiffusion, shown: Sequence[Batch]) -> list[Image.Image]:
        """A picture for each sample, as it is steered."""
        pictures: list[Image.Image] = []
        steering = model.conditioner
        assert steering is None or isinstance(steering, Steering)
        conditions = conditions_of(steering, dropout=0.0)
        for number, batch in enumerate(shown):
            with torch.inference_mode():
                cond = together([condition(batch, None) for condition in conditions])
                uncond = nothing(steering, cond) if model.config.cfg_scale != 1 else None
            count = len(next(iter(batch.values())))
            request = Request(seed=7 + AT_ONCE * number, batch_size=count)
            pictures += generate(model, request, cond=cond, uncond=uncond)
        return pictures


class Taken(NamedTuple):
    """What is not trained: the first stage, its latent space where it is known, and a text tower."""

    first_stage: Autoencoder
    space: LatentSpace | None
    tower: TextConditioner | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """`every`: all of them, of scenes those that are trained on. `stored`: where latents are read instead of
    pictures; `size`: of the pictures, in pixels."""

    every: Samples
    training: Sized
    unseen: Sized
    stored: StoredLatents | None
    size: int

    def space(self, first_stage: Autoencoder) -> LatentSpace:
        """Where the latents have unit variance, channel by channel, measured on all that are stored, or on the first
        pictures."""
        if self.stored is not None:
            return self.stored.space(per_channel=True)
        device, moments = next(first_stage.parameters()).device, LatentMoments()
        with torch.inference_mode():
            for index in range(min(MEASURED, len(self.training))):
                image = images([self.training[index]], generator("unused"))["image"]
                encoded = first_stage.encode(image.to(device))
                moments.add(encoded.mean, encoded.std)
        return moments.space(per_channel=True)

    def shown(self, columns: Sequence[Column], *, device: str) -> Iterator[Batch]:
        """The unseen samples, a few at once: pictures or latents, and what steers them."""
        sizes = self.unseen.sizes.tolist()
        for _, alike in groupby(range(len(sizes)), key=sizes.__getitem__):
            numbers = [*alike]
            for some in (numbers[start : start + AT_ONCE] for start in range(0, len(numbers), AT_ONCE)):
                found = [self.unseen[index] for index in some]
                seen = latents if found[0].picture is None else images
                read = [column(found, generator("shown", some[0])) for column in (seen, *columns)]
                yield {name: value.to(device) for one in read for name, value in one.items()}


def _network(config: SteeringConfig | None) -> Steering | None:
    match config:
        case None:
            return None
        case TextConfig():
            return TextConditioner(config)
        case ClassConfig():
            return ClassConditioner(config)
        case LayoutConfig():
            return LayoutConditioner(config)
        case SpatialConfig():
            return SpatialConditioner(config)


def latent_diffusion() -> LatentDiffusionTraining:
    return LatentDiffusionTraining(
        scenes=SceneConfig(grid=8, objects=(0.8, 0.2)),
        unet=UNetConfig(
            width=64,
            mult=(1, 2),
            num_blocks=1,
            depth=(0, 1),
            context_dim=None,
            num_heads=None,
            head_dim=32,
            norm_groups=8,
        ),
        text=CLIPTextConfig(context_length=32, width=64, num_layers=2, num_heads=2, activation="gelu"),
        schedule=DDPMConfig(betas="cosine", sigma_max=40.0),
        prediction="v",
        steering=SteeringSizes(classes=256),
        train=TrainConfig(steps=2000, batch_size=32, learning_rate=1e-3, hold=0.4, save_every=500),
    )
