"""Aspect-ratio buckets: pictures of many shapes train together, each batch in one size.

The rule is NovelAI's (2022, "Improvements on Stable Diffusion"): sizes are multiples of 64 whose area is within a
budget, a picture goes to the size of the nearest aspect ratio, is scaled until it covers it and cut in the middle. What
was cut is remembered as SDXL wants it (`Sample.framing`).
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tintype.common.rng import generator
from tintype.conditioning.prompt import Framing
from tintype.data.augment import cropped
from tintype.data.samples import Order, Sample, Shuffled
from tintype.data.views import Sized, Sizes

Size = tuple[int, int]  # height, width


# Which sizes there are, and how a picture comes into one


def bucket_sizes(area: int, *, multiple: int = 64, max_aspect: float = 2.0) -> tuple[Size, ...]:
    """Of each side that is a multiple the largest other side with at most `area` pixels, as (height, width), both ways.

    From portrait to landscape. The longer side is at most `max_aspect` times the shorter. Raises `ValueError` when
    there is none.
    """
    if multiple < 1 or max_aspect < 1:
        raise ValueError(f"multiple {multiple}, max_aspect {max_aspect}: expected 1 or more of each")
    found: set[Size] = set()
    for side in range(multiple, math.isqrt(int(area * max_aspect)) + 1, multiple):
        other = area // side // multiple * multiple
        if other and max(side, other) <= max_aspect * min(side, other):
            found |= {(side, other), (other, side)}
    if not found:
        raise ValueError(f"no multiples of {multiple} within {area} pixels; expected an area of {multiple**2} or more")
    return tuple(sorted(found, key=lambda size: (size[1] / size[0], math.prod(size))))


def nearest_buckets(sizes: Sizes, buckets: Sequence[Size]) -> NDArray[np.intp]:
    """N: of each size (N 2) the number of the bucket whose aspect ratio is nearest, by the ratio of ratios. Of two that
    are as near the larger, of equals the first."""
    order = sorted(range(len(buckets)), key=lambda number: -math.prod(buckets[number]))
    aspects = np.log([buckets[number][1] / buckets[number][0] for number in order])
    own = np.log(sizes[:, 1] / sizes[:, 0])
    chosen = np.empty(len(sizes), dtype=np.intp)
    for start in range(0, len(sizes), 65_536):
        part = slice(start, start + 65_536)
        chosen[part] = np.abs(own[part, None] - aspects[None]).round(9).argmin(axis=1)
    return np.array(order)[chosen]


@dataclass(frozen=True, slots=True)
class Fit:
    """How a picture comes into a size: scaled to `scaled`, then `size` of it from `crop` (top, left)."""

    scaled: Size
    crop: tuple[int, int]
    size: Size


def fit(original: Size, size: Size, *, place: tuple[float, float] = (0.5, 0.5)) -> Fit:
    """The smallest scale that covers `size`. `place` (down, across, each in [0, 1]) says where it is cut: 0.5 is the
    middle, 0 the top or left."""
    scale = max(size[0] / original[0], size[1] / original[1])
    scaled = tuple(max(want, round(have * scale)) for have, want in zip(original, size, strict=True))
    crop = tuple(round((have - want) * at) for have, want, at in zip(scaled, size, place, strict=True))
    return Fit((scaled[0], scaled[1]), (crop[0], crop[1]), size)


def fitted(sample: Sample, size: Size, *, place: tuple[float, float] = (0.5, 0.5)) -> Sample:
    """The sample in another size (height, width): picture, mask and boxes together, and what was cut in `framing`.

    A picture already of that size keeps its pixels. Boxes are clipped; what is cut off wholly is left out. Raises
    `ValueError` without a picture.
    """
    if sample.picture is None:
        raise ValueError("a sample without a picture; expected one, to be brought into a size")
    original = (sample.picture.shape[0], sample.picture.shape[1])
    way = fit(original, size, place=place)
    mask, before = sample.mask, sample.framing
    scaled = replace(
        sample,
        picture=_scaled(sample.picture, way.scaled, Image.Resampling.BICUBIC),
        mask=None if mask is None else _scaled(mask, way.scaled, Image.Resampling.NEAREST),
        framing=Framing(original_size=before.original_size if before else original, target_size=way.scaled),
    )
    return cropped(scaled, top=way.crop[0], left=way.crop[1], height=size[0], width=size[1])


def _scaled(pixels: NDArray[np.uint8], size: Size, resampling: Image.Resampling) -> NDArray[np.uint8]:
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    return np.array(Image.fromarray(pixels).resize((width, height), resampling))


class Bucketed:
    """Samples, each brought into the bucket of its aspect ratio."""

    def __init__(self, samples: Sized, buckets: Sequence[Size]) -> None:
        self.samples = samples
        self.sizes: Sizes = np.array(buckets, dtype=np.int32)[nearest_buckets(samples.sizes, buckets)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        height, width = self.sizes[index].tolist()
        return fitted(self.samples[index], (height, width))


# The order of samples when a batch must have one size


class BucketOrder:
    """An `Order` in which batches of `batch_size` hold samples of one size each, and sizes come as often as they are.

    Each size deals out its samples endlessly, all of them once before any comes again, and its batches run on from one
    of these turns into the next: no sample is left out, none is repeated to fill a batch, and after n rounds each was
    seen n times, those that filled its size's last batch once more. Rounds mix the batches of all sizes anew.
    """

    def __init__(self, sizes: Sizes, *, batch_size: int, seed: int) -> None:
        _, bucket = np.unique(sizes, axis=0, return_inverse=True)
        self.members = [np.flatnonzero(bucket.reshape(-1) == number) for number in range(int(bucket.max()) + 1)]
        self.batch_size = batch_size
        self.seed = seed
        self._turn: Callable[[int, int], NDArray[np.intp]] = lru_cache(maxsize=2 * len(self.members))(self._dealt)
        self._round: Callable[[int], list[tuple[int, int]]] = lru_cache(maxsize=2)(self._mixed)

    def __call__(self, first: int, count: int) -> list[int]:
        """Raises `ValueError` when this reaches into another batch."""
        number, within = divmod(first, self.batch_size)
        if within + count > self.batch_size:
            raise ValueError(
                f"samples {first} to {first + count - 1} of batches of {self.batch_size}: one size is dealt out by the "
                "batch; expected a part of one batch: give the order the size of the batches that are read"
            )
        bucket, batch = self._batch(number)
        turns = [
            divmod(batch * self.batch_size + place, len(self.members[bucket]))
            for place in range(within, within + count)
        ]
        return [int(self._turn(bucket, turn)[place]) for turn, place in turns]

    def _batch(self, number: int) -> tuple[int, int]:
        """Of which bucket a batch is, and its number there."""
        most = (
            number * self.batch_size // sum(map(len, self.members)) + 2
        )  # rounds have no fewer batches than whole ones
        current = bisect_right(range(most), number, key=lambda n: sum(self._until(n))) - 1
        return self._round(current)[number - sum(self._until(current))]

    def _until(self, rounds: int) -> list[int]:
        """How many batches each bucket has begun when its samples were seen `rounds` times."""
        return [-(-rounds * len(members) // self.batch_size) for members in self.members]

    def _mixed(self, current: int) -> list[tuple[int, int]]:
        begun, then = self._until(current), self._until(current + 1)
        batches = [(bucket, batch) for bucket in range(len(begun)) for batch in range(begun[bucket], then[bucket])]
        order = torch.randperm(len(batches), generator=generator(self.seed, "batches", current))
        return [batches[place] for place in order.tolist()]

    def _dealt(self, bucket: int, turn: int) -> NDArray[np.intp]:
        members = self.members[bucket]
        return members[torch.randperm(len(members), generator=generator(self.seed, "bucket", bucket, turn)).numpy()]


def order_of(sizes: Sizes, *, batch_size: int, seed: int) -> Order:
    """How samples are dealt out in batches: of one size as `Shuffled` does, of several as `BucketOrder`."""
    if (sizes == sizes[:1]).all():
        return Shuffled(len(sizes), seed=seed)
    return BucketOrder(sizes, batch_size=batch_size, seed=seed)
