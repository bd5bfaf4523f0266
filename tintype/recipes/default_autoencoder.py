"""The embedded model's first stage: 64 x 64 pictures of scenes to 8 x 8 x 16 latents.

    tintype train default_autoencoder --out runs/autoencoder --set features=runs/features/classifier.safetensors

L1 + L2 + edges + KL from the start, a learned feature distance for the last part. Publishes
`runs/autoencoder/autoencoder.safetensors`.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from tintype.checkpoints.native import load_network, save_network
from tintype.data.scenes import SceneConfig, Scenes
from tintype.data.sources import SceneImages, appearance
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.objectives.autoencoding import AutoencodingConfig, AutoencodingObjective
from tintype.objectives.perceptual import FeatureDistance
from tintype.recipes.base import Recipe, Run, average, digest, load_average
from tintype.recipes.sheets import SHOWN, side_by_side
from tintype.training.loop import TrainConfig
from tintype.training.state import MAY_CHANGE, TrainingState


@dataclass(frozen=True, kw_only=True, slots=True)
class DefaultAutoencoder(Recipe):
    """`features` names the classifier whose features measure distance; see the recipe `scene_classifier`.

    25 minutes on two CPU cores, 28 dB PSNR on unseen scenes."""

    scenes: SceneConfig
    model: AutoencoderConfig
    loss: AutoencodingConfig
    features: str | None = field(default=None, metadata=MAY_CHANGE)

    def inputs(self) -> dict[str, str]:
        classifier = self._classifier()
        read = {} if classifier is None else {"features": digest(classifier)}
        return read | {"scenes": appearance(Scenes(self.scenes, font=self.font))}

    def _classifier(self) -> Path | None:
        """The file of features, if the loss has any."""
        if not self.loss.features:
            return None
        if self.features is None:
            raise ValueError(
                "the feature loss needs a classifier: --set features=FILE (see `tintype train scene_classifier`), "
                "or --set loss.features=0 to do without"
            )
        return Path(self.features)

    def prepare(self, out: Path) -> Run:
        torch.manual_seed(self.train.seed)
        source = SceneImages(Scenes(self.scenes, font=self.font))
        distance = None
        if (classifier := self._classifier()) is not None:
            network = load_network(classifier, "classifier", ClassifierConfig, Classifier)
            distance = FeatureDistance(network.to(self.train.device))
        averaged = Autoencoder(self.model).to(self.train.device)

        def draw(state: TrainingState) -> Image.Image:
            load_average(averaged, state, "autoencoder", prefix="autoencoder.")
            image = source.batch(SHOWN, 32)["image"].to(self.train.device)
            with torch.inference_mode():
                decoded = averaged.decode(averaged.encode(image).mean)
            return side_by_side(image, decoded, scale=2)

        def publish(state: TrainingState, out: Path) -> None:
            weights = average(state, "autoencoder", prefix="autoencoder.")
            save_network(out / "autoencoder.safetensors", "autoencoder", self.model, weights, dtype=torch.float16)

        return Run(
            objective=AutoencodingObjective(Autoencoder(self.model), self.loss, features=distance),
            source=source,
            sheet=draw,
            publish=publish,
        )


def default_autoencoder() -> DefaultAutoencoder:
    return DefaultAutoencoder(
        scenes=SceneConfig(),
        model=AutoencoderConfig(
            latent_channels=16,
            width=32,
            mult=(1, 2, 4),
            num_blocks=1,
            patch_size=2,
            linear_shortcut=True,
            norm_groups=8,
        ),
        loss=AutoencodingConfig(features=0.1, features_from=2250),
        train=TrainConfig(steps=3600, batch_size=16, learning_rate=2e-3, hold=0.35, save_every=500),
    )
