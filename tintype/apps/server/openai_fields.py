"""What OpenAI's clients send and get: fields, sizes, pictures, errors."""

import io
import math
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import Request as Call
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from PIL import Image
from pydantic import AliasChoices, ConfigDict, Field
from starlette.exceptions import HTTPException

from tintype.apps.server.asked import JSON, Wrong, field_of, problem
from tintype.apps.server.schema import LONGEST_PROMPT, Body, over_http, png
from tintype.tasks.request import LARGEST_SEED

Size = tuple[int, int]
Format = Literal["png", "webp", "jpeg"]
NAMES = {"batch_size": "n"}  # OpenAI's of our fields
KNOBS = ("seed", "steps", "cfg_scale", "negative_prompt", "sampler", "scheduler", "width", "height", "strength", "lora")
KINDS: dict[int, tuple[str, str | None]] = {
    404: ("invalid_request_error", "model_not_found"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}  # type and code
NONE_USED = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}  # nothing is billed here


class Asked(Body):
    """OpenAI's fields and ours beside them; what is in neither is ignored. `size` is kept whatever the model's own is:
    a picture much larger than that is drawn at it and enlarged. `width` and `height` are drawn as they are."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    prompt: str = Field(default="", max_length=LONGEST_PROMPT)
    model: str | None = Field(default=None, max_length=500)
    n: int | None = Field(default=None, ge=1, le=10)
    size: str | None = Field(default=None, max_length=20, description="WIDTHxHEIGHT, or auto")
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Format | None = None
    output_compression: int | None = Field(default=None, ge=0, le=100)
    stream: bool | None = None
    partial_images: int | None = Field(default=None, ge=0, le=3)

    seed: int | None = Field(default=None, ge=-1, le=LARGEST_SEED)
    steps: int | None = Field(default=None, validation_alias=AliasChoices("steps", "num_inference_steps"))
    cfg_scale: float | None = Field(default=None, validation_alias=AliasChoices("cfg_scale", "guidance_scale"))
    negative_prompt: str | None = Field(default=None, max_length=LONGEST_PROMPT)
    sampler: str | None = Field(default=None, max_length=LONGEST_PROMPT)
    scheduler: str | None = Field(default=None, max_length=LONGEST_PROMPT)
    width: int | None = None
    height: int | None = None
    strength: float | None = None
    lora: list[str] | None = Field(default=None, max_length=64, fail_fast=True, description="NAME or NAME:STRENGTH")

    def values(self, task: str) -> JSON:
        """Of a request of ours."""
        values: JSON = {name: getattr(self, name) for name in KNOBS if getattr(self, name) is not None}
        values["batch_size"] = self.n or 1
        return values if task == "variation" else values | {"prompt": self.prompt}


class Generation(Asked):
    prompt: str = Field(max_length=LONGEST_PROMPT, description="what to show")


def asked_size(text: str | None, largest: int) -> Size | None:
    """None: the model's own, or the picture's."""
    if text is None or text == "auto":
        return None
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if found is None:
        raise Wrong("size", f"size {text!r}: expected WIDTHxHEIGHT, such as 1024x1024, or auto")
    size = (int(found[1]), int(found[2]))
    if min(size) < 8 or max(size) > largest:
        raise Wrong("size", f"size {text}: expected sides from 8 to {largest}")
    return size


@dataclass(frozen=True, kw_only=True, slots=True)
class Own:
    """What a model draws unasked, `size` a side, and of what its sides are multiples."""

    size: int
    cell: int

    def drawn(self, asked: Size) -> Size:
        """Where to draw a picture of the asked size: there, or in its shape at the model's size where it is more than
        twice as large, since models repeat themselves far from what they were trained for."""
        area = asked[0] * asked[1]
        scale = self.size / math.sqrt(area) if area > 2 * self.size**2 else 1.0
        width, height = (max(self.cell, round(side * scale / self.cell) * self.cell) for side in asked)
        return width, height

    def is_as_drawn(self, asked: Size) -> bool:
        return self.drawn(asked) == asked


ANY = Own(size=2**20, cell=64)  # of a model that was never open: drawn as asked


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What a picture is brought to before it is sent; `size` None: as drawn."""

    size: Size | None = None
    format: Format = "png"
    compression: int | None = None

    def encoded(self, content: bytes) -> bytes:
        """The bytes of a PNG of ours; the very same where nothing is to be done."""
        with Image.open(io.BytesIO(content)) as picture:
            if self.format == "png" and self.size in (None, picture.size):
                return content
            picture.load()
        return self._written(picture if self.size is None else picture.resize(self.size, Image.Resampling.LANCZOS))

    def _written(self, picture: Image.Image) -> bytes:
        stream = io.BytesIO()
        if self.format == "png":
            from tintype.tasks.infotext import png_info

            picture.save(stream, format="PNG", pnginfo=png_info(picture))
        else:
            quality = 95 if self.compression is None else self.compression
            picture.convert("RGB").save(stream, format=self.format.upper(), quality=quality)
        return stream.getvalue()

    @property
    def is_as_drawn(self) -> bool:
        return self.size is None and self.format == "png"


def size_of(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as picture:
        return f"{picture.width}x{picture.height}"


def repainted(content: bytes) -> bytes:
    """A mask whose transparent part is to be repainted, as one of ours: white there. Raises `Wrong`."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            clear = picture.convert("RGBA").getchannel("A").point(lambda level: 255 - level)
    except (OSError, SyntaxError, ValueError) as error:
        raise Wrong("mask", f"mask: no picture that can be read ({type(error).__name__}); expected a PNG") from error
    if clear.getbbox() is None:
        raise Wrong("mask", "mask: no part of it is transparent; expected a PNG that is so where to repaint")
    return png(clear)


class OpenAIRoute(APIRoute):
    """A route whose refusals are in OpenAI's shape, and 400 where ours are 422: clients tell errors by it."""

    def get_route_handler(self) -> Callable[[Call], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handler(call: Call) -> Response:
            try:
                return await inner(call)
            except RequestValidationError as error:
                field, sentence = problem(error.errors()[0])
                return refusal(400, sentence, field)
            except Wrong as error:
                return refusal(400, str(error), error.field)
            except HTTPException as error:
                status = 400 if error.status_code == 422 else error.status_code
                detail = over_http(str(error.detail))
                theirs = re.match(r"(n|size)\b", detail)
                field = getattr(error, "field", None) or (theirs[0] if theirs else field_of(detail))
                return refusal(status, detail, field, error.headers)

        return handler


def refusal(status: int, sentence: str, field: str | None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    kind, code = KINDS.get(status, ("invalid_request_error" if status < 500 else "server_error", None))
    error = {"message": sentence, "type": kind, "param": field, "code": code}
    return JSONResponse({"error": error}, status, headers=headers)


def now() -> int:
    return int(time.time())
