"""OpenAI's images API, as its clients call it: pictures from a sentence, edits, variations, models.

Where theirs has no word for something ours is taken: `seed`, `steps`, `negative_prompt` and the like beside the others.
"""

import asyncio
import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Query
from fastapi import Request as Call
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from tintype.apps.server.asked import JSON, Wrong, checked, problem, renamed, served
from tintype.apps.server.jobs import KEPT, LIVE
from tintype.apps.server.openai_fields import (
    ANY,
    NAMES,
    NONE_USED,
    Asked,
    Format,
    Generation,
    OpenAIRoute,
    Own,
    Sent,
    Size,
    asked_size,
    now,
    repainted,
    size_of,
)
from tintype.apps.server.openai_stream import Kind, events, pictures_of
from tintype.apps.server.schema import check_size, data_url, request_model
from tintype.apps.server.settings import Settings
from tintype.apps.server.waiting import engine_of, finished, owner_of, settings_of, submitted
from tintype.serving.jobs import Job, Terms
from tintype.tasks.request import Request

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A field that cannot be; `error.param` names it."},
    404: {"description": "No such model."},
    429: {"description": "Too many wait; Retry-After tells for how long."},
    503: {"description": "Not ready, or stopping."},
}
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        name: {"type": "string", "format": "binary"} for name in ("image", "image[]", "mask")
                    },
                }
            }
        },
    }
}  # the fields beside the files are those of a generation


def openai_routes(settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=OpenAIRoute)
    Job = request_model(settings)

    @router.post("/images/generations", responses=REFUSALS, response_model=None)
    async def generate(call: Call, asked: Generation) -> Response | JSON:
        """Pictures from a sentence."""
        _prompted(asked)
        size = asked_size(asked.size, settings.largest)
        values = asked.values("txt2img") | {"task": "txt2img"}
        own = await _own(call, asked)
        sized, sent = _sized(asked, size, own)
        return await _answer(call, asked, checked(Job, values | sized, NAMES), sent, "image_generation")

    @router.post("/images/edits", responses=REFUSALS, response_model=None, openapi_extra=FORM)
    async def edit(call: Call) -> Response | JSON:
        """A picture changed: all of it, or what is transparent in a mask."""
        asked, image, mask = await _form(call)
        _prompted(asked)
        if mask is None:
            return await _answer(call, asked, *await _redrawn(call, Job, asked, image, "img2img"), "image_edit")
        return await _answer(call, asked, *await _repainted(call, Job, asked, image, mask), "image_edit")

    @router.post("/images/variations", responses=REFUSALS, response_model=None, openapi_extra=FORM)
    async def vary(call: Call) -> Response | JSON:
        """Pictures like a picture."""
        asked, image, _ = await _form(call)
        return await _answer(call, asked, *await _redrawn(call, Job, asked, image, "variation"), "image_edit")

    @router.get("/images/{id}/{place}", responses=REFUSALS, response_class=Response)
    def picture(
        call: Call,
        id: Annotated[str, Path(pattern="^[0-9a-f]{16}$")],
        place: Annotated[int, Path(ge=0, le=1023)],
        size: Annotated[str | None, Query(max_length=20)] = None,
        format: Format = "png",
        compression: Annotated[int | None, Query(ge=0, le=100)] = None,
    ) -> Response:
        """A finished picture in the size and format that it was asked for in."""
        engine = engine_of(call)
        job, path = engine.store.get(id), engine.path(id, place)
        if job is None or job.owner != owner_of(call) or place >= job.pictures or not path.is_file():
            raise HTTPException(404, f"no picture {place} of a job {id}")
        sent = Sent(size=asked_size(size, settings.largest), format=format, compression=compression)
        return Response(sent.encoded(path.read_bytes()), media_type=f"image/{format}", headers=KEPT)

    @router.get("/models")
    def models(call: Call) -> JSON:
        """What can be named as `model`; other names are taken for the one that the task has."""
        return {"object": "list", "data": [_model(name) for name in served(call)]}

    @router.get("/models/{id:path}", responses=REFUSALS)
    def model(call: Call, id: str) -> JSON:
        if id not in served(call):
            raise HTTPException(404, f"model {id!r}: no such model here; expected one of {', '.join(served(call))}")
        return _model(id)

    return router


def _model(name: str) -> JSON:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tintype"}


def _prompted(asked: Asked) -> None:
    """As OpenAI has it: an empty prompt is a client's mistake."""
    if not asked.prompt.strip():
        raise Wrong("prompt", "prompt: it is empty; expected what the picture is to show")


def _named(call: Call, asked: Asked) -> str:
    """Clients name models of OpenAI's, whatever they ask; those mean the one that is here, which has no need of one."""
    return asked.model if asked.model in served(call) else ""


async def _own(call: Call, asked: Asked) -> Own:
    """What the model draws unasked, known from when it was open; one that never was is opened."""
    engine = engine_of(call)
    while not engine.ready.is_set() and engine.failure is None and not engine.draining:
        await asyncio.sleep(0.1)
    name = await run_in_threadpool(_named, call, asked) or "default"
    if name not in engine.models.configs:
        await _opened(call, name)
    config = engine.models.configs.get(name)
    return ANY if config is None else Own(size=config.size, cell=config.autoencoder.factor)


async def _opened(call: Call, name: str) -> None:
    """Have a model opened, in its turn, by a picture that nobody wants."""
    job = await run_in_threadpool(submitted, call, Request(steps=1, seed=0), _terms(call, name))
    try:
        await finished(call, job)
    except HTTPException as error:
        if error.status_code != 422:  # it may draw none of a sentence; who asks is told so
            raise
    finally:
        await run_in_threadpool(engine_of(call).remove, job.id)


def _terms(call: Call, model: str) -> Terms:
    return Terms(owner=owner_of(call), model=model)


def _sent(asked: Asked, size: Size | None) -> Sent:
    return Sent(size=size, format=asked.output_format or "png", compression=asked.output_compression)


def _sized(asked: Asked, size: Size | None, own: Own) -> tuple[JSON, Sent]:
    """Width and height to draw at, and what is made of it."""
    if asked.width is not None or asked.height is not None or size is None:
        return {}, _sent(asked, None)
    drawn = own.drawn(size)
    return {"width": drawn[0], "height": drawn[1]}, _sent(asked, None if drawn == size else size)


async def _form(call: Call) -> tuple[Asked, bytes, bytes | None]:
    """The fields of a form, its picture and its mask."""
    async with call.form(max_files=20, max_fields=100) as form:
        items = form.multi_items()
        fields: JSON = {name: value for name, value in items if isinstance(value, str)}
        if loras := [value for name, value in items if name in ("lora", "lora[]") and isinstance(value, str)]:
            fields["lora"] = loras
        files = [(name, await value.read()) for name, value in items if isinstance(value, UploadFile)]
    try:
        asked = Asked.model_validate(fields)
    except ValidationError as error:
        raise Wrong(*problem(error.errors(include_url=False, include_input=False)[0])) from error
    images = [content for name, content in files if name in ("image", "image[]")]
    if len(images) != 1:
        raise Wrong("image", f"image: got {len(images)} pictures; expected one, as a file in a form")
    return asked, images[0], next((content for name, content in files if name == "mask"), None)


def _size(content: bytes, name: str, settings: Settings) -> Size:
    try:
        return check_size(content, settings)
    except ValueError as error:
        raise Wrong(name, f"{name}: {error}") from error


async def _redrawn(
    call: Call, kind: type[BaseModel], asked: Asked, image: bytes, task: Literal["img2img", "variation"]
) -> tuple[Request, Sent]:
    """A picture drawn anew from itself, in the size that is asked for or its own."""
    settings = settings_of(call)
    held = _size(image, "image", settings)
    size = asked_size(asked.size, settings.largest) or held
    sized, sent = _sized(asked, size, await _own(call, asked))
    values = asked.values(task) | {"task": "img2img", "image": data_url(image)} | sized
    return await run_in_threadpool(checked, kind, values, NAMES), sent


async def _repainted(
    call: Call, kind: type[BaseModel], asked: Asked, image: bytes, mask: bytes
) -> tuple[Request, Sent]:
    """A part of a picture drawn anew. What is larger than the model draws keeps all its pixels: only the part is
    brought to the model's size."""
    settings = settings_of(call)
    held, other = _size(image, "image", settings), _size(mask, "mask", settings)
    if held != other:
        got, expected = (f"{one[0]} x {one[1]}" for one in (other, held))
        raise Wrong("mask", f"mask: got {got} pixels; expected {expected}, as the picture has")
    size, own = asked_size(asked.size, settings.largest), await _own(call, asked)
    values = asked.values("inpaint") | {"task": "inpaint", "image": data_url(image)}
    values["mask"] = data_url(await run_in_threadpool(repainted, mask))
    if not own.is_as_drawn(held):
        values["only_masked"] = True
    return await run_in_threadpool(checked, kind, values, NAMES), _sent(asked, None if size == held else size)


async def _answer(call: Call, asked: Asked, request: Request, sent: Sent, kind: Kind) -> Response | JSON:
    try:
        terms = _terms(call, await run_in_threadpool(_named, call, asked))
        job = await run_in_threadpool(submitted, call, request, terms)
        if asked.stream:
            streamed = events(call, job, sent, kind, asked.partial_images or 0)
            return StreamingResponse(streamed, media_type="text/event-stream", headers=LIVE)
        done = await finished(call, job)
    except HTTPException as error:
        raise renamed(error, NAMES) from error
    made = await run_in_threadpool(pictures_of, call, done, sent)
    told: JSON = {"created": now(), "output_format": sent.format, "size": size_of(made[0]), "usage": NONE_USED}
    if asked.response_format == "url":
        return told | {"data": [{"url": _address(call, done, place, sent)} for place in range(len(made))]}
    return told | {"data": [{"b64_json": base64.b64encode(content).decode()} for content in made]}


def _address(call: Call, job: Job, place: int, sent: Sent) -> str:
    """Of a picture as it was drawn, or as it is sent."""
    if sent.is_as_drawn:
        return f"{call.base_url}v1/jobs/{job.id}/pictures/{place}"
    size = "" if sent.size is None else f"&size={sent.size[0]}x{sent.size[1]}"
    compression = "" if sent.compression is None else f"&compression={sent.compression}"
    return f"{call.base_url}v1/images/{job.id}/{place}?format={sent.format}{size}{compression}"
