"""Augmentations: a sample becomes another one, with all its parts, so that boxes and masks go with the picture."""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tintype.conditioning.layout import ROUNDING, Box, Region
from tintype.conditioning.prompt import Framing
from tintype.data.samples import Augmentation, Sample


def mirrored(sample: Sample) -> Sample:
    """Left and right exchanged: picture, mask and boxes. What a caption says of left and right stays as it is.

    Raises `ValueError` for a sample of stored latents, which the mirror image's latent is not the mirror of.
    """
    if sample.mean is not None:
        raise ValueError("a stored latent cannot be mirrored; store that of the mirrored picture as well")
    return dataclasses.replace(
        sample,
        picture=None if sample.picture is None else np.ascontiguousarray(sample.picture[:, ::-1]),
        mask=None if sample.mask is None else np.ascontiguousarray(sample.mask[:, ::-1]),
        boxes=tuple(_moved(box, left=1 - box.region.left - box.region.width) for box in sample.boxes),
    )


def _moved(box: Box, *, left: float) -> Box:
    return dataclasses.replace(box, region=dataclasses.replace(box.region, left=max(left, 0.0)))


def cropped(sample: Sample, *, left: int, top: int, width: int, height: int) -> Sample:
    """The part of picture and mask from pixel (left, top); boxes are cut to it, and left out where nothing remains.
    What was cut is added to `framing`."""
    picture = _picture(sample)
    if not (0 <= left <= picture.shape[1] - width and 0 <= top <= picture.shape[0] - height):
        raise ValueError(
            f"a crop of {width}x{height} from ({left}, {top}) of a picture of {picture.shape[1]}x{picture.shape[0]}; "
            "expected it to lie within: prepare larger pictures or crop less"
        )
    window = (slice(top, top + height), slice(left, left + width))
    scale = (picture.shape[1] / width, picture.shape[0] / height)
    start = (left / width, top / height)
    cut = (cut_box(box, scale=scale, start=start) for box in sample.boxes)
    shape = (picture.shape[0], picture.shape[1])
    before = sample.framing or Framing(original_size=shape, target_size=shape)
    return dataclasses.replace(
        sample,
        picture=np.ascontiguousarray(picture[window]),
        mask=None if sample.mask is None else np.ascontiguousarray(sample.mask[window]),
        boxes=tuple(box for box in cut if box is not None),
        framing=dataclasses.replace(
            before, crop=(before.crop[0] + top, before.crop[1] + left), target_size=(height, width)
        ),
    )


def cut_box(box: Box, *, scale: tuple[float, float], start: tuple[float, float]) -> Box | None:
    """A box as seen in a crop: x becomes x * scale - start, cut to [0, 1]; None where it is not seen at all."""
    left, right = _cut(box.region.left, box.region.width, scale[0], start[0])
    top, bottom = _cut(box.region.top, box.region.height, scale[1], start[1])
    if min(right - left, bottom - top) <= ROUNDING:
        return None
    return dataclasses.replace(box, region=Region(left=left, top=top, width=right - left, height=bottom - top))


def _cut(first: float, size: float, scale: float, start: float) -> tuple[float, float]:
    low, high = first * scale - start, (first + size) * scale - start
    return min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)


def flips(probability: float = 0.5) -> Augmentation:
    """Mirrors this share of the samples."""
    if not 0 <= probability <= 1:
        raise ValueError(f"flips {probability}: expected a share from 0 to 1")

    def augment(sample: Sample, noise: torch.Generator) -> Sample:
        return mirrored(sample) if float(torch.rand((), generator=noise)) < probability else sample

    return augment


def random_crop(size: int) -> Augmentation:
    """A square of `size` pixels anywhere in the picture, each place as likely."""

    def augment(sample: Sample, noise: torch.Generator) -> Sample:
        height, width = _room(sample, size)
        left, top = (int(torch.randint(room + 1, (), generator=noise)) for room in (width, height))
        return cropped(sample, left=left, top=top, width=size, height=size)

    return augment


def random_resized_crop(size: int, *, smallest: float) -> Augmentation:
    """A part of the picture, from `smallest` to all of its area and from 3:4 to 4:3, each as likely, as a square of
    `size` pixels (Szegedy et al. 2015, section 6); with `smallest` 1, and where none fits, the square in the middle.
    Raises `ValueError` unless smallest is more than 0, at most 1."""
    if not 0 < smallest <= 1:
        raise ValueError(f"smallest {smallest}: expected a share of the area, more than 0, at most 1")

    def augment(sample: Sample, noise: torch.Generator) -> Sample:
        height, width = _picture(sample).shape[:2]
        for _ in range(10 if smallest < 1 else 0):
            share, turn, across, down = torch.rand(4, generator=noise).tolist()
            area, ratio = height * width * (smallest + (1 - smallest) * share), (4 / 3) ** (2 * turn - 1)
            wide, high = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < wide <= width and 0 < high <= height:
                left, top = int(across * (width - wide + 1)), int(down * (height - high + 1))
                return _resized(cropped(sample, left=left, top=top, width=wide, height=high), size)
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        return _resized(cropped(sample, left=left, top=top, width=side, height=side), size)

    return augment


def _resized(sample: Sample, size: int) -> Sample:
    """Bicubic, as CLIP reads pictures; classes of a mask are not mixed."""
    picture = Image.fromarray(_picture(sample)).resize((size, size), Image.Resampling.BICUBIC)
    mask = sample.mask
    if mask is not None:
        mask = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
    framing = None if sample.framing is None else dataclasses.replace(sample.framing, target_size=(size, size))
    return dataclasses.replace(sample, picture=np.asarray(picture), mask=mask, framing=framing)


def center_crop(size: int) -> Augmentation:
    """The square of `size` pixels in the middle."""

    def augment(sample: Sample, noise: torch.Generator) -> Sample:
        height, width = _room(sample, size)
        return cropped(sample, left=width // 2, top=height // 2, width=size, height=size)

    return augment


def _room(sample: Sample, size: int) -> tuple[int, int]:
    height, width = _picture(sample).shape[:2]
    if size < 1 or min(height, width) < size:
        raise ValueError(
            f"a crop of {size}x{size} from a picture of {width}x{height}; expected 1 to {min(height, width)}: "
            "prepare larger pictures or crop less"
        )
    return height - size, width - size


def _picture(sample: Sample) -> NDArray[np.uint8]:
    if sample.picture is None:
        raise ValueError("a sample without a picture cannot be cropped; stored latents are what they were made of")
    return sample.picture


def any_caption(sample: Sample, noise: torch.Generator) -> Sample:
    """One of the captions of a picture that has several (COCO: five), each as likely."""
    if not sample.other_captions:
        return sample
    said = (sample.caption, *sample.other_captions)
    return dataclasses.replace(sample, caption=said[int(torch.randint(len(said), (), generator=noise))])
