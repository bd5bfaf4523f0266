"""Parts of pictures to be drawn anew, as training draws them, and the objects that a model is told are there."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tintype.conditioning.layout import Box
from tintype.conditioning.objects import ObjectsConfig
from tintype.data.samples import Column, Sample, images

GROWN = 8  # pixels that a hole around an object may be larger on each side
LEAST = 8  # pixels along a side of a hole


def repainted(share: float) -> Column:
    """{"image": B 3 H W in [-1, 1], "mask": B H W uint8}, 1 where a picture is drawn anew: everywhere, or in `share` of
    the samples in a part: around one of its objects, a rectangle, or one or two of its sides."""
    if not 0 <= share <= 1:
        raise ValueError(f"share {share:g} of pictures with a part known: expected 0 to 1")

    def column(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
        shown = images(samples, noise)
        drawn = np.random.default_rng(int(torch.randint(2**62, (), generator=noise)))
        height, width = shown["image"].shape[-2:]
        masks = [
            _part(drawn, sample.boxes, height, width) if drawn.random() < share else np.ones((height, width), np.uint8)
            for sample in samples
        ]
        return shown | {"mask": torch.from_numpy(np.stack(masks))}

    return column


def _part(drawn: np.random.Generator, boxes: Sequence[Box], height: int, width: int) -> NDArray[np.uint8]:
    kind = drawn.integers(3)
    mask = np.zeros((height, width), np.uint8)
    if kind == 0 and boxes:
        region = boxes[int(drawn.integers(len(boxes)))].region
        grown = drawn.integers(0, GROWN + 1, 4)
        top, left = int(region.top * height) - grown[0], int(region.left * width) - grown[1]
        bottom = round((region.top + region.height) * height) + grown[2]
        right = round((region.left + region.width) * width) + grown[3]
        mask[max(top, 0) : bottom, max(left, 0) : right] = 1
    elif kind == 1:
        tall, wide = (int(drawn.integers(LEAST, 3 * side // 4 + 1)) for side in (height, width))
        top, left = drawn.integers(height - tall + 1), drawn.integers(width - wide + 1)
        mask[top : top + tall, left : left + wide] = 1
    else:
        for side in drawn.choice(4, drawn.integers(1, 3), replace=False):
            turned = np.rot90(mask, side)
            turned[: int(drawn.integers(LEAST, len(turned) // 2 + 1))] = 1
    return mask


def objects(config: ObjectsConfig) -> Column:
    """{"labels": B K int64, "places": B K 4}: the objects of each sample (`Objects`), in any order; of more than are
    read some are left out."""

    def column(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
        labels = torch.full((len(samples), config.count), config.none)
        places = torch.full((len(samples), config.count, 4), -1.0)
        for row, sample in enumerate(samples):
            order = torch.randperm(len(sample.boxes), generator=noise).tolist()
            for number, which in enumerate(order[: config.count]):
                box = sample.boxes[which]
                region = box.region
                labels[row, number] = box.label
                places[row, number] = torch.tensor(
                    [region.left, region.top, region.left + region.width, region.top + region.height]
                )
        return {"labels": labels, "places": places}

    return column
