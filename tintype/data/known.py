"""What every sample of a data set has beside its picture, found without decoding one: a run that needs a caption or a
mask of each looks before its first step, and names what lacks it."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tintype.data.prepared import Prepared
from tintype.data.samples import Sample, Samples, described
from tintype.data.views import Part

Slot = Literal["caption", "label", "boxes", "mask"]
WORDS: dict[Slot, str] = {"caption": "caption", "label": "class", "boxes": "box", "mask": "mask"}


def known(samples: Samples, slot: Slot, numbers: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Of each sample (of those numbers) the class in this slot, of boxes the highest, of a caption or mask 0; -1 where
    it has nothing there."""
    numbers = np.arange(len(samples)) if numbers is None else numbers
    match samples:
        case Part():
            return known(samples.samples, slot, samples.numbers[numbers])
        case Prepared() if slot == "label":
            return samples.labels[numbers]
        case Prepared() if slot == "mask":
            return samples.masked[numbers].astype(np.int64) - 1
        case _:
            return np.array([_class(described(samples, number), slot) for number in numbers.tolist()], dtype=np.int64)


def _class(sample: Sample, slot: Slot) -> int:
    match slot:
        case "caption":
            return -1 if sample.caption is None else 0
        case "label":
            return -1 if sample.label is None else sample.label
        case "boxes":
            return max((box.label for box in sample.boxes), default=-1)
        case "mask":
            return -1 if sample.mask is None else 0


def mask_of(samples: Samples, index: int) -> NDArray[np.uint8] | None:
    """H W, without decoding the picture."""
    match samples:
        case Part():
            return mask_of(samples.samples, int(samples.numbers[index]))
        case Prepared():
            return samples.mask(index)
        case _:
            return described(samples, index).mask


def lacking(samples: Samples, found: NDArray[np.int64], slot: Slot, *, data: str) -> str:
    """«12 of 40,000 samples of DATA have no caption (first: NAME)», or nothing where each has one. `found` is what
    `known` gave."""
    without = np.flatnonzero(found < 0)
    if not len(without):
        return ""
    verb = "has" if len(without) == 1 else "have"
    first = described(samples, int(without[0])).name or f"number {without[0]}"
    return f"{len(without):,} of {len(found):,} samples of {data} {verb} no {WORDS[slot]} (first: {first})"


def require_each(samples: Samples, slot: Slot, *, data: str, remedy: str, count: int | None = None) -> None:
    """Raises `ValueError` that says how many samples (of the first `count`) have nothing there, and what to do."""
    first = np.arange(len(samples) if count is None else min(count, len(samples)))
    if said := lacking(samples, known(samples, slot, first), slot, data=data):
        raise ValueError(f"{said}; {remedy}")
