"""The request as HTTP takes it: made from `Request`, so that it never lags behind."""

import base64
import binascii
import dataclasses
import io
import re
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from tintype.apps.server.settings import Settings
from tintype.conditioning.language import parts, spans
from tintype.tasks.request import BOUNDS, LAID_OUT, MASKED, NAMED, TASKS, WITH_PICTURE, Request, takes

LONGEST_PROMPT = 20_000  # characters
MOST_FIELDS = 200  # in a body
MOST_PARTS = 16  # that AND joins in a prompt: each is heard by itself at every step
MOST_CHANGES = 64  # schedules and alternations in a prompt
DEEPEST = 64  # brackets within brackets
HEAVIEST = 100  # of words and parts
LONGEST_RUN = 200  # blanks or digits: each is looked at once for each before it
RUN = re.compile(rf"\s{{{LONGEST_RUN + 1}}}|\d{{{LONGEST_RUN + 1}}}")
MARKS = re.compile(r"\\.|[\[\]():|]", re.DOTALL)  # of A1111's prompt language
PROMPTS = ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2")
USUAL_SCALE = 4  # of upscalers
DATA = "data:image/png;base64,"
NEEDED = (
    ("image", WITH_PICTURE, f"begins with a picture; expected one as {DATA}…"),
    ("mask", MASKED, f"paints a part anew; expected a picture that is white there, as {DATA}…"),
    ("depth", ("depth2img",), f"is shown how far all is; expected a picture of it, as {DATA}…"),
    ("map", ("map2img",), f"is shown which class is where; expected a picture of it, as {DATA}…"),
    ("label", ("class2img",), "draws one of the model's classes; expected its name or number"),
    ("boxes", LAID_OUT, "draws what is in them; expected some, as NAME:left,top,right,bottom"),
)  # field, the tasks that come to nothing without it, why
FLAG = re.compile(r"--([a-z][a-z-]*)(?: FILE)?")  # of the command line
SAID = (
    ("see `tintype samplers`", "its options are in /v1/capabilities"),
    ("a file, or a data URL", "base64, alone or as a data URL"),
    ("FILE, or FILE:STRENGTH", "NAME, or NAME:STRENGTH"),
    (", or --layout", ""),
    ("--box", "boxes"),
)  # on the command line, over HTTP


class Body(BaseModel):
    """An object of few fields, whatever is sent: a sentence is made of each that is wrong."""

    @model_validator(mode="before")
    @classmethod
    def _few(cls, sent: Any) -> Any:
        if isinstance(sent, dict) and len(sent) > MOST_FIELDS:  # pyright: ignore[reportUnknownArgumentType]
            raise ValueError(f"got an object of more than {MOST_FIELDS} fields; leave out those that mean nothing here")
        return sent


def request_model(settings: Settings) -> type[BaseModel]:
    """A pydantic model of all fields of a request, and of what the queue is to know."""

    class Bounded(Body):
        model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

        @model_validator(mode="after")
        def _within(self) -> Self:
            check_drawn(self.model_dump(), settings)
            return self

    hints = typing.get_type_hints(Request)
    fields: dict[str, object] = {}
    for field in dataclasses.fields(Request):
        kind, bounds = hints[field.name], bounds_of(field.name, settings)
        if field.name == "task":
            kind = Literal[*TASKS]
        elif field.name in NAMED:
            kind = Annotated[str | None, AfterValidator(lambda text: checked_picture(text, settings) if text else None)]
        elif kind == tuple[str, ...]:
            kind = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=64, fail_fast=True)]
        elif bounds is not None:
            low, high = bounds
            kind = Annotated[kind, Field(ge=low, le=high)]
        elif str in (typing.get_args(kind) or (kind,)):
            kind = Annotated[kind, Field(max_length=LONGEST_PROMPT)]
        told = over_http(field.metadata.get("help") or "what to draw")
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
    return create_model("Job", __base__=Bounded, **fields)  # pyright: ignore


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
        body = unbroken(body)
        content = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"no base64 ({error}); expected data:image/png;base64,…") from error
    check_size(content, settings)
    return f"{head},{body}"


def unbroken(text: str) -> str:
    """Base64 without the ends of its lines."""
    for space in "\r\n\t ":
        text = text.replace(space, "")
    return text


def data_url(content: bytes) -> str:
    """Of a PNG, as `checked_picture` takes it."""
    return DATA + base64.b64encode(content).decode()


def png(picture: Image.Image) -> bytes:
    from tintype.data.pictures import encode

    return encode(picture, "png")


def check_size(content: bytes, settings: Settings) -> tuple[int, int]:
    """Width and height of a picture. Raises `ValueError` for what is none or too large."""
    width, height = picture_size(content)
    if max(width, height) > settings.largest:
        raise ValueError(f"a picture of {width} x {height}; expected {settings.largest} a side at most")
    return width, height


def check_drawn(values: Mapping[str, Any], settings: Settings) -> None:
    """Raises `ValueError`, which begins with the field's name, for more than is drawn here, before anything is made of
    it: what the request and the headers of its pictures tell counts, what only its model knows does not."""
    if values["prompt_style"] == "a1111":
        for name in PROMPTS:
            check_prompt(name, values[name] or "")
    sides = final_sides(values)
    for name, (field, length) in sides.items():
        if length is not None and length > settings.largest:
            given = f" {USUAL_SCALE if values[field] is None else values[field]:g}"
            raise ValueError(f"{field}{given}: the {name} becomes {length} pixels; expected {settings.largest} at most")
    (_, width), (_, height) = sides.values()
    if width is None or height is None:
        return
    most = most_pixels(settings) // (width * height)
    if values["batch_size"] > most:
        raise ValueError(f"batch_size {values['batch_size']}: expected {most} pictures of {width} x {height} at most")


def most_pixels(settings: Settings) -> int:
    """Of all pictures of a request together: a quarter of what sides and number would allow, one of the largest at
    least."""
    return max(settings.pictures * settings.largest**2 // 4, settings.largest**2)


def final_sides(values: Mapping[str, Any]) -> dict[str, tuple[str, int | None]]:
    """Of width and height the field that decides it, and pixels; None where only the model knows."""
    image: str | None = values["image"]
    held = (None, None) if image is None else picture_size(base64.b64decode(image.partition(",")[2]))
    sides: dict[str, tuple[str, int | None]] = {}
    for name, before, ends in zip(("width", "height"), held, (("left", "right"), ("top", "bottom")), strict=True):
        asked: int | None = values[name]
        first, last = (values[end] for end in ends)
        match values["task"]:
            case "upscale" if before is not None:
                sides[name] = ("scale", before * (values["scale"] or USUAL_SCALE))
            case "outpaint" if before is not None:
                sides[name] = (ends[0] if first > last else ends[1], before + first + last)
            case "txt2img" if values["hires_scale"] and asked:
                sides[name] = ("hires_scale", round(asked * values["hires_scale"]))
            case "inpaint" if values["only_masked"]:
                sides[name] = (name, before)
            case _:
                sides[name] = (name, asked or before)
    return sides


def check_prompt(name: str, text: str) -> None:
    """Raises `ValueError` for a prompt in A1111's language that takes too long to be read and heard, or weighs more
    than numbers bear."""
    if RUN.search(text):
        raise ValueError(f"{name}: got more than {LONGEST_RUN} blanks or digits in a row; expected fewer")
    changes, deepest = _counted(text)
    if changes > MOST_CHANGES:
        raise ValueError(f"{name}: got {changes} schedules and alternations; expected {MOST_CHANGES} at most")
    if deepest > DEEPEST:
        raise ValueError(f"{name}: got {deepest} brackets within one another; expected {DEEPEST} at most")
    sides = parts(text) if name == "prompt" else ()
    if len(sides) > MOST_PARTS:
        raise ValueError(f"{name}: got {len(sides)} parts joined by AND; expected {MOST_PARTS} at most")
    try:
        weights = [*(side.weight for side in sides), *(span.weight for span in spans(text))]
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if (heaviest := max(map(abs, weights))) > HEAVIEST:
        raise ValueError(f"{name}: got a weight of {heaviest:g}; expected {HEAVIEST} at most")


def _counted(text: str) -> tuple[int, int]:
    """Of a prompt: pairs of brackets that change with the step, and how deep brackets of one kind are opened."""
    opened: list[str] = []  # "[:" one that changes
    changes, deepest, depth = 0, 0, {"(": 0, "[": 0}
    for found in MARKS.finditer(text):
        sign = found[0]
        if sign in depth:
            opened.append(sign)
            depth[sign] += 1
            deepest = max(deepest, depth[sign])
        elif sign in ":|" and opened and opened[-1] == "[":
            opened[-1] = "[:"
        elif sign in ")]":
            pair = "(" if sign == ")" else "["
            depth[pair] = max(0, depth[pair] - 1)
            if opened and opened[-1][0] == pair:
                changes += opened.pop() == "[:"
            else:
                opened.clear()
    return changes, deepest


def picture_size(content: bytes) -> tuple[int, int]:
    """Width and height of a picture, upright, from its header. Raises `ValueError` for what is none."""
    from tintype.data.pictures import DAMAGED, formats

    try:
        with Image.open(io.BytesIO(content), formats=formats()) as picture:
            width, height = picture.size
            return (height, width) if _lies(picture) else (width, height)
    except DAMAGED as error:
        raise ValueError(f"no picture that can be read ({type(error).__name__}); expected PNG, JPEG or WebP") from error


def _lies(picture: Image.Image) -> bool:
    """Whether EXIF says that it is to be turned on its side."""
    from tintype.data.pictures import DAMAGED, ORIENTATION

    if "exif" not in picture.info and picture.format != "TIFF":  # a PNG would be decoded to look for it
        return False
    try:
        return picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except DAMAGED:
        return False


def over_http(sentence: str) -> str:
    """A sentence of ours that speaks of the command line, for who asks over HTTP: flags are fields there."""
    for spoken, said in SAID:
        sentence = sentence.replace(spoken, said)
    return FLAG.sub(lambda found: found[1].replace("-", "_"), sentence)


def as_request(values: dict[str, object]) -> Request:
    """Raises `ValueError`, which begins with the field's name."""
    named = {field.name for field in dataclasses.fields(Request)}
    given = {name: value for name, value in values.items() if name in named}
    given |= {name: tuple(typing.cast("list[str]", value)) for name, value in given.items() if isinstance(value, list)}
    request = Request(**given)  # pyright: ignore
    for field, tasks, why in NEEDED:
        value: object = getattr(request, field)
        if request.task in tasks and not (value.strip() if isinstance(value, str) else value):
            raise ValueError(f"{field}: {request.task} {why}")
    return request
