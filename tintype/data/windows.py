"""Windows of large scenes, and small versions of pictures: what upscalers learn from."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tintype.data.samples import Column, Sample
from tintype.data.scenes import Scenes
from tintype.data.views import Sized, Sizes

REDUCTIONS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)  # how pictures become small in the world


class SceneWindows:
    """`count` squares of `size` pixels of rendered scenes, of one kind after another, from scene `first` of each on; a
    picture and nothing else. Of a scene that is larger they are cut at multiples of `grid` pixels."""

    def __init__(
        self, scenes: Sequence[Scenes], count: int, *, size: int, grid: int, seed: int, first: int = 0
    ) -> None:
        for one in scenes:
            if one.config.size < size or one.config.size % grid or size % grid:
                raise ValueError(
                    f"scenes of {one.config.size} pixels, windows of {size} on a grid of {grid}: expected scenes as "
                    "large at least, and multiples of the grid"
                )
        self.scenes = tuple(scenes)
        self.count = count
        self.size = size
        self.grid = grid
        self.seed = seed
        self.first = first

    def __len__(self) -> int:
        return self.count

    @property
    def sizes(self) -> NDArray[np.int32]:
        """N 2: height and width of each."""
        return np.full((self.count, 2), self.size, dtype=np.int32)

    def __getitem__(self, index: int, /) -> Sample:
        number, which = divmod(index, len(self.scenes))
        picture = self.scenes[which][self.first + number].picture
        places = (len(picture) - self.size) // self.grid + 1
        top, left = np.random.default_rng((self.seed, index)).integers(places, size=2) * self.grid
        return Sample(picture=picture[top : top + self.size, left : left + self.size])


class Remembered:
    """Pictures of samples that are costly to make, each made once."""

    def __init__(self, samples: Sized) -> None:
        self.samples = samples
        self._made: dict[int, NDArray[np.uint8]] = {}

    @property
    def sizes(self) -> Sizes:
        return self.samples.sizes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        if index not in self._made:
            picture = self.samples[index].picture
            assert picture is not None
            self._made[index] = picture.copy()  # not a view of a larger one
        return Sample(picture=self._made[index])


def reduced(picture: NDArray[np.uint8], factor: int, how: Image.Resampling) -> NDArray[np.uint8]:
    """picture: H W 3 at a part of its size; sides are multiples of the factor."""
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((width // factor, height // factor), how))


def low(factor: int) -> Column:
    """{"low": B 3 h w in [-1, 1]}: pictures made so many times smaller, in one of several ways."""

    def column(samples: Sequence[Sample], noise: torch.Generator) -> dict[str, torch.Tensor]:
        ways = torch.randint(len(REDUCTIONS), (len(samples),), generator=noise).tolist()
        small: list[NDArray[np.uint8]] = []
        for sample, way in zip(samples, ways, strict=True):
            assert sample.picture is not None
            small.append(reduced(sample.picture, factor, REDUCTIONS[way]))
        return {"low": torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 127.5 - 1}

    return column
