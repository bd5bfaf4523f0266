"""What a data set gives, and how it becomes batches: `Samples` by number, `Column`s that read them, `Batches`.

Every kind of data (rendered scenes, prepared folders, stored latents) is a `Samples`; every kind of training reads
some `Column`s of it. Which samples a batch holds is a function of its position alone.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tintype.common.rng import generator
from tintype.conditioning.layout import Box, LayoutConfig, Region, layout_ids
from tintype.conditioning.prompt import Framing
from tintype.data.scenes import Scenes


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One picture and what is known of it; a slot is None (or empty) where the data set has no such thing.

    picture: H W 3 uint8; mask: H W uint8, a class or 0/1 at each pixel; mean, logvar: C h w, of the raw latent;
    beside: C h w, the raw latent of a picture that steers this one.
    other_captions: further sentences that say what the picture shows, where it has several; framing: the size it came
    in and what of it was cut off; name: what its source calls it, where that is kept.
    """

    picture: NDArray[np.uint8] | None = None
    caption: str | None = None
    label: int | None = None
    boxes: tuple[Box, ...] = ()
    mask: NDArray[np.uint8] | None = None
    mean: Tensor | None = None
    logvar: Tensor | None = None
    beside: Tensor | None = None
    other_captions: tuple[str, ...] = ()
    framing: Framing | None = None
    name: str | None = None


class Samples(Protocol):
    """A finite data set; `samples[index]` is a pure function of the index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


@runtime_checkable
class Described(Protocol):
    """Samples that can be told of for less than what a picture costs to decode."""

    def described(self, index: int, /) -> Sample:
        """What is known of it without decoding anything."""
        ...


def described(samples: Samples, index: int) -> Sample:
    """A sample, without its picture where that would have to be decoded."""
    return samples.described(index) if isinstance(samples, Described) else samples[index]


# Reads its tensors from some samples; all that is random in it comes from the generator.
Column = Callable[[Sequence[Sample], torch.Generator], dict[str, Tensor]]

# Another sample, whole: all its parts change together, so that no column can disagree with another (`augment.py`).
Augmentation = Callable[[Sample, torch.Generator], Sample]

# Which samples are at positions first to first + count - 1 of an endless sequence: a pure function of these two.
Order = Callable[[int, int], Sequence[int]]


class Batches:
    """A training `Source`: endless, all samples once in each round, in another order each time, or in `order`.

    `augment` is applied to each sample in turn, before columns read it; what is random in it depends on the seed and
    the sample's position alone.
    """

    def __init__(
        self,
        samples: Samples,
        columns: Sequence[Column],
        *,
        seed: int,
        augment: Sequence[Augmentation] = (),
        order: Order | None = None,
    ) -> None:
        self.samples = samples
        self.columns = tuple(columns)
        self.augment = tuple(augment)
        self.seed = seed
        self.order = order or Shuffled(len(samples), seed=seed)

    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        """Samples first to first + count - 1 of the endless sequence."""
        chosen = [self._sample(first + place, index) for place, index in enumerate(self.order(first, count))]
        drawn = generator(self.seed, "batch", first)
        return {name: values for column in self.columns for name, values in column(chosen, drawn).items()}

    def _sample(self, position: int, index: int) -> Sample:
        sample = self.samples[index]
        drawn = generator(self.seed, "augment", position)
        for augment in self.augment:
            sample = augment(sample, drawn)
        return sample


class Shuffled:
    """An `Order`: `size` samples once in each round, in another order each time."""

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._round = lru_cache(maxsize=2)(self._mixed)

    def __call__(self, first: int, count: int) -> list[int]:
        places = [divmod(position, self.size) for position in range(first, first + count)]
        return [int(self._round(epoch)[within]) for epoch, within in places]

    def _mixed(self, epoch: int) -> Tensor:
        return torch.randperm(self.size, generator=generator(self.seed, "order", epoch))


class SceneSamples:
    """`count` rendered scenes from `first` on; the label is the first object's class, the mask 0 where none is, and
    else which of them."""

    def __init__(self, scenes: Scenes, count: int, *, first: int = 0) -> None:
        self.scenes = scenes
        self.count = count
        self.first = first

    def __len__(self) -> int:
        return self.count

    @property
    def sizes(self) -> NDArray[np.int32]:
        """N 2: height and width of each."""
        return np.full((self.count, 2), self.scenes.config.size, dtype=np.int32)

    def __getitem__(self, index: int, /) -> Sample:
        scene = self.scenes[self.first + index]
        boxes = [
            Box(label=int(label), region=Region(left=x0, top=y0, width=x1 - x0, height=y1 - y0))
            for label, (x0, y0, x1, y1) in zip(scene.classes, scene.boxes.tolist(), strict=True)
        ]
        numbers = np.arange(1, len(scene.masks) + 1, dtype=np.uint8)[:, None, None]
        return Sample(
            picture=scene.picture,
            caption=scene.caption,
            label=int(scene.classes[0]),
            boxes=tuple(boxes),
            mask=(numbers * scene.masks).max(axis=0),  # no two are seen at one place
        )


class WithPictures:
    """Stored samples with the pictures of others, one by one the same."""

    def __init__(self, stored: Samples, shown: Samples) -> None:
        if len(stored) != len(shown):
            raise ValueError(f"{len(stored)} stored samples and {len(shown)} pictures; expected as many")
        self.stored = stored
        self.shown = shown

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int, /) -> Sample:
        return dataclasses.replace(self.stored[index], picture=self.shown[index].picture)


class Beside:
    """Stored samples, and the latents of others, one by one, as what steers them."""

    def __init__(self, stored: Samples, beside: Samples) -> None:
        if len(stored) != len(beside):
            raise ValueError(f"{len(stored)} stored samples and {len(beside)} beside them; expected as many")
        self.stored = stored
        self.beside = beside

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int, /) -> Sample:
        return dataclasses.replace(self.stored[index], beside=self.beside[index].mean)


# Columns


def images(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
    """{"image": B 3 H W float32 in [-1, 1]}. Pictures of one batch have one size, else `ValueError`."""
    pictures = [sample.picture for sample in samples if sample.picture is not None]
    if len(pictures) != len(samples):
        raise ValueError("a sample without a picture; expected one in each (stored latents have none)")
    return {"image": torch.from_numpy(_stacked(pictures, "pictures")).permute(0, 3, 1, 2).float() / 127.5 - 1}


def masks(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
    """{"mask": B H W int64}: the class at each pixel. Masks of one batch have one size, else `ValueError`."""
    found = [sample.mask for sample in samples if sample.mask is not None]
    if len(found) != len(samples):
        raise ValueError("a sample without a mask; expected one in each: see `tintype filter --with-mask`")
    return {"mask": torch.from_numpy(_stacked(found, "masks")).long()}


def _stacked(pixels: Sequence[NDArray[np.uint8]], what: str) -> NDArray[np.uint8]:
    if len({one.shape for one in pixels}) > 1:
        raise ValueError(f"{what} of several sizes in one batch; expected one size: prepare them with a size, or crop")
    return np.stack(pixels)


def layouts(config: LayoutConfig) -> Column:
    """{"layout": B L int64}: the boxes as tokens (`layout_ids`), the first `config.objects` of each sample. A sample
    without boxes is the empty layout."""

    def column(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
        return {"layout": torch.tensor([layout_ids(sample.boxes[: config.objects], config) for sample in samples])}

    return column


def texts(read: Callable[[Sequence[str]], tuple[Tensor, Tensor]], *, missing: str | None = None) -> Column:
    """{"ids": B L, "end": B}: captions as `read` tokenizes them (`TextConditioner.tokens`), `missing` where there is
    none. Without it that is a `ValueError`."""

    def column(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
        said = [missing if sample.caption is None else sample.caption for sample in samples]
        captions = [caption for caption in said if caption is not None]
        if len(captions) != len(samples):
            raise ValueError(
                "a sample without a caption; expected one in each: see `tintype prepare --require-caption`"
            )
        ids, end = read(captions)
        return {"ids": ids, "end": end}

    return column


def labels_or(missing: int) -> Column:
    """{"label": B int64}, `missing` for a sample without a class."""

    def column(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
        return {"label": torch.tensor([missing if sample.label is None else sample.label for sample in samples])}

    return column


def labels(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
    """{"label": B int64}. Raises `ValueError` for a sample without a class."""
    found = [sample.label for sample in samples if sample.label is not None]
    if len(found) != len(samples):
        raise ValueError("a sample without a class; expected one in each: folders of classes have them")
    return {"label": torch.tensor(found)}


def latents(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
    """{"mean", "std": B C h w float32}: the raw latents' posteriors."""
    means = [sample.mean for sample in samples if sample.mean is not None]
    logvars = [sample.logvar for sample in samples if sample.logvar is not None]
    if not len(means) == len(logvars) == len(samples):
        raise ValueError("a sample without a latent; expected one in each: make them with `tintype latents`")
    return {"mean": torch.stack(means).float(), "std": (0.5 * torch.stack(logvars).float()).exp()}


def latents_beside(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, Tensor]:
    """{"beside": B C h w float32}: the raw latents that steer."""
    found = [sample.beside for sample in samples if sample.beside is not None]
    if len(found) != len(samples):
        raise ValueError("a sample without a latent beside it; expected one in each")
    return {"beside": torch.stack(found).float()}
