"""Objects as tokens beside a text: what each is and, where that is said, its box."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tintype.conditioning.prompt import PlacedObject


class Objects(NamedTuple):
    """labels: B K int64, `ObjectsConfig.none` where there is no object; places: B K 4 float, left, top, right, bottom
    as parts of the picture's sides, negative where no place is said."""

    labels: Tensor
    places: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectsConfig:
    """`count`: the most that are read; `frequencies`: octaves in which a side of a box is written."""

    num_classes: int
    width: int
    count: int = 4
    frequencies: int = 6

    @property
    def none(self) -> int:
        """The label where no object is."""
        return self.num_classes


class ObjectsEncoder(nn.Module):
    """Objects -> tokens B K D, normed."""

    def __init__(self, config: ObjectsConfig) -> None:
        super().__init__()
        self.config = config
        self.label = nn.Embedding(config.num_classes + 1, config.width)
        self.nowhere = nn.Parameter(torch.zeros(config.width))
        out = nn.Linear(config.width, config.width)
        self.place = nn.Sequential(nn.Linear(8 * config.frequencies, config.width), nn.SiLU(), out)
        self.norm = nn.LayerNorm(config.width)
        nn.init.zeros_(out.weight)  # an object begins as a word that stands nowhere
        nn.init.zeros_(out.bias)

    def forward(self, objects: Objects) -> Tensor:
        octaves = torch.pi * 2.0 ** torch.arange(self.config.frequencies, device=objects.places.device)
        phases = (objects.places[..., None] * octaves).flatten(2)  # B K 4F
        place = self.place(torch.cat((phases.sin(), phases.cos()), dim=-1).to(self.nowhere))
        placed = (objects.places >= 0).all(dim=-1, keepdim=True)
        return self.norm(self.label(objects.labels) + torch.where(placed, place, self.nowhere))

    def rows(self, prompts: Sequence[Sequence[PlacedObject]]) -> Objects:
        """Raises `ValueError` for more objects than are read, and for a class that there is not."""
        labels = torch.full((len(prompts), self.config.count), self.config.none)
        places = torch.full((len(prompts), self.config.count, 4), -1.0)
        for row, objects in enumerate(prompts):
            if len(objects) > self.config.count:
                raise ValueError(f"{len(objects)} boxes: this model reads {self.config.count} at most; leave some out")
            for number, (label, box) in enumerate(objects):
                if not 0 <= label < self.config.num_classes:
                    raise ValueError(f"class {label}: this model has the classes 0 to {self.config.num_classes - 1}")
                labels[row, number] = label
                if box is not None:
                    places[row, number] = torch.tensor(box)
        device = self.nowhere.device
        return Objects(labels.to(device), places.to(device))


def without(objects: Objects, gone: Tensor, config: ObjectsConfig) -> Objects:
    """The same with none in some rows. gone: B bool."""
    return Objects(
        torch.where(gone[:, None], config.none, objects.labels), torch.where(gone[:, None, None], -1.0, objects.places)
    )


def placeless(objects: Objects, rows: Tensor) -> Objects:
    """The same without places in some rows. rows: B bool."""
    return Objects(objects.labels, torch.where(rows[:, None, None], -1.0, objects.places))
