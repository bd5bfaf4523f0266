"""Back in time: the kept steps of a job, what the network thought at each, and which word it listened to where."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, HTTPException, Path, Query, Response
from fastapi import Request as Call
from pydantic import BaseModel

from tintype.apps.server.jobs import KEPT, NO_SUCH, Id, own_job
from tintype.apps.server.waiting import engine_of
from tintype.serving.engine import Engine
from tintype.serving.jobs import Job

T = TypeVar("T")
At = Annotated[int, Path(ge=0, le=1000, description="the step, from 0")]
Of = Annotated[int, Query(ge=0, le=1023, description="of the picture among the job's, from 0")]


class Steps(BaseModel):
    """The kept steps of a job, by their index, and the noise level after each."""

    steps: list[int]
    sigmas: list[float]


class Words(BaseModel):
    """`maps`: of each word rows of cells of the latent."""

    words: list[str]
    maps: list[list[list[float]]]


def step_routes() -> APIRouter:
    router = APIRouter(prefix="/v1/jobs/{id}/steps", tags=["steps"], responses=NO_SUCH)

    @router.get("")
    def kept(call: Call, id: Id) -> Steps:
        """Those of a job that was asked for with `keep_steps`. A job with `branch` «ID:STEP» goes on from one."""
        places = _of(call, id, lambda engine, job: engine.past.trace(job.id).places())
        return Steps(steps=list(places), sigmas=[sigma for _, sigma in places.values()])

    @router.get("/{step}", response_class=Response)
    def estimate(call: Call, id: Id, step: At, place: Of = 0) -> Response:
        """What the network thought after this step that the picture would be, a PNG."""
        content = _of(call, id, lambda engine, job: engine.past.estimate(job, step, place))
        return Response(content, media_type="image/png", headers=KEPT)

    @router.get("/{step}/words")
    def words(call: Call, id: Id, step: At, place: Of = 0) -> Words:
        """Which part of the picture listened to which word after this step: shares of attention, from 0 to 1."""
        found = _of(call, id, lambda engine, job: engine.past.heat(job, step, place))
        maps: list[list[list[float]]] = found.maps.tolist()
        return Words(words=list(found.words), maps=[[[round(x, 4) for x in row] for row in one] for one in maps])

    return router


def _of(call: Call, id: str, look: Callable[[Engine, Job], T]) -> T:
    """What is read of a job's kept steps; what cannot be told is not there."""
    job = own_job(call, id)
    try:
        return look(engine_of(call), job)
    except ValueError as error:
        raise HTTPException(404, str(error)) from error
