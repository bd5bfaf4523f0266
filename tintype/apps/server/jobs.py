"""Our own interface: jobs that outlive the call that asked for them."""

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Path, Query, Response
from fastapi import Request as Call
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from tintype.apps.server.schema import as_request, request_model
from tintype.apps.server.settings import Settings
from tintype.apps.server.waiting import changes, engine_of, owner_of, submitted
from tintype.serving.engine import Engine, Progress
from tintype.serving.jobs import Job, State, Terms

Id = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="of a job")]
Answers = dict[int | str, dict[str, Any]]
NO_SUCH: Answers = {404: {"description": "No such job of yours."}}
ENDED: Answers = NO_SUCH | {409: {"description": "It has ended, or goes on."}}


class Told(BaseModel):
    """A job as it is now. `position`: how many wait before it; `left`: seconds to the end, as far as can be told."""

    id: str
    state: State
    task: str
    model: str
    priority: int
    created: float
    started: float | None
    ended: float | None
    step: int
    steps: int
    left: float | None
    position: int | None
    fault: str | None
    error: str | None
    warnings: list[str]
    branch: str | None
    request: dict[str, object]
    pictures: list[str]
    url: str
    events: str


def told(engine: Engine, job: Job, progress: Progress) -> Told:
    waiting = engine.store.line() if job.state == "queued" else []
    return Told(
        **{name: getattr(job, name) for name in ("id", "state", "model", "priority", "created", "started", "ended")},
        task=str(job.request.get("task", "txt2img")),
        step=job.steps or progress.step,
        steps=job.steps or progress.count,
        left=progress.left,
        position=waiting.index(job.id) if job.id in waiting else None,
        fault=job.fault,
        error=job.error,
        warnings=list(job.warnings),
        branch=job.branch,
        request=job.request,
        pictures=[f"/v1/jobs/{job.id}/pictures/{place}" for place in range(job.pictures)],
        url=f"/v1/jobs/{job.id}",
        events=f"/v1/jobs/{job.id}/events",
    )


def job_routes(settings: Settings) -> APIRouter:
    """The routes below /v1 that are ours."""
    router = APIRouter(prefix="/v1", tags=["jobs"])
    Asked = request_model(settings)

    @router.post("/jobs", status_code=202, responses={429: {"description": "Too many wait."}, 404: {}, 503: {}})
    def submit(
        call: Call,
        response: Response,
        asked: Asked,  # pyright: ignore
        idempotency_key: Annotated[str | None, Header(max_length=200, description="the same one: the same job")] = None,
    ) -> Told:
        """Queue a picture. The answer tells where to look for it."""
        values = asked.model_dump()
        try:
            request = as_request(values)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        timeout: float | None = values["timeout"]
        terms = Terms(
            owner=owner_of(call),
            model=values["model"] or "",
            priority=values["priority"],
            deadline=None if timeout is None else time.time() + timeout,
            key=idempotency_key or None,
            keep=values["keep_steps"],
            branch=values["branch"],
        )
        job = submitted(call, request, terms)
        engine_of(call).store.flush()  # it is drawn already; what is promised here is to outlive the machine's power
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return told(engine_of(call), job, engine_of(call).progress(job.id))

    @router.get("/jobs")
    def recent(call: Call, count: Annotated[int, Query(ge=1, le=500)] = 50) -> list[Told]:
        """The last jobs of yours, newest first."""
        engine = engine_of(call)
        return [told(engine, job, engine.progress(job.id)) for job in engine.store.recent(owner_of(call), count)]

    @router.get("/jobs/{id}", responses=NO_SUCH)
    def look(call: Call, id: Id) -> Told:
        """What has become of it."""
        job = own_job(call, id)
        return told(engine_of(call), job, engine_of(call).progress(id))

    @router.post("/jobs/{id}/cancel", responses=ENDED)
    def cancel(call: Call, id: Id) -> Told:
        """End it: now where it waits, before the next step where it is drawn."""
        own_job(call, id)
        if not engine_of(call).cancel(id):
            raise HTTPException(409, f"job {id} has ended")
        return look(call, id)

    @router.delete("/jobs/{id}", status_code=204, responses=ENDED)
    def remove(call: Call, id: Id) -> None:
        """Forget an ended job and its pictures."""
        own_job(call, id)
        if not engine_of(call).remove(id):
            raise HTTPException(409, f"job {id} goes on; cancel it first")

    @router.get("/jobs/{id}/events", responses=NO_SUCH, response_class=StreamingResponse)
    def events(call: Call, id: Id, previews: bool = False) -> StreamingResponse:
        """Server-sent events: `job` at each change, and with `previews` now and then `preview`, a PNG in base64."""
        own_job(call, id)
        return StreamingResponse(_events(engine_of(call), id, previews), media_type="text/event-stream", headers=LIVE)

    return router


LIVE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}


def own_job(call: Call, id: str) -> Job:
    """The job, of who asks; that there is one of someone else's is not told."""
    job = engine_of(call).store.get(id)
    if job is None or job.owner != owner_of(call):
        raise HTTPException(404, f"no job {id}")
    return job


async def _events(engine: Engine, id: str, previews: bool) -> AsyncIterator[str]:
    shown, before = 0, ""
    async for job, progress in changes(engine, id, previews=previews):
        is_drawn = job.state == "running"  # else its place in the line is read
        shown_now = told(engine, job, progress) if is_drawn else await run_in_threadpool(told, engine, job, progress)
        now = shown_now.model_dump_json()
        is_new, before = now != before, now
        if is_new:
            yield f"event: job\ndata: {now}\n\n"
        if previews and progress.previews > shown and progress.preview is not None:
            shown = progress.previews
            content = base64.b64encode(progress.preview).decode()
            yield f"event: preview\ndata: {json.dumps({'step': progress.step, 'png': content})}\n\n"
        elif not is_new:
            yield ": still there\n\n"
