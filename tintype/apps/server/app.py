"""The application: the engine, the routes, and the guard around them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi import Request as Call
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException as AnyHTTPException

from tintype.apps.server.asked import Refusal, field_of, problem
from tintype.apps.server.capabilities import capability_routes
from tintype.apps.server.docs import docs_routes
from tintype.apps.server.guard import App, Guard, Message, Receive, Send
from tintype.apps.server.health import gauges, health_routes
from tintype.apps.server.jobs import job_routes
from tintype.apps.server.openai_images import openai_routes
from tintype.apps.server.page import page_routes
from tintype.apps.server.pictures import picture_routes
from tintype.apps.server.reading import reading_routes
from tintype.apps.server.schema import over_http
from tintype.apps.server.sdapi import sdapi_routes
from tintype.apps.server.settings import Settings
from tintype.apps.server.steps import step_routes
from tintype.common.version import VERSION
from tintype.serving.engine import Engine
from tintype.serving.jobs import Store
from tintype.serving.models import Models

MOST_TOLD = 20  # of what is wrong with a body
MOST_VALUES = 100_000  # in a body that is no form
FORMS = (b"multipart/form-data", b"application/x-www-form-urlencoded")


def make_engine(settings: Settings) -> Engine:
    """Raises `ValueError` for a data folder that cannot be used."""
    pictures = settings.data / "pictures"
    try:
        pictures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--data {settings.data}: {error.strerror}; expected a folder that can be written") from error
    store = Store(settings.data / "queue.sqlite")
    models = Models(settings.models, device=settings.device)
    return Engine(store, models, pictures, queue=settings.queue, batch=settings.batch)


def make_app(settings: Settings, engine: Engine) -> FastAPI:
    """The engine starts and stops with it."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None]:
        engine.start()
        yield
        engine.stop(grace=settings.grace)

    app = FastAPI(
        title="tintype",
        version=VERSION,
        description="Latent diffusion: pictures from text, pictures, masks, boxes and classes.",
        lifespan=life,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    registry = CollectorRegistry()
    app.state.engine, app.state.settings, app.state.registry = engine, settings, registry
    gauges(engine, registry)
    app.include_router(health_routes())
    app.include_router(job_routes(settings))
    app.include_router(picture_routes())
    app.include_router(capability_routes(settings))
    app.include_router(step_routes())
    app.include_router(reading_routes())
    app.include_router(openai_routes(settings))
    app.include_router(sdapi_routes(settings))
    app.include_router(docs_routes())
    app.include_router(page_routes())
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_middleware(Sparse)
    app.add_middleware(Guard, settings=settings, registry=registry, engine=engine)  # pyright: ignore
    return app


class Sparse:
    """Bodies of few values: nobody else is served while JSON is parsed, and 32 MiB of it may be millions of them. What
    is too much is read to its end, since few clients listen before, and dropped."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or dict(scope["headers"]).get(b"content-type", b"").startswith(FORMS):
            await self.app(scope, receive, send)
            return
        values = 0

        async def counted() -> Message:
            nonlocal values
            message = await receive()
            values += message.get("body", b"").count(b",")
            if values <= MOST_VALUES:
                return message
            if message["type"] == "http.request" and not message.get("more_body", False):
                raise Refusal(413, f"body: it has more than {MOST_VALUES} values; send fewer", "body")
            return {**message, "body": b""}

        await self.app(scope, counted, send)


async def _invalid(call: Call, found: Exception) -> JSONResponse:
    """What is wrong with which field; never the value, which may be no JSON or a megabyte of it."""
    assert isinstance(found, RequestValidationError)
    first: str | None = None
    field: str | None = None
    told: list[dict[str, object]] = []
    for one in found.errors()[:MOST_TOLD]:
        about, sentence = problem(one)
        first, field = first or sentence, field or about
        where = ["body", about] if one["loc"] == ("body",) and about != "body" else list(one["loc"])
        message = sentence if one["loc"] == ("body",) else sentence.partition(": ")[2]
        told.append({"loc": where, "msg": message, "type": one["type"]})
    error = {"message": first, "type": "invalid_request_error", "param": field, "code": None}
    return JSONResponse({"detail": told, "error": error}, 422)


async def _refused(call: Call, error: Exception) -> JSONResponse:
    assert isinstance(error, AnyHTTPException)
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    sentence = over_http(str(error.detail))
    field = getattr(error, "field", None) or field_of(sentence)
    body = {"detail": sentence, "error": {"message": sentence, "type": kind, "param": field, "code": None}}
    return JSONResponse(body, error.status_code, headers=error.headers)
