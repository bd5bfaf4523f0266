"""For those who look after the server: is it alive, is it ready, what does it do."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi import Request as Call
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from tintype.apps.server.waiting import engine_of
from tintype.serving.engine import Engine

NOT_YET: dict[int | str, dict[str, Any]] = {503: {"description": "Not ready, or stopping."}}


def health_routes() -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def alive() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @router.get("/readyz", responses=NOT_YET)
    async def ready(call: Call, response: Response) -> dict[str, object]:
        """The embedded model is open and jobs are taken."""
        engine = engine_of(call)
        response.status_code = 200 if engine.is_alive else 503
        return {"ready": engine.is_alive, "stopping": engine.draining, "failure": engine.failure}

    @router.get("/metrics", response_class=Response)
    def metrics(call: Call) -> Response:
        """In Prometheus' format."""
        registry: CollectorRegistry = call.app.state.registry
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def gauges(engine: Engine, registry: CollectorRegistry) -> None:
    """What is read when it is asked for."""
    for name, help, value in (
        ("tintype_jobs_waiting", "Jobs in the queue.", lambda: len(engine.store.line())),
        ("tintype_jobs_running", "Jobs that are drawn.", lambda: engine.running),
        ("tintype_pictures_made", "Pictures since the start.", lambda: engine.made),
    ):
        Gauge(name, help, registry=registry).set_function(value)
