"""What a data set gives, and how it becomes batches: `Samples` by number, `Column`s that read them, `Batches`.

Every kind of data (rendered scenes, prepared folders, stored latents) is a `Samples`; every kind of training reads
some `Column`s of it. Which samples a batch holds is a function of its position alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tintype.common.rng import generator
from tintype.conditioning.layout import Box, Region
from tintype.data.scenes import Scenes


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One picture and what is known of it; a slot is None (or empty) where the data set has no such thing.

    picture: H W 3 uint8; mask: H W uint8, a class or 0/1 at each pixel; mean, logvar: C h w, of the raw latent.
    """

    picture: NDArray[np.uint8] | None = None
    caption: str | None = None
    label: int | None = None
    boxes: tuple[Box, ...] = ()
    mask: NDArray[np.uint8] | None = None
    mean: Tensor | None = None
    logvar: Tensor | None = None


class Samples(Protocol):
    """A finite data set; `samples[index]` is a pure function of the index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


# Reads its tensors from some samples; all that is random in it comes from the generator.
Column = Callable[[Sequence[Sample], torch.Generator], dict[str, Tensor]]


class Batches:
    """A training `Source`: endless, all samples once in each round, in another order each time."""

    def __init__(self, samples: Samples, columns: Sequence[Column], *, seed: int) -> None:
        self.samples = samples
        self.columns = tuple(columns)
        self.seed = seed
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        """Samples first to first + count - 1 of the endless sequence."""
        chosen = [self.samples[self._place(position)] for position in range(first, first + count)]
        drawn = generator(self.seed, "batch", first)
        return {name: values for column in self.columns for name, values in column(chosen, drawn).items()}

    def _place(self, position: int) -> int:
        epoch, within = divmod(position, len(self.samples))
        return int(self._order(epoch)[within])

    def _shuffled(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.samples), generator=generator(self.seed, "order", epoch))


class SceneSamples:
    """The first `count` rendered scenes; the label is the first object's class."""

    def __init__(self, scenes: Scenes, count: int) -> None:
        self.scenes = scenes
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Sample:
        scene = self.scenes[index]
        boxes = [
            Box(label=int(label), region=Region(left=x0, top=y0, width=x1 - x0, height=y1 - y0))
            for label, (x0, y0, x1, y1) in zip(scene.classes, scene.boxes.tolist(), strict=True)
        ]
        return Sample(picture=scene.picture, caption=scene.caption, label=int(scene.classes[0]), boxes=tuple(boxes))


# Columns


def images(*, flip: bool = False) -> Column:
    """{"image": B 3 H W float32 in [-1, 1]}; with `flip` each is mirrored with probability 1/2. Pictures of one batch
    have one size, else `ValueError`. Boxes and masks are not mirrored: do not combine them with `flip`."""

    def column(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
        pictures = [sample.picture for sample in samples if sample.picture is not None]
        if len(pictures) != len(samples):
            raise ValueError("a sample without a picture; expected one in each (stored latents have none)")
        if len({picture.shape for picture in pictures}) > 1:
            raise ValueError("pictures of several sizes in one batch; expected one size: prepare them with a size")
        image = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        if not flip:
            return {"image": image}
        mirrored = torch.rand(len(image), generator=noise) < 0.5
        return {"image": torch.where(mirrored[:, None, None, None], image.flip(3), image)}

    return column


def texts(read: Callable[[Sequence[str]], tuple[Tensor, Tensor]]) -> Column:
    """{"ids": B L, "end": B}: captions as `read` tokenizes them (`TextConditioner.tokens`)."""

    def column(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
        captions = [sample.caption for sample in samples if sample.caption is not None]
        if len(captions) != len(samples):
            raise ValueError("a sample without a caption; expected one in each: see the report of `tintype prepare`")
        ids, end = read(captions)
        return {"ids": ids, "end": end}

    return column


def labels(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
    """{"label": B int64}."""
    found = [sample.label for sample in samples if sample.label is not None]
    if len(found) != len(samples):
        raise ValueError("a sample without a class; expected one in each: folders of classes have them")
    return {"label": torch.tensor(found)}


def latents(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
    """{"mean", "std": B C h w float32}: the raw latents' posteriors."""
    means = [sample.mean for sample in samples if sample.mean is not None]
    logvars = [sample.logvar for sample in samples if sample.logvar is not None]
    if not len(means) == len(logvars) == len(samples):
        raise ValueError("a sample without a latent; expected one in each: make them with `tintype prepare --latents`")
    return {"mean": torch.stack(means).float(), "std": (0.5 * torch.stack(logvars).float()).exp()}
