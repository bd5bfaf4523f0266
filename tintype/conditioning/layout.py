"""Boxes as conditioning: objects written as tokens, three each, read by a transformer.

The tokens are those of CompVis's taming-transformers (`taming/data/conditional_builder`), which latent-diffusion's
layout-to-image model was trained with: corners on a square grid, one number each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tintype.diffusion.denoiser import Conditioning
from tintype.models.token_transformer import TokenTransformer, TokenTransformerConfig

ROUNDING = 1e-6  # how far a box of sums and fractions may leave the picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A rectangle in parts of the picture's sides: all of them in [0, 1], else `ValueError`."""

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0

    def __post_init__(self) -> None:
        for name, start, size in (("width", self.left, self.width), ("height", self.top, self.height)):
            if not (start >= -ROUNDING and size > 0 and start + size <= 1 + ROUNDING):
                raise ValueError(
                    f"{name} {size} from {start}: a box is given in parts of the picture's sides; expected a "
                    f"{name} above 0 that ends within the picture, at most at 1"
                )

    def meets(self, other: "Region") -> bool:
        """Whether they have an area in common."""
        across = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        down = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        return across > 0 and down > 0


WHOLE = Region()
MARKS = 16  # four of them, each there or not


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """An object: its class and where it is. The marks are OpenImages': several at once, partly hidden, a picture of
    such a thing, seen from inside."""

    label: int
    region: Region
    group: bool = False
    occluded: bool = False
    depiction: bool = False
    inside: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutConfig:
    """`objects`: the most that are written. `num_classes`: a marked object is written as label + num_classes * marks;
    340 are what taming's OpenImages data set keeps (352 allowed, 12 of them unified with others). latent-diffusion's
    own is unpublished."""

    encoder: TokenTransformerConfig
    objects: int = 30
    num_classes: int = 340

    def __post_init__(self) -> None:
        if self.length != self.encoder.context_length:
            raise ValueError(
                f"{self.objects} objects make {self.length} tokens, the encoder reads {self.encoder.context_length}; "
                "expected the same number"
            )
        if MARKS * self.num_classes > self.none:
            raise ValueError(
                f"{self.num_classes} classes with marks are {MARKS * self.num_classes} labels; "
                f"expected {self.none} at most, the encoder's vocabulary without the token of no object"
            )

    @property
    def length(self) -> int:
        """Tokens of a layout: label, first and last corner of each object, and two of the crop."""
        return 3 * self.objects + 2

    @property
    def none(self) -> int:
        """The token where no object is."""
        return self.encoder.vocabulary_size - 1

    @property
    def grid(self) -> int:
        """Corners along each side."""
        return math.isqrt(self.encoder.vocabulary_size)


def layout_ids(boxes: Sequence[Box], config: LayoutConfig, *, crop: Region = WHOLE) -> tuple[int, ...]:
    """A layout as `config.length` tokens, in the order of the boxes; `crop` is the part of the scene that the picture
    shows, and boxes outside it are left out, as in training.

    Raises `ValueError` for more boxes than the model reads and for a class it does not have.
    """
    if len(boxes) > config.objects:
        raise ValueError(f"{len(boxes)} boxes: this model reads {config.objects} at most; leave some out")
    seen = [box for box in boxes if box.region.meets(crop)]
    written = [token for box in seen for token in (_label(box, config), *_corners(box.region, config.grid))]
    empty = [config.none] * (3 * (config.objects - len(seen)))
    return (*written, *empty, *_corners(crop, config.grid))


def _label(box: Box, config: LayoutConfig) -> int:
    if not 0 <= box.label < config.num_classes:
        raise ValueError(f"class {box.label}: this model has the classes 0 to {config.num_classes - 1}")
    marks = box.group + 2 * box.occluded + 4 * box.depiction + 8 * box.inside
    return box.label + config.num_classes * marks


def _corners(region: Region, grid: int) -> tuple[int, int]:
    """Top left and bottom right, each as row * grid + column."""
    last = _corner(region.left + region.width, region.top + region.height, grid)
    return _corner(region.left, region.top, grid), last


def _corner(x: float, y: float, grid: int) -> int:
    return round(y * (grid - 1)) * grid + round(x * (grid - 1))


class LayoutConditioner(nn.Module):
    """layouts -> Conditioning(context: B L D)."""

    def __init__(self, config: LayoutConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TokenTransformer(config.encoder)

    def encode(self, ids: Tensor) -> Conditioning:
        """ids: B `config.length`."""
        return Conditioning(context=self.encoder(ids))

    def forward(self, layouts: Sequence[Sequence[Box]]) -> Conditioning:
        """Boxes of whole pictures; `layout_ids` and `encode` serve crops."""
        ids = [layout_ids(boxes, self.config) for boxes in layouts]
        return self.encode(torch.tensor(ids, device=self.encoder.position_embedding.weight.device))

    def empty(self, count: int) -> Conditioning:
        """The layout without any object, `count` times."""
        return self([()] * count)
