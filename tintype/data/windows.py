"""Windows of large scenes, and small versions of pictures: what upscalers learn from."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tintype.conditioning.low import enlarged
from tintype.data.samples import Sample
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


class Enlarged:
    """The same pictures from a part of their size: made smaller, each in one of several ways, and larger again as an
    upscaler's small picture is (`enlarged`)."""

    def __init__(self, samples: Sized, factor: int) -> None:
        self.samples = samples
        self.factor = factor

    @property
    def sizes(self) -> Sizes:
        return self.samples.sizes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        picture = self.samples[index].picture
        assert picture is not None
        small = reduced(picture, self.factor, REDUCTIONS[index % len(REDUCTIONS)])
        large = enlarged(torch.from_numpy(small).permute(2, 0, 1)[None].float() / 127.5 - 1, self.factor)
        levels = ((large[0] + 1) * 127.5).round().to(torch.uint8)
        return Sample(picture=levels.permute(1, 2, 0).numpy())


def reduced(picture: NDArray[np.uint8], factor: int, how: Image.Resampling) -> NDArray[np.uint8]:
    """picture: H W 3 at a part of its size; sides are multiples of the factor."""
    height, width = picture.shape[:2]
    return np.array(Image.fromarray(picture).resize((width // factor, height // factor), how))
