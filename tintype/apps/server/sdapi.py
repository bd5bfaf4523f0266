"""A1111's interface, `/sdapi/v1`, as its clients call it (webuiapi, Open WebUI, SillyTavern, LibreChat).

Differences that its clients gain by: sizes, steps and guidance that are not sent are the model's own; `progress`,
`interrupt` and options are of who asks; what is not here is refused by name where it would change the picture.
"""

import base64
import dataclasses
import math
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Query
from fastapi import Request as Call
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from pydantic import BaseModel

from tintype.apps.server.asked import JSON, Wrong, checked, contents, renamed
from tintype.apps.server.schema import USUAL_SCALE, checked_picture, data_url, png, request_model
from tintype.apps.server.sdapi_answers import echo, info_of, progress_of
from tintype.apps.server.sdapi_extras import (
    OURS,
    Batch,
    Extras,
    Informed,
    Single,
    enlarged,
    png_info,
)
from tintype.apps.server.sdapi_fields import (
    NAMES,
    Img2Img,
    Txt2Img,
    following,
    img2img,
    opened,
    refuse_absent,
    txt2img,
)
from tintype.apps.server.sdapi_lists import MODEL, SKIP, Options, SdapiRoute, known, list_routes, upscaler_names
from tintype.apps.server.sdapi_runs import Runs
from tintype.apps.server.settings import Settings
from tintype.apps.server.waiting import engine_of, owner_of, settings_of
from tintype.serving.engine import Progress
from tintype.tasks.request import LARGEST_SEED, MODELS, Request

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "Unknown sampler or scheduler."},
    404: {"description": "No such model, or no picture to begin with."},
    429: {"description": "Too many wait; Retry-After tells for how long."},
    503: {"description": "Not ready, or stopping."},
}
LARGER = 2  # sides of enlarged pictures, of those that may be drawn


def sdapi_routes(settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/sdapi/v1", tags=["A1111"], route_class=SdapiRoute)
    runs, options, Job = Runs(), Options(), request_model(settings)

    async def drawn(call: Call, asked: Txt2Img | Img2Img) -> JSON:
        refuse_absent(asked)
        engine, owner = engine_of(call), owner_of(call)
        over = await run_in_threadpool(known, engine.models, asked.override_settings or {})
        chosen = options.of(owner) | over
        if asked.override_settings_restore_afterwards is False:
            options.set(owner, over)
        usual = asked.model_copy(update={"clip_skip": asked.clip_skip or chosen.get(SKIP)})
        requests = await run_in_threadpool(_requests, Job, usual, settings.pictures)
        model = str(chosen[MODEL]) if MODEL in chosen else None
        try:
            jobs = await runs.drawn(call, requests[0].task, requests, model)
        except HTTPException as error:
            raise renamed(error, NAMES) from error
        made = await run_in_threadpool(lambda: [one for job in jobs for one in contents(engine, job)])
        info = await run_in_threadpool(info_of, asked, requests, made, model or "default")
        images = made if asked.send_images is not False else []
        return {"images": [base64.b64encode(one).decode() for one in images], "parameters": echo(asked), "info": info}

    @router.post("/txt2img", responses=REFUSALS)
    async def draw(call: Call, asked: Txt2Img) -> JSON:
        """Pictures from a sentence."""
        return await drawn(call, asked)

    @router.post("/img2img", responses=REFUSALS)
    async def redraw(call: Call, asked: Img2Img) -> JSON:
        """Pictures from a picture; with a mask, a part of it anew."""
        for text, name in ((asked.mask, "mask"), *((one, "init_images") for one in (asked.init_images or [])[:2])):
            if text:
                await _within(text, name, settings)
        return await drawn(call, asked)

    @router.get("/progress")
    async def progress(call: Call, skip_current_image: Annotated[bool, Query()] = False) -> JSON:
        """How far your call is; nothing of anyone else's."""
        run = runs.of(owner_of(call))
        if run is None:
            return progress_of(None, Progress())
        return progress_of(run, run.look(engine_of(call), previews=not skip_current_image))

    @router.post("/interrupt")
    async def interrupt(call: Call) -> JSON:
        """End your call; it answers with what it has."""
        await runs.end(call, whole=True)
        return {}

    @router.post("/skip")
    async def skip(call: Call) -> None:
        """Go on with the next of your call's iterations."""
        await runs.end(call, whole=False)

    @router.post("/extra-single-image", responses=REFUSALS)
    async def extra_single_image(call: Call, asked: Single) -> JSON:
        """A picture enlarged."""
        return {"html_info": asked.told(), "image": await _extra(call, runs, Job, asked, asked.image)}

    @router.post("/extra-batch-images", responses=REFUSALS)
    async def extra_batch_images(call: Call, asked: Batch) -> JSON:
        """Pictures enlarged."""
        images = [await _extra(call, runs, Job, asked, one.data) for one in asked.imageList]
        return {"html_info": asked.told(), "images": images}

    @router.post("/png-info")
    async def info(call: Call, asked: Informed) -> JSON:
        """The settings that a picture tells."""
        await _within(asked.image, "image", settings)
        return await run_in_threadpool(png_info, asked.image)

    @router.post("/interrogate", responses=REFUSALS)
    def interrogate(asked: Annotated[dict[str, Any], Body()]) -> None:
        """Nothing here describes pictures; the answer is A1111's for a model that it has not."""
        raise HTTPException(404, "Model not found: nothing here describes pictures")

    router.include_router(list_routes(options))
    return router


def _requests(kind: type[BaseModel], asked: Txt2Img | Img2Img, most: int) -> list[Request]:
    """One for each iteration, their seeds following one another; `most` pictures in all, since one answer holds
    them."""
    iterations, each = asked.n_iter or 1, asked.batch_size or 1
    if each <= most < iterations * each:
        raise Wrong("n_iter", f"n_iter {iterations} of batch_size {each}: expected {most} pictures at most in one call")
    values = txt2img(asked) if isinstance(asked, Txt2Img) else img2img(asked)
    first = checked(kind, values, NAMES).with_seed()
    return [_later(first, number * first.batch_size) for number in range(iterations)]


def _later(first: Request, count: int) -> Request:
    if first.variation_strength:
        return dataclasses.replace(first, variation_seed=following(first.variation_seed or 0, count))
    return dataclasses.replace(first, seed=following(first.seed, count))


async def _within(text: str, name: str, settings: Settings) -> None:
    try:
        await run_in_threadpool(checked_picture, text, settings)
    except ValueError as error:
        raise Wrong(name, f"{name}: {error}") from error


async def _extra(call: Call, runs: Runs, kind: type[BaseModel], asked: Extras, image: str) -> str:
    """A picture enlarged as asked, as base64; without an upscaler as it is."""
    settings = settings_of(call)
    asked.check(await run_in_threadpool(upscaler_names, call))
    await _within(image, "image", settings)
    picture = (await run_in_threadpool(opened, image, "image")).convert("RGB")
    names, size = asked.names(), asked.size(picture.size, LARGER * settings.largest)
    results = [
        await _ours(call, runs, kind, picture, size)
        if name == OURS
        else await run_in_threadpool(enlarged, picture, name, size)
        for name in names
    ]
    content = await run_in_threadpool(png, asked.finished(results) if results else picture)
    return base64.b64encode(content).decode()


async def _ours(
    call: Call, runs: Runs, kind: type[BaseModel], picture: Image.Image, size: tuple[int, int]
) -> Image.Image:
    """Enlarged by the model for it, and then brought to the asked size."""
    content = await run_in_threadpool(png, picture)
    values: JSON = {
        "task": "upscale",
        "image": data_url(content),
        "seed": secrets.randbelow(LARGEST_SEED),
        "scale": min(USUAL_SCALE, max(2, math.ceil(size[0] / picture.width))),
    }
    request = await run_in_threadpool(checked, kind, values, NAMES)
    jobs = await runs.drawn(call, "extras", [request], MODELS["upscale"])
    if not jobs:
        raise HTTPException(409, "interrupted before the picture was there")
    [made] = await run_in_threadpool(contents, engine_of(call), jobs[0])
    large = await run_in_threadpool(opened, base64.b64encode(made).decode(), "image")
    return large.resize(size, Image.Resampling.LANCZOS)
