"""Other views of a data set: a part of it, or its mirror images as well."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tintype.data.augment import mirrored
from tintype.data.samples import Sample, Samples, described

Sizes = NDArray[np.int32]  # N 2: height and width of each sample


class Sized(Samples, Protocol):
    """Samples whose sizes are known without decoding a picture."""

    @property
    def sizes(self) -> Sizes: ...


class Part:
    """The samples of these numbers, in this order."""

    def __init__(self, samples: Sized, numbers: Sequence[int] | NDArray[np.int64]) -> None:
        self.samples = samples
        self.numbers = np.asarray(numbers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> Sample:
        return self.samples[int(self.numbers[index])]

    def described(self, index: int, /) -> Sample:
        return described(self.samples, int(self.numbers[index]))

    @property
    def sizes(self) -> Sizes:
        return self.samples.sizes[self.numbers]


class AndMirrored:
    """Each sample and its mirror image: numbers 2 i and 2 i + 1, so that a part of them holds both of a picture."""

    def __init__(self, samples: Sized) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return 2 * len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        number, again = divmod(index, 2)
        return mirrored(self.samples[number]) if again else self.samples[number]

    @property
    def sizes(self) -> Sizes:
        return np.repeat(self.samples.sizes, 2, axis=0)
