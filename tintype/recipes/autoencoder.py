"""A first stage of any kind against a patch critic: rendered scenes in miniature, or a folder of `tintype prepare`.

    tintype train autoencoder --out runs/kl                                                     # KL
    tintype train autoencoder --out runs/vq --set model.codebook_size=256                       # VQ
    ... --set loss.codebook.learning=average                                                    # VQ of running means
    ... --set loss.features=0.1 --set features=runs/features/classifier.safetensors             # or a CLIP's file
    ... --set loss.features=1 --set 'lpips=["vgg16-397923af.pth","vgg.pth"]'                    # see `load_lpips`
    ... --set data=prepared/birds --set size=128 --set mirrored=true

The factor is `model`'s: patch_size * 2 ** (len(mult) - 1), from 1 to 32. Publishes `autoencoder.safetensors`, with the
latent space that was measured in its header, and `validation.jsonl`: what held-out pictures lose.

Cost: about half a second a step on one CPU core. Measured in short runs of 250 steps (critic from step 125, warmup 50,
ema_decay 0.97), on unseen scenes: KL 22.1 dB; 128 codes of running means 21.5 dB, 99 % of them used, perplexity 45.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tintype.checkpoints.clip import KIND as CLIP_KIND
from tintype.checkpoints.clip import load_clip
from tintype.checkpoints.lpips_files import load_lpips
from tintype.checkpoints.native import load_network, read_header, save_network
from tintype.common.files import load_tensors
from tintype.common.rng import generator
from tintype.data.augment import center_crop, flips, random_crop
from tintype.data.opening import open_pictures, open_samples
from tintype.data.samples import Batches, SceneSamples, images
from tintype.data.scenes import SceneConfig, Scenes
from tintype.data.sources import appearance
from tintype.data.views import Part, Sized
from tintype.diffusion.latent_space import LatentMoments, LatentSpace
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.models.critic import Critic, CriticConfig
from tintype.models.lpips import LPIPS
from tintype.objectives.adversarial import AdversarialConfig
from tintype.objectives.autoencoding import AutoencodingConfig, AutoencodingObjective
from tintype.objectives.perceptual import FeatureDistance
from tintype.recipes.base import Recipe, Run, digest, load_average
from tintype.recipes.sheets import SHOWN, side_by_side
from tintype.training.hooks import Measured
from tintype.training.loop import TrainConfig
from tintype.training.state import MAY_CHANGE, TrainingState

AT_ONCE = 8  # pictures that are measured together


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderTraining(Recipe):
    """`data`: a folder of pictures of at least `size` pixels a side, cut to squares of it, at random places, and with
    `mirrored` every other one turned left to right; without it `samples` rendered scenes.

    The last `held_out` pictures are not trained on but drawn and measured. The latent space is that of the first
    `measured` pictures; one scale for all channels, or `per_channel` a scale and a shift of each.
    `features`: the file of a network trained here, `lpips`: files of VGG16 and LPIPS, for the loss's feature distance.
    """

    scenes: SceneConfig
    model: AutoencoderConfig
    loss: AutoencodingConfig
    critic: CriticConfig = field(default_factory=CriticConfig)
    data: str | None = field(default=None, metadata=MAY_CHANGE)
    size: int = 64
    mirrored: bool = False
    samples: int = 16_384
    held_out: int = 32
    validate_every: int = field(default=500, metadata=MAY_CHANGE)
    measured: int = 1024
    per_channel: bool = False
    features: str | None = field(default=None, metadata=MAY_CHANGE)
    lpips: tuple[str, ...] = field(default=(), metadata=MAY_CHANGE)

    def inputs(self) -> dict[str, str]:
        self._check()
        files = [*self.lpips, *([] if self.features is None else [self.features])]
        read = {f"features {number}": digest(Path(file)) for number, file in enumerate(files)}
        if self.data is not None:
            return read | {"data": open_samples(Path(self.data)).digest}
        return read | {"scenes": appearance(Scenes(self.scenes, font=self.font))}

    def _check(self) -> None:
        for name in ("samples", "held_out", "validate_every", "measured"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected 1 or more")
        if self.size < 1 or self.size % self.model.factor:
            raise ValueError(f"size {self.size}: expected a multiple of {self.model.factor}, the factor of the model")
        if self.data is None and self.size > self.scenes.size:
            raise ValueError(
                f"size {self.size}, but scenes are of {self.scenes.size} pixels: --set data=FOLDER (see `tintype "
                "prepare`), or size and scenes.size alike"
            )
        given = (self.features is not None) + bool(self.lpips)
        if given != bool(self.loss.features):
            raise ValueError(
                f"loss.features {self.loss.features} with {given} of features and lpips set; expected one of them and "
                "a weight: --set features=FILE (see `tintype train scene_classifier`, `tintype train clip`) or --set "
                """'lpips=["vgg16-397923af.pth","vgg.pth"]', or none: --set loss.features=0"""
            )

    def prepare(self, out: Path) -> Run:
        self._check()
        torch.manual_seed(self.train.seed)
        training, unseen = self._data()
        source = Batches(
            training,
            [images],
            seed=self.train.seed,
            augment=[random_crop(self.size), *([flips()] if self.mirrored else [])],
        )
        autoencoder = Autoencoder(self.model)
        critic = None if self.loss.adversarial is None else Critic(self.critic)
        if critic is not None:
            critic.fit(source.batch(0, self.train.batch_size)["image"])
        averaged = Autoencoder(self.model).to(self.train.device)

        def now(state: TrainingState) -> Autoencoder:
            load_average(averaged, state, "autoencoder", prefix="autoencoder.")
            return averaged

        def draw(state: TrainingState) -> Image.Image:
            pairs = [*self._round_trips(now(state), unseen)]
            image, decoded = (torch.cat(halves) for halves in zip(*pairs, strict=True))
            return side_by_side(image, decoded, scale=max(1, 128 // self.size))

        def measure(state: TrainingState) -> dict[str, float]:
            errors = [a.sub(b.clamp(-1, 1)).flatten(1) for a, b in self._round_trips(now(state), unseen)]
            difference = torch.cat(errors)
            psnr = 10 * torch.log10(4 / difference.square().mean(dim=1))
            return {"psnr": float(psnr.mean()), "l1": float(difference.abs().mean())}

        def publish(state: TrainingState, out: Path) -> None:
            file, weights = out / "autoencoder.safetensors", now(state).state_dict()
            if not _holds(file, weights):  # else a finished run would be measured anew at every call
                space = self._space(averaged, training)
                save_network(file, "autoencoder", self.model, weights, dtype=torch.float32, space=space)

        return Run(
            objective=AutoencodingObjective(autoencoder, self.loss, features=self._distance(), critic=critic),
            source=source,
            sheet=draw,
            publish=publish,
            hooks=(Measured(out / "validation.jsonl", measure, every=self.validate_every, last=self.train.steps),),
        )

    def _data(self) -> tuple[Sized, Sized]:
        """What is trained on, and what is held out."""
        if self.data is None:
            scenes = Scenes(self.scenes, font=self.font)
            return SceneSamples(scenes, self.samples), SceneSamples(scenes, self.held_out, first=SHOWN)
        samples = open_pictures(Path(self.data))
        if (count := len(samples) - self.held_out) < 1:
            raise ValueError(f"data={self.data} has {len(samples)} samples, held_out is {self.held_out}; expected more")
        return Part(samples, range(count)), Part(samples, range(count, len(samples)))

    def _distance(self) -> FeatureDistance | LPIPS | None:
        if self.lpips:
            return load_lpips([Path(file) for file in self.lpips]).to(self.train.device)
        if self.features is None:
            return None
        path = Path(self.features)
        if read_header(path).kind == CLIP_KIND:
            return FeatureDistance(load_clip(path, device=self.train.device).network.image)
        network = load_network(path, "classifier", ClassifierConfig, Classifier)
        return FeatureDistance(network.to(self.train.device))

    def _pictures(self, samples: Sized, count: int) -> Iterator[Tensor]:
        """The first of them, cut in the middle, a few at a time: B 3 H W."""
        cut, unused = center_crop(self.size), generator("unused")
        for first in range(0, min(count, len(samples)), AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, count, len(samples)))
            found = [cut(samples[number], unused) for number in numbers]
            yield images(found, unused)["image"].to(self.train.device)

    @torch.inference_mode()
    def _round_trips(self, autoencoder: Autoencoder, samples: Sized) -> list[tuple[Tensor, Tensor]]:
        """Pictures and what the averaged weights make of them."""
        return [
            (image, autoencoder.decode(autoencoder.encode(image).mean))
            for image in self._pictures(samples, len(samples))
        ]

    @torch.inference_mode()
    def _space(self, autoencoder: Autoencoder, samples: Sized) -> LatentSpace:
        moments = LatentMoments()
        for image in self._pictures(samples, self.measured):
            encoded = autoencoder.encode(image)
            moments.add(encoded.mean, encoded.std)
        return moments.space(per_channel=self.per_channel)


def _holds(file: Path, weights: Mapping[str, Tensor]) -> bool:
    """Whether a file has been published with these weights."""
    if not file.is_file():
        return False
    found = load_tensors(file)
    same = (torch.equal(value.cpu(), found[name]) for name, value in weights.items())
    return found.keys() == weights.keys() and all(same)


def autoencoder() -> AutoencoderTraining:
    return AutoencoderTraining(
        scenes=SceneConfig(),
        model=AutoencoderConfig(
            latent_channels=4,
            width=32,
            mult=(1, 2),
            num_blocks=1,
            patch_size=2,
            linear_shortcut=True,
            norm_groups=8,
        ),
        loss=AutoencodingConfig(l2=0.0, edges=0.5, kl=1e-3, adversarial=AdversarialConfig(weight=0.1, start=1000)),
        critic=CriticConfig(width=32, num_layers=2),
        train=TrainConfig(
            steps=2000,
            batch_size=16,
            learning_rate=1e-3,
            betas=(0.5, 0.9),
            weight_decay=0.0,
            ema_decay=0.995,
            save_every=500,
        ),
    )
