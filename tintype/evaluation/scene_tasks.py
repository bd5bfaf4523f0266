"""Whether a model of emoji scenes draws what stands in its boxes, its classes, and what belongs under a mask or beyond
an edge.

The judge is the classifier of `scenes.py`. Layouts are held out by their seed, and of scenes with masks the pairs of
objects were never seen together. Controls: the same noise without boxes, and rendered scenes (the ceiling).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tintype.conditioning.prompt import Prompt
from tintype.data.scenes import Scene, SceneConfig, Scenes
from tintype.data.sources import reading, region_of, to_tensor
from tintype.evaluation.extractors import load_judge
from tintype.evaluation.scenes import BATCH, SEED, SIZE, two_object_plans
from tintype.families.base import LatentDiffusion
from tintype.generation import generate, generate_each
from tintype.models.classifier import Classifier
from tintype.tasks.pictures import data_url
from tintype.tasks.request import Request

MARGIN = 3  # pixels around a box that the judge sees
SHOWN = 0.72  # of the judge's picture: the longer side of what stands in a box, as in scenes of one object
GROWN = 3  # pixels by which a mask is larger than what stood there


def evaluate_tasks(
    model: LatentDiffusion,
    *,
    layouts: int = 500,
    classes: int = 256,
    holes: int = 200,
    font: str | None = None,
    quiet: bool = False,
) -> dict[str, object]:
    """The figures of boxes and masks, those that the model can do, as plain JSON values. Raises `ValueError` for a
    model of another size, or one that can do neither."""
    config = model.config
    if config.size != SIZE:
        raise ValueError(
            f"{model.source} draws pictures of {config.size} pixels; the judge reads {SIZE}: use such a model"
        )
    if min(layouts, classes, holes) < 1:
        raise ValueError(f"layouts {layouts}, classes {classes}, holes {holes}: expected 1 or more of each")
    judge, _ = load_judge(None)
    found: dict[str, object] = {}
    if config.labels:
        scenes = Scenes(SceneConfig(size=SIZE, split="all", objects=(0.25,) * 4, grid=8, seed=SEED), font=font)
        found["layout"] = _layouts(model, judge, [scenes[index] for index in range(layouts)], quiet=quiet)
        found["class"] = _classes(model, judge, min(classes, len(config.labels)))
    if any("mask" in name for name in config.further) or not config.further:
        scenes = Scenes(SceneConfig(size=SIZE, split="all", plain_captions=True, grid=8, seed=SEED), font=font)
        plans = two_object_plans(scenes, holes)
        shown = [scenes.render(plan) for plan in plans]
        found["inpaint"] = _holes(model, judge, shown, quiet=quiet)
        found["outpaint"] = _beyond(model, judge, shown, quiet=quiet)
    if not found:
        raise ValueError(f"{model.source} reads no boxes and paints nothing anew; expected a model that does")
    return found


def _layouts(model: LatentDiffusion, judge: Classifier, shown: Sequence[Scene], *, quiet: bool) -> dict[str, float]:
    drawn, without = [], []
    for first in tqdm(range(0, len(shown), BATCH), desc="layouts", unit="batch", disable=quiet or None, leave=False):
        some = shown[first : first + BATCH]
        prompts = [Prompt(text="", objects=_objects(one)) for one in some]
        request = Request(seed=SEED + first)
        drawn += generate_each(model, prompts, request)
        without += generate_each(model, [Prompt(text="")] * len(some), request)
    rendered = [Image.fromarray(one.picture) for one in shown]
    return {
        "layouts": len(shown),
        "boxes": sum(len(one.classes) for one in shown),
        "classifier_top1": boxes_right(judge, drawn, shown),
        "without_boxes": boxes_right(judge, without, shown),
        "rendered": boxes_right(judge, rendered, shown),
    }


@torch.inference_mode()
def _classes(model: LatentDiffusion, judge: Classifier, count: int) -> dict[str, float]:
    """The first classes, each once, by nothing but its number."""
    wanted = torch.arange(count)
    drawn: list[Image.Image] = []
    for some in wanted.split(BATCH):
        prompts = [Prompt(text="", objects=((label, None),)) for label in some.tolist()]
        drawn += generate_each(model, prompts, Request(seed=SEED + int(some[0])))
    answers = torch.cat([judge(to_tensor([np.asarray(one)])).argmax(dim=1) for one in drawn])
    return {"classes": len(wanted), "classifier_top1": round(float((answers == wanted).float().mean()), 4)}


def _objects(scene: Scene) -> tuple[tuple[int, tuple[float, float, float, float]], ...]:
    return tuple(
        (int(label), (left, top, right, bottom))
        for label, (left, top, right, bottom) in zip(scene.classes, scene.boxes.tolist(), strict=True)
    )


@torch.inference_mode()
def boxes_right(judge: Classifier, pictures: Sequence[Image.Image], scenes: Sequence[Scene]) -> float:
    """In which share of the boxes the judge sees what the scene has there."""
    crops = [
        crop(to_tensor([np.asarray(picture)]), box)
        for picture, scene in zip(pictures, scenes, strict=True)
        for box in scene.boxes.tolist()
    ]
    wanted = torch.tensor([int(label) for scene in scenes for label in scene.classes])
    answers = torch.cat([judge(some).argmax(dim=1) for some in torch.cat(crops).split(64)])
    return round(float((answers == wanted).float().mean()), 4)


def crop(image: Tensor, box: Sequence[float]) -> Tensor:
    """image: 1 3 H W; the part in a box and a little around it, at the size that the judge knows things in, on what is
    at its edge."""
    height, width = image.shape[-2:]
    left, top = max(round(box[0] * width) - MARGIN, 0), max(round(box[1] * height) - MARGIN, 0)
    right, bottom = min(round(box[2] * width) + MARGIN, width), min(round(box[3] * height) + MARGIN, height)
    part = image[..., top:bottom, left:right]
    scale = SHOWN * SIZE / (max(right - left, bottom - top) - 2 * MARGIN)
    sides = [min(round(side * scale), SIZE) for side in part.shape[-2:]]
    part = F.interpolate(part, sides, mode="bicubic", antialias=True).clamp(-1, 1)
    down, across = SIZE - sides[0], SIZE - sides[1]
    return F.pad(part, (across // 2, across - across // 2, down // 2, down - down // 2), mode="replicate")


def _holes(model: LatentDiffusion, judge: Classifier, scenes: Sequence[Scene], *, quiet: bool) -> dict[str, float]:
    """The first object of each scene of two is painted over and asked for again."""
    drawn, own = [], []
    for number, scene in enumerate(tqdm(scenes, desc="holes", disable=quiet or None, leave=False)):
        mask = hole(scene)
        request = Request(
            task="inpaint",
            prompt=scene.caption,
            image=data_url(Image.fromarray(np.where(mask[..., None], 128, scene.picture).astype(np.uint8))),
            mask=data_url(Image.fromarray(mask.astype(np.uint8) * 255)),
            seed=SEED + number,
        )
        picture = np.asarray(generate(model, request)[0])
        own.append((picture[~mask] == scene.picture[~mask]).all())
        drawn.append(picture)
    return {
        "holes": len(scenes),
        "classifier_top1": _right(judge, drawn, scenes, number=0),
        "rendered": _right(judge, [scene.picture for scene in scenes], scenes, number=0),
        "outside_identical": round(float(np.mean(own)), 4),
    }


def hole(scene: Scene) -> np.ndarray:
    """H W bool: the box of the scene's first object, a little larger."""
    left, top, right, bottom = (round(side * SIZE) for side in scene.boxes[0].tolist())
    mask = np.zeros((SIZE, SIZE), bool)
    mask[max(top - GROWN, 0) : bottom + GROWN, max(left - GROWN, 0) : right + GROWN] = True
    return mask


def _beyond(model: LatentDiffusion, judge: Classifier, scenes: Sequence[Scene], *, quiet: bool) -> dict[str, float]:
    """Of each scene of two the half of the first object is kept, and the picture continued where the second was."""
    drawn: list[np.ndarray] = []
    for number, scene in enumerate(tqdm(scenes, desc="edges", disable=quiet or None, leave=False)):
        kept = turned(scene.picture, scene)[:, : SIZE // 2]
        right, bottom, left, top = (SIZE // 2 if turns(scene) == side else 0 for side in range(4))
        request = Request(
            task="outpaint",
            prompt=scene.caption,
            image=data_url(Image.fromarray(np.rot90(kept, -turns(scene)))),
            seed=SEED + number,
            left=left,
            right=right,
            top=top,
            bottom=bottom,
        )
        drawn.append(np.asarray(generate(model, request)[0]))
    pictures = [scene.picture for scene in scenes]
    return {
        "edges": len(scenes),
        "classifier_top1": _right(judge, drawn, scenes, number=1),
        "rendered": _right(judge, pictures, scenes, number=1),
        "seam": _seam(drawn, scenes),
        "rendered_seam": _seam(pictures, scenes),
    }


def turns(scene: Scene) -> int:
    """Quarter turns against the clock that bring the first object to the left."""
    return {"to the left of": 0, "above": 1, "to the right of": 2, "below": 3}[scene.plan.relation]


def turned(picture: np.ndarray, scene: Scene) -> np.ndarray:
    """H W 3, the first object on the left."""
    return np.rot90(picture, turns(scene))


def _seam(pictures: Sequence[np.ndarray], scenes: Sequence[Scene]) -> float:
    """Mean step across the edge between the halves, in levels of 255."""
    halves = [turned(one, scene).astype(float) for one, scene in zip(pictures, scenes, strict=True)]
    steps = [np.abs(one[:, SIZE // 2] - one[:, SIZE // 2 - 1]).mean() for one in halves]
    return round(float(np.mean(steps)), 3)


@torch.inference_mode()
def _right(judge: Classifier, pictures: Sequence[np.ndarray], scenes: Sequence[Scene], *, number: int) -> float:
    """In which share of the pictures the judge sees the first object (0) or the second (1) in its half."""
    halves = [
        reading(to_tensor([picture]), region_of(scene.plan.relation, first=number == 0))
        for picture, scene in zip(pictures, scenes, strict=True)
    ]
    wanted = torch.tensor([int(scene.classes[number]) for scene in scenes])
    return round(float((judge(torch.cat(halves)).argmax(dim=1) == wanted).float().mean()), 4)
