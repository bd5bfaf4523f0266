"""The embedded model: text to 64 x 64 scenes, by latent diffusion in the latents of `default_autoencoder`.

    tintype train default_text2img --out runs/text2img --set autoencoder=runs/autoencoder/autoencoder.safetensors

The U-Net and CLIP's text tower learn together. Publishes the whole model as a folder: `runs/text2img/model`.

Faster on two cores: `torchrun --nproc-per-node 2 -m tintype train …`, and on a processor with bfloat16 instructions
`--set train.precision=bf16`. Samples a second on two cores of an AMD EPYC with AVX-512: one process in float32 87, in
bfloat16 94; two processes in bfloat16 135. `default_tasks` goes on from it to all tasks of the embedded model.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from tintype.checkpoints import load
from tintype.checkpoints.model_folder import AUTOENCODER, save_model
from tintype.checkpoints.native import load_network
from tintype.conditioning.objects import ObjectsConfig
from tintype.conditioning.text import TextConditioner, TextConfig, word_ids, words_of
from tintype.data.emoji import synonyms, vocabulary
from tintype.data.encoding import stored_scenes
from tintype.data.holes import objects, repainted
from tintype.data.samples import Batches, SceneSamples, WithPictures, latents, texts
from tintype.data.scenes import COLOURS, POSITIONS, RELATIONS, SceneConfig, Scenes, with_article
from tintype.data.sources import appearance, captions
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.scaling import SCALINGS, Prediction
from tintype.diffusion.schedule import DDPMConfig, make_schedule
from tintype.diffusion.spacing import SPACINGS
from tintype.families.base import FamilyConfig, LatentDiffusion, assemble
from tintype.generation import generate_each
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.clip import CLIPTextConfig
from tintype.models.unet import UNet, UNetConfig
from tintype.objectives.conditions import Condition, RepaintCondition, TextCondition
from tintype.objectives.denoising import DenoisingObjective
from tintype.recipes.base import Recipe, Run, digest, load_average
from tintype.recipes.sheets import SHOWN, sheet
from tintype.tasks.request import Request
from tintype.training.loop import TrainConfig
from tintype.training.state import MAY_CHANGE, TrainingState

SCHEDULER = "trailing"  # of the sheets and the published model


@dataclass(frozen=True, kw_only=True, slots=True)
class DefaultText2Img(Recipe):
    """`autoencoder` names the finished first stage, or `start` a model (name or folder) to begin with, which brings its
    own first stage and latent space. `latents`: how many scenes are encoded, once, into the folder. `objects`: how many
    boxes with names are read beside the caption. `repainted`: in which share of the samples a part of the picture is
    known, by a mask and the masked picture beside the noise, where the U-Net has channels for them.

    One hour for 10,000 steps on two CPU cores, two processes; the model card says what came of how many.
    """

    scenes: SceneConfig
    unet: UNetConfig
    text: CLIPTextConfig  # vocabulary_size is set from the captions' words
    schedule: DDPMConfig
    prediction: Prediction
    autoencoder: str | None = field(default=None, metadata=MAY_CHANGE)
    start: str | None = field(default=None, metadata=MAY_CHANGE)
    latents: int = 65_536
    caption_dropout: float = 0.1
    objects: int = 0
    objects_dropout: tuple[float, float] = (0.5, 0.3)  # of the objects, and of their places alone
    repainted: float = 0.4
    steps: int = field(default=25, metadata=MAY_CHANGE)  # of sampling, as is the next
    cfg_scale: float = field(default=3.0, metadata=MAY_CHANGE)

    def inputs(self) -> dict[str, str]:
        """With `start` its digest as well: it decides the latent space."""
        read = {"autoencoder": digest(self._first_stage()), "scenes": appearance(Scenes(self.scenes, font=self.font))}
        return read if self.start is None else read | {"start": load(self.start, device="cpu").digest}

    def _first_stage(self) -> Path:
        match self.autoencoder, self.start:
            case None, None:
                raise ValueError(
                    "a first stage is expected: --set autoencoder=FILE (see `tintype train default_autoencoder`), or "
                    "--set start=MODEL"
                )
            case str(file), None:
                return Path(file)
            case None, str(model):
                return Path(load(model, device="cpu").source) / AUTOENCODER
            case _:
                raise ValueError(f"start={self.start} brings its own first stage; leave out autoencoder")

    def prepare(self, out: Path) -> Run:
        self._check()
        torch.manual_seed(self.train.seed)
        first_stage = load_network(self._first_stage(), "autoencoder", AutoencoderConfig, Autoencoder)
        first_stage = first_stage.to(self.train.device)
        masked = self._shows_masks(first_stage.config)
        scenes = Scenes(self.scenes, font=self.font)
        text = self._text()
        unet, tower = UNet(self.unet), TextConditioner(text)
        space = None if self.start is None else self.begin(unet, tower, self.start)

        stored = stored_scenes(out / "latents", scenes, self.latents, first_stage)
        if space is None:
            space = stored.space(per_channel=True)
        columns = [latents, texts(tower.tokens)]
        columns += [] if text.objects is None else [objects(text.objects)]
        columns += [repainted(self.repainted)] if masked else []
        samples = WithPictures(stored, SceneSamples(scenes, self.latents)) if masked else stored
        source = Batches(samples, columns, seed=self.train.seed)
        family = self._family(first_stage.config, text, space)

        def averaged(state: TrainingState) -> LatentDiffusion:
            network = UNet(self.unet).to(self.train.device)
            conditioner = TextConditioner(text).to(self.train.device)
            load_average(network, state, "diffusion", prefix="unet.")
            load_average(conditioner, state, "diffusion", prefix="text.")
            return assemble(
                family,
                unet=network,
                autoencoder=first_stage,
                conditioner=conditioner,
                source="training",
                fingerprint=lambda: "0" * 10,
            )

        def draw(state: TrainingState) -> Image.Image:
            model = averaged(state)
            prompts = captions(scenes, range(SHOWN, SHOWN + 32))
            return sheet(generate_each(model, prompts, Request(seed=7)), columns=8, scale=2)

        def publish(state: TrainingState, out: Path) -> None:
            save_model(out / "model", averaged(state), dtype=torch.float16)

        conditions: list[Condition] = [TextCondition(tower, dropout=self.caption_dropout, objects=self.objects_dropout)]
        conditions += [RepaintCondition(first_stage, space, size=self.scenes.size)] if masked else []
        return Run(
            objective=DenoisingObjective(
                unet,
                conditions,
                schedule=make_schedule(self.schedule),
                scaling=SCALINGS[self.prediction],
                space=space,
            ),
            source=source,
            sheet=draw,
            publish=publish,
        )

    def _check(self) -> None:
        """Raises `ValueError` for what no run could be made of."""
        if self.latents < 1:
            raise ValueError(f"latents {self.latents}: expected 1 or more")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout {self.caption_dropout}: expected 0 to 1")
        if self.prediction == "edm":
            raise ValueError("prediction edm is for data of std 0.5; latents have std 1: use v, its equal for them")
        SPACINGS[SCHEDULER](make_schedule(self.schedule), self.steps)  # refuses what no sheet could be drawn with

    def _shows_masks(self, first_stage: AutoencoderConfig) -> bool:
        """Whether the U-Net has channels for a mask and the masked picture. Raises `ValueError` for other numbers."""
        channels = first_stage.latent_channels
        if self.unet.in_channels not in (channels, 2 * channels + 1):
            raise ValueError(
                f"the first stage has {channels} channels, unet.in_channels is {self.unet.in_channels}; expected the "
                f"same, or {2 * channels + 1} with a mask and the masked picture"
            )
        return self.unet.in_channels > channels

    def _text(self) -> TextConfig:
        """The tower of the captions' words, and of the objects that are read beside them."""
        words, read = taught_words(self.scenes), None
        if self.objects:
            assert self.unet.context_dim is not None
            classes = len(vocabulary(self.scenes.vocabulary))
            read = ObjectsConfig(num_classes=classes, width=self.unet.context_dim, count=self.objects)
        clip = dataclasses.replace(self.text, vocabulary_size=len(word_ids(words)))
        return TextConfig(clip=clip, words=words, pooled=True, objects=read)

    def _family(self, first_stage: AutoencoderConfig, text: TextConfig, space: LatentSpace) -> FamilyConfig:
        """What is published beside the weights."""
        return FamilyConfig(
            name="tintype",
            unet=self.unet,
            autoencoder=first_stage,
            conditioner=text,
            schedule=self.schedule,
            prediction=self.prediction,
            space=space,
            size=self.scenes.size,
            steps=self.steps,
            cfg_scale=self.cfg_scale,
            scheduler=SCHEDULER,
            further=("mask", "masked") if self._shows_masks(first_stage) else (),
            labels=() if text.objects is None else tuple(one.name for one in vocabulary(self.scenes.vocabulary)),
        )

    def begin(self, unet: UNet, tower: TextConditioner, name: str) -> LatentSpace:
        """Give the networks the weights of a model, and return the latent space they know. Mask channels that
        the model has not begin at zero, and objects as the words for them."""
        model = load(name, device="cpu")
        own_text, other_text = tower.config, model.config.conditioner
        assert isinstance(other_text, TextConfig)
        if other_text.objects is None:
            own_text = dataclasses.replace(own_text, objects=None)
        more = self.unet.in_channels - model.config.unet.in_channels
        for part, own, other in (
            (
                "U-Net",
                dataclasses.replace(self.unet, in_channels=self.unet.in_channels - max(more, 0)),
                model.config.unet,
            ),
            ("text tower", own_text, other_text),
            ("schedule", self.schedule, model.config.schedule),
            ("prediction", self.prediction, model.config.prediction),
        ):
            if own != other:
                raise ValueError(
                    f"start={name}: its {part} is configured otherwise than this recipe's; see its model.json"
                )
        assert isinstance(model.denoiser.network, UNet)
        weights = model.denoiser.network.state_dict()
        weights["conv_in.weight"] = F.pad(weights["conv_in.weight"], (0, 0, 0, 0, 0, max(more, 0)))
        unet.load_state_dict(weights)
        learned = model.networks["conditioner"].state_dict()
        fresh = {key: value for key, value in tower.state_dict().items() if key.startswith("objects.")}
        tower.load_state_dict(fresh | learned)
        if self.objects and other_text.objects is None:
            tower.name_objects([emoji.name for emoji in vocabulary(self.scenes.vocabulary)])
        return model.space


def taught_words(scenes: SceneConfig) -> tuple[str, ...]:
    """Every word a caption of these scenes can hold."""
    nouns = [emoji.name for emoji in vocabulary(scenes.vocabulary)]
    nouns += [word for others in synonyms(scenes.vocabulary).values() for word in others]
    frame = "a picture of an small large and, on to over gradient background"
    phrases = [with_article(noun) for noun in nouns]
    return words_of([*phrases, *COLOURS, *POSITIONS, *RELATIONS, frame])


def default_text2img() -> DefaultText2Img:
    return DefaultText2Img(
        scenes=SceneConfig(grid=8),  # the first stage's factor: a drawing has the same latents wherever it stands
        unet=UNetConfig(
            in_channels=16,
            out_channels=16,
            width=88,
            mult=(1, 2),
            num_blocks=1,
            depth=(1, 1),
            middle_depth=1,
            context_dim=192,
            vector_dim=192,
            num_heads=None,
            head_dim=44,
            norm_groups=8,
        ),
        text=CLIPTextConfig(context_length=32, width=192, num_layers=2, num_heads=4, activation="gelu"),
        schedule=DDPMConfig(betas="cosine", sigma_max=40.0, draw_exponent=0.6),
        prediction="v",
        train=TrainConfig(
            steps=20_000, batch_size=24, accumulate=2, learning_rate=1.2e-3, hold=0.45, ema_decay=0.999, save_every=500
        ),
        sheet_every=2000,
    )
