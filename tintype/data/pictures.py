"""Pictures of any kind as H W 3 uint8, the same way every time; what cannot be one is refused for a reason.

EXIF's orientation is applied. Transparent pixels show white behind them, of an animation the first frame is taken, of
16-bit samples the high byte; CMYK is converted without a colour profile, and profiles are not read at all.
"""

import struct
import zlib
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Suffix = Literal["jpg", "png", "webp"]
STORED: dict[str, Suffix] = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}  # MPO: what some phones write
FORMATS = (*STORED, "BMP", "GIF", "TIFF", "PPM", "AVIF")  # not EPS and its like, which start programs
ORIENTATION = 0x0112
MAX_PIXELS = 89_478_485  # where PIL begins to warn; a quarter of a gigabyte of RGB
PIL_REFUSES = 2 * MAX_PIXELS
# What PIL's decoders raise when a file is not what its header says
DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError,
    MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Refused(ValueError):
    """Bytes that are no picture for us: `reason` is a word for the report, `detail` what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a picture may be; `max_aspect` is the longer side over the shorter."""

    max_pixels: int = MAX_PIXELS
    min_size: int = 1
    max_aspect: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_pixels <= PIL_REFUSES:
            raise ValueError(f"max pixels {self.max_pixels}: expected 1 to {PIL_REFUSES}, which PIL refuses to exceed")
        if self.min_size < 1:
            raise ValueError(f"min size {self.min_size}: expected 1 or more pixels")
        if self.max_aspect is not None and not self.max_aspect >= 1:
            raise ValueError(f"max aspect {self.max_aspect}: expected 1 (squares alone) or more")

    def check(self, width: int, height: int) -> None:
        """Raises `Refused` for a size outside the limits."""
        shorter, longer = sorted((width, height))
        if width * height > self.max_pixels:
            raise Refused("too many pixels", f"{width}x{height}; at most {self.max_pixels} are decoded")
        if shorter < self.min_size:
            raise Refused("too small", f"{width}x{height}; at least {self.min_size} are wanted on each side")
        if self.max_aspect is not None and longer > self.max_aspect * shorter:
            raise Refused("too long", f"{width}x{height}; at most {self.max_aspect:g} to 1 is wanted")


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """Decoded and upright. `image`: RGB; `kind`: PIL's name of the file's format; `frames`: more than 1 if it moves."""

    image: Image.Image
    kind: str
    frames: int = 1


def read_picture(content: bytes, limits: Limits | None = None) -> Picture:
    """Decode all of a picture; its size is checked in its header, before a pixel is made. Raises `Refused`."""
    opened = _opened(content)
    (limits or Limits(max_pixels=PIL_REFUSES)).check(*opened.size)
    kind, frames = opened.format or "", 1
    try:
        if kind != "MPO":  # further pictures in a photograph are previews and the like, not frames
            frames = int(getattr(opened, "n_frames", 1))
        opened.load()
        return Picture(image=_upright(opened, _rgb(opened)), kind=kind, frames=frames)
    except Refused:
        raise
    except DAMAGED as error:
        raise _damaged(error) from error


def read_classes(content: bytes, limits: Limits | None = None) -> NDArray[np.uint8]:
    """A class map (grey or palette PNG; the palette's numbers count, not its colours) as H W. Raises `Refused`."""
    opened = _opened(content)
    (limits or Limits(max_pixels=PIL_REFUSES)).check(*opened.size)
    try:
        opened.load()
    except DAMAGED as error:
        raise _damaged(error) from error
    if opened.mode == "1":
        return np.asarray(opened).astype(np.uint8)
    if opened.mode not in ("L", "P"):
        raise Refused("not a class map", f"mode {opened.mode}; expected one number from 0 to 255 at each pixel")
    return np.asarray(opened)


def encode(image: Image.Image, suffix: Suffix) -> bytes:
    """PNG, WebP without loss, or JPEG of quality 95 with all colour samples."""
    stream = BytesIO()
    match suffix:
        case "png":
            image.save(stream, "PNG", compress_level=1)  # a seventh larger than by level 4, in half the time
        case "webp":
            image.save(stream, "WEBP", lossless=True, method=0)
        case "jpg":
            image.save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise Refused("empty", "zero bytes")
    try:
        return Image.open(BytesIO(content), formats=formats())
    except Image.UnidentifiedImageError as error:
        raise Refused("not a picture", f"{len(content)} bytes that begin with {content[:8]!r}") from error
    except Image.DecompressionBombError as error:
        raise Refused("too many pixels", str(error)) from error
    except DAMAGED as error:
        raise _damaged(error) from error


@cache
def formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this PIL opens by name: MPO comes with JPEG, older ones have no AVIF."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _damaged(error: BaseException) -> Refused:
    told = f"{type(error).__name__}: {error}"
    return Refused("cut short" if "truncated" in told.lower() else "damaged", told)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise Refused("unknown colours", f"mode {image.mode}; what its numbers mean as grey levels is not told")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, seen).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(opened: Image.Image, image: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(opened.getexif().get(ORIENTATION, 1))
    except DAMAGED:  # the pixels are there, only what is said of them is not
        return image
    return image if turn is None else image.transpose(turn)
