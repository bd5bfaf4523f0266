"""How near enlarged scenes are to what they were made small from: PSNR, and the learned distance of `FeatureDistance`.

Scenes are held out by their seed, and made small with bicubic weights. Beside the model: bicubic enlargement, which is
to be beaten, and what the first stage makes of the whole picture, which nothing that decodes with it passes. Features
are those of the embedded judge, of squares of its own size; they are no LPIPS of any paper.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tintype.data.scenes import SceneConfig, Scenes
from tintype.evaluation.extractors import load_judge
from tintype.evaluation.pair_figures import SPAN, round_trip
from tintype.evaluation.pixels import from_bytes, psnr
from tintype.evaluation.scenes import SEED
from tintype.families.base import LatentDiffusion
from tintype.generation import generate
from tintype.objectives.perceptual import FeatureDistance
from tintype.tasks.pictures import data_url
from tintype.tasks.request import Request

SIZES = (64, 128, 256)  # of the whole pictures; the model is given a part of it
FACTOR = 4


def evaluate_upscaling(
    model: LatentDiffusion,
    *,
    count: int = 100,
    sizes: Sequence[int] = SIZES,
    steps: int | None = None,
    tile: int | None = None,
    font: str | None = None,
    quiet: bool = False,
) -> dict[str, object]:
    """The figures of each size, as plain JSON values. Raises `ValueError` for a model that enlarges nothing, or not
    four times."""
    if not model.config.enlarges or model.config.enlargement != FACTOR:
        raise ValueError(f"{model.source} does not draw pictures {FACTOR} times larger; expected an upscaler that does")
    if count < 1:
        raise ValueError(f"count {count}: expected 1 or more")
    judge, _ = load_judge(None)
    distance = FeatureDistance(judge)
    found: dict[str, object] = {"pictures": count}
    for size in sizes:
        scenes = Scenes(SceneConfig(size=size, split="all", objects=(0.25,) * 4, seed=SEED), font=font)
        whole = [Image.fromarray(scenes[index].picture) for index in range(count)]
        small = [one.resize((size // FACTOR, size // FACTOR), Image.Resampling.BICUBIC) for one in whole]
        made: list[Image.Image] = []
        for number, one in enumerate(tqdm(small, desc=f"{size} pixels", disable=quiet or None, leave=False)):
            request = Request(task="upscale", image=data_url(one), seed=SEED + number, steps=steps, tile=tile)
            made += generate(model, request)
        bicubic = [one.resize((size, size), Image.Resampling.BICUBIC) for one in small]
        decoded = round_trip(model.autoencoder, model.device)
        found[str(size)] = {
            "model": _nearness(_bytes(made), _bytes(whole), distance),
            "bicubic": _nearness(_bytes(bicubic), _bytes(whole), distance),
            "first_stage": _nearness(decoded(0, _bytes(whole)), _bytes(whole), distance),
        }
    return found


def _bytes(pictures: Sequence[Image.Image]) -> Tensor:
    """B 3 H W uint8."""
    return torch.from_numpy(np.stack([np.asarray(one) for one in pictures])).permute(0, 3, 1, 2)


@torch.inference_mode()
def _nearness(made: Tensor, whole: Tensor, distance: FeatureDistance) -> dict[str, float]:
    ratios = psnr(made, whole, span=SPAN)
    pairs = zip(_squares(made).split(64), _squares(whole).split(64), strict=True)
    distances = torch.cat([distance(from_bytes(a), from_bytes(b)) for a, b in pairs])
    return {"psnr": round(float(ratios.mean()), 3), "distance": round(float(distances.mean()), 4)}


def _squares(pictures: Tensor, side: int = 64) -> Tensor:
    """B 3 H W -> all squares of `side` pixels they are made of."""
    cut = pictures.unfold(2, side, side).unfold(3, side, side)  # B 3 rows columns side side
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
