"""A classifier of emoji, trained on rendered scenes only.

    tintype train scene_classifier --out runs/features                      # features for the autoencoder's loss
    tintype train scene_classifier --out runs/judge --set train.seed=1      # the judge of `tintype eval`: another seed,
                                                                            # never used in training
Like every other run it sees nothing that is held out. Publishes `classifier.safetensors`.

Cost: about 6 minutes on 2 CPU cores. Expected: training accuracy above 0.99.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tintype.checkpoints.native import save_network
from tintype.data.scenes import SceneConfig, Scenes
from tintype.data.sources import SceneObjects, appearance
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.objectives.classification import ClassificationObjective
from tintype.recipes.base import Recipe, Run
from tintype.training.loop import TrainConfig
from tintype.training.state import TrainingState


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneClassifier(Recipe):
    """`train.seed` decides all that is random: weights, noise and, added to `scenes.seed`, the scenes."""

    scenes: SceneConfig
    model: ClassifierConfig

    def inputs(self) -> dict[str, str]:
        return {"scenes": appearance(self._scenes())}

    def _scenes(self) -> Scenes:
        return Scenes(replace(self.scenes, seed=self.scenes.seed + self.train.seed), font=self.font)

    def prepare(self, out: Path) -> Run:
        told, shown = (self.model.num_classes, self.model.image_size), (self.scenes.vocabulary, self.scenes.size)
        if told != shown:
            raise ValueError(
                f"model.num_classes and model.image_size are {told}, scenes.vocabulary and scenes.size {shown}: "
                "expected the same"
            )
        torch.manual_seed(self.train.seed)
        classifier = Classifier(self.model)

        def publish(state: TrainingState, out: Path) -> None:
            weights = state.emas["classifier"].state_dict()
            save_network(out / "classifier.safetensors", "classifier", self.model, weights, dtype=torch.float16)

        return Run(
            objective=ClassificationObjective(classifier),
            source=SceneObjects(self._scenes()),
            sheet=None,
            publish=publish,
        )


def scene_classifier() -> SceneClassifier:
    return SceneClassifier(
        scenes=SceneConfig(seed=1_000),
        model=ClassifierConfig(),
        train=TrainConfig(steps=1600, batch_size=64, warmup=50, hold=0.3, ema_decay=0.99),
    )
