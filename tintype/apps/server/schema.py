"""The request as HTTP takes it: made from `Request`, so that it never lags behind."""

import base64
import binascii
import dataclasses
import io
import typing
from typing import Annotated, Literal

from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from tintype.apps.server.settings import Settings
from tintype.tasks.request import BOUNDS, NAMED, TASKS, Request, takes

LONGEST_PROMPT = 20_000  # characters
DATA = "data:image/png;base64,"


def request_model(settings: Settings) -> type[BaseModel]:
    """A pydantic model of all fields of a request, and of what the queue is to know."""
    hints = typing.get_type_hints(Request)
    fields: dict[str, object] = {}
    for field in dataclasses.fields(Request):
        kind, bounds = hints[field.name], bounds_of(field.name, settings)
        if field.name == "task":
            kind = Literal[*TASKS]
        elif field.name in NAMED:
            kind = Annotated[str | None, AfterValidator(lambda text: text and checked_picture(text, settings))]
        elif kind == tuple[str, ...]:
            kind = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=64)]
        elif bounds is not None:
            low, high = bounds
            kind = Annotated[kind, Field(ge=low, le=high)]
        elif str in (typing.get_args(kind) or (kind,)):
            kind = Annotated[kind, Field(max_length=LONGEST_PROMPT)]
        told = field.metadata.get("help") or "what to draw"
        tasks = [task for task in TASKS if takes(task, field)]
        only = "" if len(tasks) == len(TASKS) else f" ({', '.join(tasks)})"
        usual = [] if field.default == () else field.default
        fields[field.name] = (kind, Field(default=usual, description=f"{told}{only}"))
    fields["model"] = (
        Annotated[str | None, Field(max_length=500)],
        Field(default=None, description="its name in /v1/capabilities (default: the embedded model of the task)"),
    )
    fields["priority"] = (int, Field(default=0, ge=-100, le=100, description="higher ones are drawn before lower ones"))
    fields["timeout"] = (
        float | None,
        Field(default=None, gt=0, le=86400 * 7, description="seconds after which the job ends, wherever it is"),
    )
    fields["keep_steps"] = (bool, Field(default=False, description="keep its steps, to look at them and to go back"))
    fields["branch"] = (
        Annotated[str | None, Field(pattern="^[0-9a-f]{16}:[0-9]{1,5}$")],
        Field(default=None, description="JOB:STEP, a kept step of a job of the same sampler and steps to go on from"),
    )
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return create_model("Job", __config__=config, **fields)  # pyright: ignore


def bounds_of(name: str, settings: Settings) -> tuple[float, float] | None:
    """The least and the largest value of a field that is a number, here."""
    if name not in BOUNDS:
        return None
    low, high = BOUNDS[name]
    most = {"width": settings.largest, "height": settings.largest, "steps": settings.steps}
    most |= {"hires_steps": settings.steps, "batch_size": settings.pictures}
    return low, min(high, most.get(name, high))


def checked_picture(text: str, settings: Settings) -> str:
    """A data URL of a picture, or its base64 alone; as a data URL. Raises `ValueError` before anything is decoded for
    what is no picture, or too large a one."""
    head, comma, body = text.partition(",")
    if not comma:
        head, body = DATA[:-1], text
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        raise ValueError("expected a picture as data:image/png;base64,…; paths and addresses are not read")
    try:
        content = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"no base64 ({error}); expected data:image/png;base64,…") from error
    check_size(content, settings)
    return f"{head},{body}"


def data_url(content: bytes) -> str:
    """Of a PNG, as `checked_picture` takes it."""
    return DATA + base64.b64encode(content).decode()


def png(picture: Image.Image) -> bytes:
    from tintype.data.pictures import encode

    return encode(picture, "png")


def check_size(content: bytes, settings: Settings) -> tuple[int, int]:
    """Width and height of a picture, read from its header. Raises `ValueError` for what is none or too large."""
    from tintype.data.pictures import formats

    try:
        with Image.open(io.BytesIO(content), formats=formats()) as picture:
            width, height = picture.size
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        raise ValueError(f"no picture that can be read ({type(error).__name__}); expected PNG, JPEG or WebP") from error
    if max(width, height) > settings.largest:
        raise ValueError(f"a picture of {width} x {height}; expected {settings.largest} a side at most")
    return width, height


def as_request(values: dict[str, object]) -> Request:
    """Raises `ValueError`, which begins with the field's name."""
    named = {field.name for field in dataclasses.fields(Request)}
    given = {name: value for name, value in values.items() if name in named}
    given |= {name: tuple(typing.cast("list[str]", value)) for name, value in given.items() if isinstance(value, list)}
    return Request(**given)  # pyright: ignore
