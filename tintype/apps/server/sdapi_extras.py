"""A1111's extras: pictures enlarged, and what a picture tells of itself."""

import json
import re
from typing import Any

from PIL import ExifTags, Image
from pydantic import ConfigDict, Field

from tintype.apps.server.asked import JSON, Wrong
from tintype.apps.server.schema import Body
from tintype.apps.server.sdapi_fields import opened
from tintype.tasks.request import LARGEST_ENLARGEMENT

OURS = "tintype x4"
PLAIN = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
PIECE = re.compile(r'((?:(?<=:)\s*"(?:[^"\\]|\\.)*"|[^,])*)(?:,|$)')  # up to a comma outside quotes
NAME = re.compile(r"\w[\w \-/]*")
FEWEST = 3  # pairs that a line of settings has
LONGEST_LINE = 10_000  # characters of it


class Extras(Body):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    resize_mode: int | None = Field(default=0, ge=0, le=1, description="by a factor, or to a size")
    gfpgan_visibility: float | None = 0
    codeformer_visibility: float | None = 0
    upscaling_resize: float | None = Field(default=2, gt=0, le=LARGEST_ENLARGEMENT)
    upscaling_resize_w: int | None = Field(default=512, ge=1)
    upscaling_resize_h: int | None = Field(default=512, ge=1)
    upscaling_crop: bool | None = True
    upscaler_1: str | None = "None"
    upscaler_2: str | None = "None"
    extras_upscaler_2_visibility: float | None = Field(default=0, ge=0, le=1)

    def scale(self, size: tuple[int, int]) -> float:
        """How many times larger a picture of this size becomes."""
        if not self.resize_mode:
            return self.upscaling_resize or 1
        return max((self.upscaling_resize_w or 1) / size[0], (self.upscaling_resize_h or 1) / size[1])

    def names(self) -> list[str]:
        """The upscalers that are asked for."""
        second = self.upscaler_2 if self.extras_upscaler_2_visibility else None
        return [name for name in (self.upscaler_1, second) if name not in (None, "", "None")]  # pyright: ignore

    def check(self, known: list[str]) -> None:
        for name in ("gfpgan_visibility", "codeformer_visibility"):
            if getattr(self, name):
                raise Wrong(name, f"{name}: nothing restores faces here; expected 0")
        for name in self.names():
            if name not in known:
                raise Wrong("upscaler_1", f"upscaler {name!r}: not here; expected one of {', '.join(known)}")

    def size(self, held: tuple[int, int], largest: int) -> tuple[int, int]:
        scale = self.scale(held)
        size = (max(1, round(held[0] * scale)), max(1, round(held[1] * scale)))
        if max(size) > largest:
            raise Wrong("upscaling_resize", f"a result of {size[0]} x {size[1]}: expected {largest} a side at most")
        return size

    def finished(self, enlarged: list[Image.Image]) -> Image.Image:
        """The results of both upscalers as one, cut to the asked shape."""
        result = enlarged[0]
        if len(enlarged) > 1:
            result = Image.blend(result, enlarged[1], self.extras_upscaler_2_visibility or 0)
        if not self.resize_mode or not self.upscaling_crop:
            return result
        size = (self.upscaling_resize_w or 1, self.upscaling_resize_h or 1)
        left, top = ((result.size[axis] - size[axis]) // 2 for axis in (0, 1))
        return result.crop((left, top, left + size[0], top + size[1]))

    def told(self) -> str:
        return f"Upscaler: {' and '.join(self.names()) or 'None'}"


class Single(Extras):
    image: str


class Named(Body):
    data: str
    name: str = ""


class Batch(Extras):
    imageList: list[Named] = Field(max_length=16, fail_fast=True)  # A1111's name


class Informed(Body):
    image: str


def enlarged(picture: Image.Image, name: str, size: tuple[int, int]) -> Image.Image:
    return picture.resize(size, PLAIN[name])


def png_info(text: str) -> JSON:
    """The settings in a picture, as text and one by one; empty where it tells none."""
    if not text.strip():
        raise Wrong("image", "image: expected a picture in base64")
    picture = opened(text, "image")
    items = {str(name): value for name, value in picture.info.items() if isinstance(value, str)}
    info = items.pop("parameters", None) or _comment(picture)
    return {"info": info, "items": items, "parameters": parameters(info)}


def _comment(picture: Image.Image) -> str:
    """EXIF's, where JPEG and WebP keep the settings."""
    found: Any = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if not isinstance(found, bytes):
        return found if isinstance(found, str) else ""
    code, text = found[:8], found[8:]
    return text.decode("utf-16-be" if code.startswith(b"UNICODE") else "utf-8", errors="replace").strip("\0")


def parameters(text: str) -> dict[str, str]:
    """The settings of A1111's text: prompts, then pairs on the last line, unless that has too few to be one."""
    *lines, last = text.strip().split("\n")
    pairs = _pairs(last) if len(last) <= LONGEST_LINE else {}
    if len(pairs) < FEWEST:
        lines, pairs = [*lines, last], {}
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    if size := re.fullmatch(r"(\d+)x(\d+)", pairs.get("Size", "")):
        pairs |= {"Size-1": size[1], "Size-2": size[2]}
    return {"Prompt": prompt.strip(), "Negative prompt": negative.strip(), **pairs} if text.strip() else {}


def _pairs(line: str) -> dict[str, str]:
    """«name: value» between commas, a value that holds some in quotes. Looks at each character once."""
    parted = [found[1].partition(":") for found in PIECE.finditer(line)]
    named = [(name.strip(), value.strip()) for name, colon, value in parted if colon]
    return {name: _unquoted(value) for name, value in named if NAME.fullmatch(name)}


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
