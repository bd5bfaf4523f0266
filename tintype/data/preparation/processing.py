"""One item of a source becomes a sample to be written, or a finding that says why not."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tintype.common.config import Json
from tintype.conditioning.layout import WHOLE, Box, Region
from tintype.data.augment import cut_box
from tintype.data.pictures import (
    MAX_PIXELS,
    STORED,
    Limits,
    Picture,
    Refused,
    Suffix,
    encode,
    read_classes,
    read_picture,
)
from tintype.data.preparation.findings import Finding, Used, shown
from tintype.data.preparation.items import Item, Place
from tintype.data.shards import box_to_json

Crop = Literal["center", "none"]
LARGEST_SIZE = 8192
LONGEST_SIDE: dict[Suffix, int] = {"webp": 16383, "jpg": 65500}  # what the formats, and their library, can hold


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureOptions:
    """What becomes of pictures. Without `size` their bytes are kept; with it the shorter side gets that many pixels
    and, with crop "center", the middle square is kept. Anything made anew is written as `encoding`."""

    size: int | None = None
    crop: Crop = "center"
    encoding: Suffix = "png"
    min_size: int = 1
    max_aspect: float | None = None
    max_pixels: int = MAX_PIXELS
    max_bytes: int = 1 << 28
    require_caption: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= self.size <= LARGEST_SIZE:
            raise ValueError(f"size {self.size}: expected 1 to {LARGEST_SIZE} pixels")
        if self.max_bytes < 1:
            raise ValueError(f"max bytes {self.max_bytes}: expected 1 or more")
        _ = self.limits

    @property
    def limits(self) -> Limits:
        return Limits(max_pixels=self.max_pixels, min_size=self.min_size, max_aspect=self.max_aspect)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A sample, ready to be written; `record` still lacks its key."""

    picture: bytes
    suffix: Suffix
    width: int
    height: int
    label: int | None
    record: dict[str, Json]
    mask: bytes
    sha256: bytes
    said: tuple[Finding | Used, ...] = ()


def process(item: Item, classes: Sequence[str], options: PictureOptions) -> Kept | tuple[Finding, ...]:
    """Read, decode and check a picture with all that belongs to it; any fault of it is told, none is raised."""
    try:
        content = _read(item.place, options.max_bytes)
        picture = read_picture(content, options.limits)
        if options.require_caption and not item.captions:
            raise Refused("caption required", "")
        _check_scaled(picture, options)
    except Refused as refused:
        lost = [Finding(item=name, reason=f"{kind} of picture left out") for name, kind in item.texts]
        lost += [Finding(item=item.origin, reason="mask of picture left out")] if item.mask else []
        return (Finding(item=item.origin, reason=refused.reason, detail=refused.detail), *lost)
    said: list[Finding | Used] = [Used("picture"), *(Used(kind) for _, kind in item.texts), *item.notes]
    if picture.frames > 1:
        said.append(Finding(item=item.origin, reason="first frame", detail=f"of {picture.frames}"))
    mask = None
    if item.mask is not None:
        mask = _read_mask(item, item.mask, picture, options, said)
    fitted = _fit(picture, mask, options)
    if options.size is not None and min(picture.image.size) < options.size:
        size = f"{picture.image.width}x{picture.image.height}"
        said.append(Finding(item=item.origin, reason="enlarged", detail=f"from {size}"))
    keep = fitted.image is picture.image and picture.kind in STORED
    stored = content if keep else encode(fitted.image, options.encoding)
    return Kept(
        picture=stored,
        suffix=STORED[picture.kind] if keep else options.encoding,
        width=fitted.image.width,
        height=fitted.image.height,
        label=item.label,
        record=_record(item, picture, fitted, classes, said),
        mask=b"" if fitted.mask is None else _encode_mask(fitted.mask),
        sha256=hashlib.sha256(stored).digest(),
        said=tuple(said),
    )


def _read(place: Place, most: int) -> bytes:
    if place.size > most:
        raise Refused("too many bytes", f"{place.size}; at most {most} are read")
    try:
        return place.read()
    except OSError as error:
        raise Refused("cannot be read", str(error.strerror)) from error
    except EOFError as error:
        raise Refused("cut short", str(error)) from error


def _read_mask(
    item: Item, place: Place, picture: Picture, options: PictureOptions, said: list[Finding | Used]
) -> NDArray[np.uint8] | None:
    try:
        classes = read_classes(_read(place, options.max_bytes), Limits(max_pixels=options.max_pixels))
        if classes.shape[::-1] != picture.image.size:
            told = f"{classes.shape[1]}x{classes.shape[0]}, its picture {picture.image.width}x{picture.image.height}"
            raise Refused("mask of another size", told)
    except Refused as refused:
        named = refused.reason in ("not a class map", "mask of another size")
        reason, detail = (refused.reason, refused.detail) if named else ("broken mask", str(refused))
        said.append(Finding(item=item.origin, reason=reason, detail=detail))
        return None
    said.append(Used("mask"))
    return classes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fitted:
    """A picture and its mask after resizing; `crop`: what of the picture is left."""

    image: Image.Image
    mask: NDArray[np.uint8] | None
    crop: Region = WHOLE


def _fit(picture: Picture, mask: NDArray[np.uint8] | None, options: PictureOptions) -> _Fitted:
    """Resized (Lanczos, masks by nearest pixel) so that the shorter side is `size`, and cropped in the middle."""
    size, image = options.size, picture.image
    if size is None:
        return _Fitted(image=image, mask=mask)
    scaled = _scaled(image, size)
    box = (0, 0, *scaled)
    if options.crop == "center":
        left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
        box = (left, top, left + size, top + size)
    if scaled == image.size and box == (0, 0, *scaled):
        return _Fitted(image=image, mask=mask)
    classes = None
    if mask is not None:
        classes = np.asarray(Image.fromarray(mask).resize(scaled, Image.Resampling.NEAREST).crop(box))
    return _Fitted(
        image=image.resize(scaled, Image.Resampling.LANCZOS).crop(box),
        mask=classes,
        crop=Region(
            left=box[0] / scaled[0],
            top=box[1] / scaled[1],
            width=(box[2] - box[0]) / scaled[0],
            height=(box[3] - box[1]) / scaled[1],
        ),
    )


def _scaled(image: Image.Image, size: int) -> tuple[int, int]:
    scale = size / min(image.size)
    return max(size, round(image.width * scale)), max(size, round(image.height * scale))


def _check_scaled(picture: Picture, options: PictureOptions) -> None:
    """A line of one pixel by ten thousand would become as many pixels as a bomb, or longer than its format can hold."""
    width, height = _scaled(picture.image, options.size) if options.size is not None else picture.image.size
    if width * height > options.max_pixels:
        told = f"{picture.image.width}x{picture.image.height} would be resized to {width}x{height}"
        raise Refused("too long", f"{told}; at most {options.max_pixels} pixels are made")
    if options.size is not None and options.crop == "center":
        width = height = options.size
    anew = (width, height) != picture.image.size or picture.kind not in STORED
    longest = LONGEST_SIDE.get(options.encoding)
    if anew and longest is not None and max(width, height) > longest:
        raise Refused("too long", f"{width}x{height}; {options.encoding} holds at most {longest} a side")


def _boxes(item: Item, crop: Region, said: list[Finding | Used]) -> list[Box]:
    if crop == WHOLE:
        return list(item.boxes)
    scale, start = (1 / crop.width, 1 / crop.height), (crop.left / crop.width, crop.top / crop.height)
    cut = [cut_box(box, scale=scale, start=start) for box in item.boxes]
    said.extend([Finding(item=item.origin, reason="box out of crop")] * cut.count(None))
    return [box for box in cut if box is not None]


def _record(
    item: Item, picture: Picture, fitted: _Fitted, classes: Sequence[str], said: list[Finding | Used]
) -> dict[str, Json]:
    """What the JSON beside a picture says; absent things are left out."""
    told: dict[str, Json] = {"origin": shown(item.origin), "width": fitted.image.width, "height": fitted.image.height}
    if fitted.image is not picture.image:
        told |= {"original_width": picture.image.width, "original_height": picture.image.height}
        if fitted.crop != WHOLE:
            crop = fitted.crop
            told["crop"] = {"left": crop.left, "top": crop.top, "width": crop.width, "height": crop.height}
    if item.captions:
        told |= {"caption": item.captions[0], "captions": list(item.captions)}
    if item.label is not None:
        told["label"] = item.label
        if item.label < len(classes):
            told["class"] = classes[item.label]
    if item.boxes:
        told["boxes"] = [dict(box_to_json(box, classes)) for box in _boxes(item, fitted.crop, said)]
    if item.given:
        told["given"] = item.given
    return told


def _encode_mask(classes: NDArray[np.uint8]) -> bytes:
    stream = BytesIO()
    Image.fromarray(classes).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def record_bytes(record: dict[str, Json], key: str) -> bytes:
    return json.dumps({"key": key, **record}, ensure_ascii=False).encode(errors="backslashreplace")
