"""Scenes as training batches. Each source is a pure function of position; images are B 3 H W float32 in [-1, 1]."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tintype.data.scenes import Scenes


def to_tensor(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """H W 3 uint8 each -> B 3 H W float32 in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


LOOKED_AT = 16


def appearance(scenes: Scenes) -> str:
    """A digest of the first scenes' pictures and captions: another font, drawing or grammar gives another."""
    digest = hashlib.sha256()
    for index in range(LOOKED_AT):
        scene = scenes[index]
        digest.update(scene.picture.tobytes() + scene.caption.encode())
    return digest.hexdigest()


class SceneImages:
    """{"image"}: scenes in order."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes

    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        return {"image": to_tensor([self.scenes[index].picture for index in range(first, first + count)])}


class SceneObjects:
    """{"image", "label"}: one object of each scene, in a picture of its own (see `reading`), and its class."""

    def __init__(self, scenes: Scenes) -> None:
        if any(scenes.config.objects[2:]):
            raise ValueError(
                f"objects {scenes.config.objects}: expected shares of one and two only, to tell them apart"
            )
        self.scenes = scenes

    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        images, labels = zip(*(self._one(index) for index in range(first, first + count)), strict=True)
        return {"image": torch.cat(images), "label": torch.tensor(labels)}

    def _one(self, index: int) -> tuple[Tensor, int]:
        scene = self.scenes[index]
        image = to_tensor([scene.picture])
        number = index % len(scene.classes)
        region = "whole"
        if len(scene.classes) == 2:
            region = region_of(scene.plan.relation, first=number == 0)
        return reading(image, region), int(scene.classes[number])


def region_of(relation: str, *, first: bool) -> str:
    """The half of the picture where a two-object caption puts its first or second object."""
    halves = {
        "to the left of": ("left", "right"),
        "to the right of": ("right", "left"),
        "above": ("top", "bottom"),
        "below": ("bottom", "top"),
    }[relation]
    return halves[0 if first else 1]


def reading(image: Tensor, region: str) -> Tensor:
    """What a classifier is shown of image: B 3 H W: the whole, or one half padded to a square by its border pixels."""
    height, width = image.shape[-2:]
    match region:
        case "left":
            return F.pad(image[..., : width // 2], (width // 4, width // 4, 0, 0), mode="replicate")
        case "right":
            return F.pad(image[..., width // 2 :], (width // 4, width // 4, 0, 0), mode="replicate")
        case "top":
            return F.pad(image[..., : height // 2, :], (0, 0, height // 4, height // 4), mode="replicate")
        case "bottom":
            return F.pad(image[..., height // 2 :, :], (0, 0, height // 4, height // 4), mode="replicate")
        case _:
            return image


def captions(scenes: Scenes, indices: Iterable[int]) -> list[str]:
    """The captions of scenes, undrawn."""
    return [scenes.plan(index).caption for index in indices]
