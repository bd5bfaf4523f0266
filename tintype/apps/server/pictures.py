"""Finished pictures: each, and the gallery of them all."""

import dataclasses
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response
from fastapi import Request as Call
from pydantic import BaseModel

from tintype.apps.server.jobs import KEPT, NO_SUCH, Id, own_job
from tintype.apps.server.waiting import engine_of, owner_of
from tintype.serving.jobs import Kept

Place = Annotated[int, Path(ge=0, le=1023, description="of the picture among the job's, from 0")]


class Picture(BaseModel):
    """A finished picture in the gallery; `number` counts all pictures up."""

    number: int
    job: str
    url: str
    created: float
    width: int
    height: int
    seed: int
    prompt: str


def picture_routes() -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["jobs"])

    @router.get("/jobs/{id}/pictures/{place}", responses=NO_SUCH, response_class=Response)
    def picture(call: Call, id: Id, place: Place, download: bool = False) -> Response:
        """A finished picture, a PNG that tells how it was made."""
        job, path = own_job(call, id), engine_of(call).path(id, place)
        try:
            content = path.read_bytes() if place < job.pictures else None
        except FileNotFoundError:  # it was removed a moment ago
            content = None
        if content is None:
            raise HTTPException(404, f"job {id} has no picture {place}")
        kind = "attachment" if download else "inline"
        headers = KEPT | {"Content-Disposition": f'{kind}; filename="{id}-{place}.png"'}
        return Response(content, media_type="image/png", headers=headers)

    @router.get("/pictures")
    def gallery(
        call: Call,
        before: Annotated[int | None, Query(ge=0, le=2**53, description="only those of smaller numbers")] = None,
        count: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> list[Picture]:
        """Finished pictures of yours, newest first."""
        kept = engine_of(call).store.kept(owner_of(call), before=before, count=count)
        return [_listed(one) for one in kept]

    return router


def _listed(kept: Kept) -> Picture:
    told = {name: value for name, value in dataclasses.asdict(kept).items() if name != "position"}
    return Picture(**told, url=f"/v1/jobs/{kept.job}/pictures/{kept.position}")
