"""The application: the engine, the routes, and the guard around them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi import Request as Call
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry

from tintype.apps.server.capabilities import capability_routes
from tintype.apps.server.guard import Guard
from tintype.apps.server.health import gauges, health_routes
from tintype.apps.server.jobs import job_routes
from tintype.apps.server.openai_images import openai_routes
from tintype.apps.server.page import page_routes
from tintype.apps.server.reading import reading_routes
from tintype.apps.server.sdapi import sdapi_routes
from tintype.apps.server.settings import Settings
from tintype.apps.server.steps import step_routes
from tintype.common.version import VERSION
from tintype.serving.engine import Engine
from tintype.serving.jobs import Store
from tintype.serving.models import Models


def make_engine(settings: Settings) -> Engine:
    """Raises `ValueError` for a data folder that cannot be used, or that another server has."""
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
    )
    registry = CollectorRegistry()
    app.state.engine, app.state.settings, app.state.registry = engine, settings, registry
    gauges(engine, registry)
    app.include_router(health_routes())
    app.include_router(job_routes(settings))
    app.include_router(capability_routes(settings))
    app.include_router(step_routes())
    app.include_router(reading_routes())
    app.include_router(openai_routes(settings))
    app.include_router(sdapi_routes(settings))
    app.include_router(page_routes())
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(Guard, settings=settings, registry=registry, engine=engine)  # pyright: ignore
    return app


async def _invalid(call: Call, found: Exception) -> JSONResponse:
    """What is wrong with which field; never the value, which may be no JSON or a megabyte of it."""
    assert isinstance(found, RequestValidationError)
    told = [{"loc": list(one["loc"]), "msg": one["msg"], "type": one["type"]} for one in found.errors()]
    where = ".".join(str(part) for part in told[0]["loc"] if part != "body") if told else "body"
    sentence = f"{where}: {told[0]['msg']}" if told else "not what is expected"
    error = {"message": sentence, "type": "invalid_request_error", "param": where, "code": None}
    return JSONResponse({"detail": told, "error": error}, 422)


async def _refused(call: Call, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    body = {"detail": error.detail, "error": {"message": error.detail, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, error.status_code, headers=error.headers)
