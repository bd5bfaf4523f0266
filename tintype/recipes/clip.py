"""A small CLIP on scenes of emoji, or on pictures of your own.

    tintype train clip --out runs/clip
    tintype train clip --out runs/clip --set data=PREPARED      # a folder of `tintype prepare`

Publishes `clip.safetensors` (both towers; `checkpoints.clip.load_clip` opens it) and `retrieval.json`: what the
published weights score on pairs that were held out.

Cost: 2,500 steps of 64 pairs, 0.2 s of CPU time each; 53 minutes with one thread on a machine busy with much else.
Score, on 1,000 scenes of combinations that training never shows: a picture finds its caption first in 80.4 % (R@5 96.7,
R@10 98.4), a caption its picture in 80.7 % (94.3, 96.5); chance is 0.1 %. Of 256 emoji the right one is named in
42.8 %, among five in 80.4 % (zero-shot, scenes of one). 1.4 million parameters, 2.8 MB.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from tintype.checkpoints.clip import load_clip, save_clip
from tintype.common.config import Json
from tintype.common.files import whole_file
from tintype.common.rng import generator
from tintype.conditioning.clip import CLIPModel, CLIPModelConfig
from tintype.conditioning.text import TextReader, word_ids
from tintype.data.augment import any_caption, random_resized_crop
from tintype.data.known import require_each
from tintype.data.opening import open_pictures, open_samples
from tintype.data.samples import Batches, Samples, SceneSamples, images, texts
from tintype.data.scenes import SceneConfig, Scenes, is_held_out, with_article
from tintype.data.sources import appearance
from tintype.data.views import Part
from tintype.evaluation.caption_figures import RetrievalSums
from tintype.evaluation.retrieval import class_features, zero_shot
from tintype.models.clip import CLIPTextConfig
from tintype.models.clip_image import CLIPImageConfig
from tintype.models.clip_pair import CLIP, CLIPConfig
from tintype.objectives.contrastive import ContrastiveConfig, ContrastiveObjective, loss_at_chance
from tintype.recipes.base import Recipe, Run
from tintype.recipes.default_text2img import taught_words
from tintype.training.collapse import CollapseWatch
from tintype.training.loop import TrainConfig
from tintype.training.state import MAY_CHANGE, TrainingState

HELD_OUT_SEED = 20_000_000  # of scenes that no training draws
MEASURED = 64  # pictures at a time
SCENE_TEMPLATES = ("{}", "a picture of {}", "{} on a white background", "{} on a blue background")


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastiveRecipe(Recipe):
    """data: a prepared or filtered folder, read with all of CLIP's vocabulary; without it, the first `samples` of
    `scenes`, whose words alone are taught. smallest_crop: share of a picture's area that a training sample shows at
    least; 1: the square in its middle. held_out: pairs that measure the result; of a folder they are drawn by chance
    and never trained on, of scenes they show combinations that training never does. `text.vocabulary_size` follows
    from the data.
    """

    scenes: SceneConfig
    samples: int
    image: CLIPImageConfig
    text: CLIPTextConfig
    loss: ContrastiveConfig
    data: str | None = field(default=None, metadata=MAY_CHANGE)
    smallest_crop: float = 1.0
    held_out: int = 1000

    def inputs(self) -> dict[str, str]:
        if self.data is None:
            return {"scenes": appearance(Scenes(self.scenes, font=self.font))}
        return {"data": open_samples(Path(self.data)).digest}

    def model(self) -> CLIPModelConfig:
        words = taught_words(self.scenes) if self.data is None else ()
        text = replace(self.text, vocabulary_size=len(word_ids(words))) if words else self.text
        clip = CLIPConfig(text=text, image=self.image, logit_bias=self.loss.kind == "sigmoid")
        return CLIPModelConfig(clip=clip, words=words)

    def prepare(self, out: Path) -> Run:
        config = self.model()
        learned, held_out = self.split()
        torch.manual_seed(self.train.seed)
        objective = ContrastiveObjective(CLIP(config.clip), self.loss)
        crop = random_resized_crop(self.image.image_size, smallest=self.smallest_crop)
        source = Batches(
            learned,
            (images, texts(TextReader(config.text).tokens)),
            seed=self.train.seed,
            augment=(any_caption, crop),
        )

        def publish(state: TrainingState, out: Path) -> None:
            save_clip(out / "clip.safetensors", config, state.emas["clip"].state_dict(), dtype=torch.float16)
            model = load_clip(out / "clip.safetensors", device=self.train.device)
            with whole_file(out / "retrieval.json") as path:
                path.write_text(json.dumps(self._measured(model, held_out), indent=2) + "\n")

        chance = loss_at_chance(self.loss.kind, self.train.batch_size * self.train.accumulate)
        return Run(
            objective=objective,
            source=source,
            sheet=None,
            publish=publish,
            hooks=(CollapseWatch(chance=chance, after=2 * self.train.warmup),),
        )

    def split(self) -> tuple[Samples, Samples]:
        """What is learned from and what measures."""
        if self.data is None:
            return SceneSamples(Scenes(self.scenes, font=self.font), self.samples), self._unseen_scenes()
        every = open_pictures(Path(self.data))
        remedy = "expected one for each: `tintype prepare --require-caption`, or `tintype filter --min-caption 1`"
        require_each(every, "caption", data=self.data, remedy=remedy)
        if not 0 < self.held_out < len(every):
            raise ValueError(f"held_out {self.held_out}: expected 1 to {len(every) - 1}, {self.data} has {len(every)}")
        order = torch.randperm(len(every), generator=generator("held out")).numpy()
        return Part(every, order[self.held_out :]), Part(every, order[: self.held_out])

    def _unseen_scenes(self) -> Samples:
        """Scenes with combinations that training never shows, each with a caption of its own."""
        scenes = Scenes(replace(self.scenes, split="all", seed=HELD_OUT_SEED), font=self.font)
        chosen: dict[str, int] = {}
        index = 0
        while len(chosen) < self.held_out:
            plan = scenes.plan(index)
            if any(is_held_out(plan)):
                chosen.setdefault(plan.caption, index)
            index += 1
        return Part(SceneSamples(scenes, index), list(chosen.values()))

    def _measured(self, model: CLIPModel, held_out: Samples) -> dict[str, Json]:
        sums = RetrievalSums(model)
        for first in range(0, len(held_out), MEASURED):
            sums.update(first, [held_out[index] for index in range(first, min(first + MEASURED, len(held_out)))])
        return sums.figures() | (self._zero_shot(model) if self.data is None else {})

    def _zero_shot(self, model: CLIPModel) -> dict[str, Json]:
        """Which of all emoji a scene of one shows, asked by its name."""
        scenes = Scenes(replace(self.scenes, objects=(1.0,), split="all", seed=HELD_OUT_SEED + 1), font=self.font)
        shown = [scenes[index] for index in range(self.held_out)]
        pictures = model.encode_pictures([scene.picture for scene in shown])
        names = [with_article(emoji.name) for emoji in scenes.emoji]
        labels = torch.tensor([int(scene.classes[0]) for scene in shown])
        found = zero_shot(pictures, class_features(model, names, SCENE_TEMPLATES), labels)
        return {f"zero_shot_{name}": value for name, value in found.items()}


def clip() -> ContrastiveRecipe:
    return ContrastiveRecipe(
        scenes=SceneConfig(),
        samples=50_000,
        image=CLIPImageConfig(
            image_size=64, patch_size=16, width=128, num_layers=4, num_heads=4, projection_dim=128, activation="gelu"
        ),
        text=CLIPTextConfig(
            context_length=24, width=128, num_layers=2, num_heads=4, projection_dim=128, activation="gelu"
        ),
        loss=ContrastiveConfig(),
        train=TrainConfig(
            steps=2500,
            batch_size=64,
            warmup=100,
            hold=0.0,
            betas=(0.9, 0.98),
            weight_decay=0.1,
            decay="matrices",
            ema_decay=0.99,
        ),
    )
