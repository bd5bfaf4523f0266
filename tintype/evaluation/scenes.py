"""How good a model of emoji scenes is: does a picture show what its prompt says?

Two judges: a classifier trained on rendered scenes only (`weights/judge.safetensors`, recipe `scene_classifier` with
`train.seed=1`) and template matching, which learned nothing. Prompts combine what training never combined. Controls:
rendered scenes and their reconstructions (the ceiling), and prompts shuffled among the pictures (chance).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from tintype.common.files import whole_file
from tintype.data.scenes import COLOURS, RELATIONS, SIZES, Plan, SceneConfig, Scenes, held_out
from tintype.data.sources import reading, region_of, to_tensor
from tintype.evaluation.extractors import load_judge
from tintype.evaluation.templates import Templates, border_colour
from tintype.families.base import LatentDiffusion
from tintype.generation import generate_each
from tintype.tasks.request import Request

SEED = 20_000_000  # of prompts, pictures and scenes; training uses none of them
BATCH = 20
RECONSTRUCTED = 512
SIZE = 64  # pixels of the scenes that the judge learned from

Score = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Answers for objects, one row each: `wanted` class, the classifier's and the templates' ranking (best first)."""

    wanted: Tensor
    classifier: Tensor
    templates: Tensor

    def scores(self) -> Score:
        return {
            "classifier_top1": _top(self.classifier, self.wanted, 1),
            "classifier_top5": _top(self.classifier, self.wanted, 5),
            "template_top1": _top(self.templates, self.wanted, 1),
        }

    def shuffled(self) -> "Judged":
        """The same answers held against other prompts, two rows on (a picture has at most two): what chance gives."""
        away = min(2, len(self.wanted) // 2)  # far less than a round of prompts, after which they come again
        return Judged(wanted=self.wanted.roll(away), classifier=self.classifier, templates=self.templates)


class Judge:
    """Reads which emoji a picture, or one half of it, shows. `digest` says which weights read (10 hex digits)."""

    def __init__(self, scenes: Scenes, *, weights: Path | None = None) -> None:
        self.classifier, self.digest = load_judge(weights)
        seen, needed = self.classifier.config, (len(scenes.emoji), SIZE)
        if (seen.num_classes, seen.image_size) != needed:
            raise ValueError(
                f"{weights} tells {seen.num_classes} things apart at {seen.image_size} pixels; expected "
                f"{needed[0]} at {needed[1]}: make it with recipe scene_classifier as it is"
            )
        size = scenes.config.size
        single = sorted({2 * round(size * SIZES[""] * part / 2) for part in (0.88, 0.94, 1.0, 1.06, 1.12)})
        self.single = Templates(scenes.glyphs, scenes.emoji, single)
        self.half = Templates(
            scenes.glyphs, scenes.emoji, sorted({2 * round(size * part / 2) for part in (0.44, 0.48)})
        )

    @torch.inference_mode()
    def objects(self, image: Tensor, wanted: Sequence[int], regions: Sequence[str]) -> Judged:
        """image: B 3 H W; what is wanted of each, and where: "whole", or a half of it."""
        shown = torch.cat([reading(one[None], region) for one, region in zip(image, regions, strict=True)])
        grounds = border_colour(image)
        templates = [
            (self.single if region == "whole" else self.half).distances(one[None], ground[None])[0]
            for one, ground, region in zip(shown, grounds, regions, strict=True)
        ]
        return Judged(
            wanted=torch.tensor(wanted),
            classifier=self.classifier(shown).argsort(dim=1, descending=True),
            templates=torch.stack(templates).argsort(dim=1),
        )


def evaluate_scenes(
    model: LatentDiffusion,
    *,
    objects: int = 500,
    pairs: int = 200,
    font: str | None = None,
    sheet: Path | None = None,
    judge_weights: Path | None = None,
    quiet: bool = False,
) -> dict[str, object]:
    """All figures as plain JSON values; `sheet`: where to draw 32 one-object and 32 two-object prompts;
    `judge_weights`: a classifier file instead of the embedded one.

    Raises `ValueError`, before any work, for a model of another size, an absent font or a sheet that cannot be written.
    """
    if objects < 2 or pairs < 2:
        raise ValueError(f"objects {objects}, pairs {pairs}: expected 2 or more of each; ask for more")
    if model.config.size != SIZE:
        raise ValueError(
            f"{model.source} draws {model.config.size} x {model.config.size} pixels; the judge reads {SIZE} x {SIZE}: "
            f"use a model of size {SIZE}"
        )
    if sheet is not None:
        _check_sheet(sheet)
    scenes = Scenes(SceneConfig(size=SIZE, split="all", plain_captions=True, seed=SEED), font=font)
    judge = Judge(scenes, weights=judge_weights)
    groups = {
        "one_object_held_out": one_object_plans(scenes, objects, unseen=True),
        "one_object_seen": one_object_plans(scenes, pairs, unseen=False),
        "two_objects_held_out": two_object_plans(scenes, pairs),
    }
    result: dict[str, object] = {
        "model": model.digest,
        "judge": judge.digest,
        "unread_words": unread_words(model, [plan.caption for plans in groups.values() for plan in plans]),
        "autoencoder": reconstruction(model, scenes),
    }
    drawn: dict[str, list[Image.Image]] = {}
    for name, plans in groups.items():
        drawn[name] = _generate(model, plans, name, quiet=quiet)
        generated = to_tensor([np.asarray(picture) for picture in drawn[name]])
        rendered = to_tensor([scenes.render(plan).picture for plan in plans])
        judged = judged_objects(judge, scenes, generated, plans)
        result[name] = {
            "pictures": len(plans),
            "distinct": len({plan.caption for plan in plans}),
            **judged.scores(),
            "background": background_right(generated, plans),
            "shuffled_classifier_top1": judged.shuffled().scores()["classifier_top1"],
            "rendered": judged_objects(judge, scenes, rendered, plans).scores(),
            "reconstructed": judged_objects(judge, scenes, _round_trip(model, rendered), plans).scores(),
        }
    if sheet is not None:
        one, two = "one_object_held_out", "two_objects_held_out"
        plans = groups[one][:32] + groups[two][:32]
        with whole_file(sheet) as temporary:
            captioned(drawn[one][:32] + drawn[two][:32], [plan.caption for plan in plans]).save(temporary, format="PNG")
    return result


def _check_sheet(path: Path) -> None:
    """Make its folder; raises `ValueError` where no PNG file can be written."""
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"sheet {path}: expected the name of a file that ends in .png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"sheet {path}: {error.strerror}: {path.parent}; name a folder that can be made") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"sheet {path}: {path.parent} cannot be written; name a folder that you may write to")


# The prompts


def one_object_plans(scenes: Scenes, count: int, *, unseen: bool) -> list[Plan]:
    """One emoji on one colour, in a random order of all combinations that were (not) held out; round again if short."""
    generator = np.random.default_rng((SEED, int(unseen)))
    combinations = [
        (emoji, colour)
        for emoji in scenes.emoji
        for colour in COLOURS
        if held_out("colour", emoji.name, colour) == unseen
    ]
    order = generator.permutation(len(combinations))
    chosen = [combinations[order[number % len(order)]] for number in range(count)]
    return [scenes.one(emoji, (colour,), generator=generator) for emoji, colour in chosen]


def two_object_plans(scenes: Scenes, count: int) -> list[Plan]:
    """Two emoji never seen together, in a random relation on a random colour."""
    generator = np.random.default_rng((SEED, 2))
    plans: list[Plan] = []
    while len(plans) < count:
        first, second = (scenes.emoji[number] for number in generator.choice(len(scenes.emoji), 2, replace=False))
        if held_out("pair", first.name, second.name):
            relation = RELATIONS[generator.integers(len(RELATIONS))]
            colour = list(COLOURS)[generator.integers(len(COLOURS))]
            plans.append(scenes.two((first, second), relation, (colour,), generator=generator))
    return plans


def unread_words(model: LatentDiffusion, prompts: Sequence[str]) -> list[str]:
    """Words of the prompts that the model leaves out: it never saw them, or they are beyond its length."""
    readings = [tower.read(prompt) for tower in model.towers for prompt in prompts]
    return sorted({word for reading in readings for word in (*reading.unknown, *reading.cut)})


def _generate(model: LatentDiffusion, plans: Sequence[Plan], name: str, *, quiet: bool) -> list[Image.Image]:
    pictures: list[Image.Image] = []
    for first in tqdm(range(0, len(plans), BATCH), desc=name, unit="batch", disable=quiet or None, leave=False):
        prompts = [plan.caption for plan in plans[first : first + BATCH]]
        pictures += generate_each(model, prompts, Request(seed=SEED + first))
    return pictures


# The figures


def judged_objects(judge: Judge, scenes: Scenes, image: Tensor, plans: Sequence[Plan]) -> Judged:
    """One row per object of the plans; of two, each is read in the half where the caption puts it."""
    number = {emoji.name: index for index, emoji in enumerate(scenes.emoji)}
    wanted: list[int] = []
    regions: list[str] = []
    rows: list[int] = []
    for row, plan in enumerate(plans):
        for order, placement in enumerate(plan.placements):
            rows.append(row)
            wanted.append(number[placement.emoji.name])
            regions.append(region_of(plan.relation, first=order == 0) if plan.relation else "whole")
    return judge.objects(image[rows], wanted, regions)


def background_right(image: Tensor, plans: Sequence[Plan]) -> float:
    """Share of pictures whose border is nearer to the colour named than to any other of the sixteen."""
    palette = torch.tensor(list(COLOURS.values())) / 255  # 16 3
    nearest = torch.cdist(border_colour(image), palette).argmin(dim=1)
    names = list(COLOURS)
    right = [names[int(index)] == plan.colours[0] for index, plan in zip(nearest, plans, strict=True)]
    return round(sum(right) / len(right), 4)


@torch.inference_mode()
def _round_trip(model: LatentDiffusion, image: Tensor) -> Tensor:
    parts = [model.autoencoder.decode(model.autoencoder.encode(part.to(model.device)).mean) for part in image.split(64)]
    return torch.cat(parts).cpu().clamp(-1, 1)


def reconstruction(model: LatentDiffusion, scenes: Scenes) -> Score:
    """PSNR in dB of 512 unseen scenes of one or two objects: the mean over pictures, and of the mean squared error."""
    image = to_tensor([scenes[index].picture for index in range(RECONSTRUCTED)])
    error = (_round_trip(model, image) - image).square().mean(dim=(1, 2, 3))
    psnr = 10 * torch.log10(4 / error)
    return {
        "psnr": round(float(psnr.mean()), 3),
        "psnr_of_mean_error": round(float(10 * torch.log10(4 / error.mean())), 3),
    }


def _top(ranking: Tensor, wanted: Tensor, count: int) -> float:
    return round(float((ranking[:, :count] == wanted[:, None]).any(dim=1).float().mean()), 4)


# For people


def captioned(pictures: Sequence[Image.Image], captions: Sequence[str], *, columns: int = 8) -> Image.Image:
    """Pictures at twice their size in rows, each above its prompt."""
    side, text = 2 * pictures[0].width, 44
    font = ImageFont.load_default(10)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (side + 8), rows * (side + text)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = number % columns * (side + 8), number // columns * (side + text)
        sheet.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (left, top))
        draw.multiline_text((left, top + side + 2), _wrapped(caption, 24), fill="black", font=font, spacing=1)
    return sheet


def _wrapped(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) < width:
            lines[-1] = f"{lines[-1]} {word}".strip()
        else:
            lines.append(word)
    return "\n".join(lines)


def table(result: dict[str, object]) -> str:
    """The figures as lines for a terminal."""
    lines: list[str] = []
    for name, value in result.items():
        if not isinstance(value, dict):
            lines.append(f"{name}: {', '.join(value) or 'none' if isinstance(value, list) else value}")
            continue
        lines.append(name)
        for key, one in value.items():
            shown = ", ".join(f"{part} {figure}" for part, figure in one.items()) if isinstance(one, dict) else one
            lines.append(f"  {key:28}{shown}")
    return "\n".join(lines)
