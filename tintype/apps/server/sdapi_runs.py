"""The calls of A1111's interface that are drawn now, of whom: what `progress` tells and `interrupt` ends."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fastapi import HTTPException
from fastapi import Request as Call
from fastapi.concurrency import run_in_threadpool

from tintype.apps.server.waiting import engine_of, finished, owner_of, submitted
from tintype.serving.engine import Engine, Progress
from tintype.serving.jobs import Job, Terms
from tintype.tasks.request import Request


@dataclass(slots=True, eq=False)
class Run:
    """One call: `count` jobs, one after the other. `job`: the one that is drawn or waits."""

    owner: str
    what: str
    count: int
    began: float = field(default_factory=time.time)
    done: int = 0
    job: str | None = None
    stopped: bool = False
    skipped: bool = False
    unwatch: Callable[[], None] | None = None

    def look(self, engine: Engine, *, previews: bool) -> Progress:
        """How far the job is; who wants to see it gets previews from now on."""
        if self.job is None:
            return Progress()
        if previews and self.unwatch is None:
            self.unwatch = engine.watchers.add(self.job, lambda: None, steps=False, previews=True)
        return engine.progress(self.job)

    def next(self) -> None:
        if self.unwatch is not None:
            self.unwatch()
        self.job, self.unwatch, self.skipped = None, None, False
        self.done += 1


class Runs:
    """Of all who ask. Only the event loop's thread changes them."""

    def __init__(self) -> None:
        self._all: list[Run] = []

    def of(self, owner: str) -> Run | None:
        """The earliest of this owner."""
        return next((run for run in self._all if run.owner == owner), None)

    async def drawn(self, call: Call, what: str, requests: Sequence[Request], model: str | None) -> list[Job]:
        """The jobs of these requests, done; fewer where some were skipped or all interrupted, as in A1111."""
        run = Run(owner_of(call), what, len(requests))
        self._all.append(run)
        done: list[Job] = []
        try:
            for request in requests:
                if run.stopped:
                    break
                job = await _submitted(call, request, model, patient=bool(done))
                run.job = job.id
                if run.stopped:
                    await run_in_threadpool(engine_of(call).cancel, job.id)
                try:
                    done.append(await finished(call, job))
                except HTTPException as error:
                    if error.status_code != 409 or not (run.stopped or run.skipped):
                        raise
                run.next()
        finally:
            run.next()
            self._all.remove(run)
        return done

    async def end(self, call: Call, *, whole: bool) -> None:
        """Cancel the caller's job, and with `whole` those that would follow; no one else's."""
        run = self.of(owner_of(call))
        if run is None:
            return
        run.stopped, run.skipped = run.stopped or whole, True
        if run.job is not None:
            await run_in_threadpool(engine_of(call).cancel, run.job)


async def _submitted(call: Call, request: Request, model: str | None, *, patient: bool) -> Job:
    """A job; who has pictures already waits for a place in the queue."""
    terms = Terms(owner=owner_of(call), model=model or "")
    while True:
        try:
            return await run_in_threadpool(submitted, call, request, terms)
        except HTTPException as error:
            if error.status_code != 429 or not patient:
                raise
        await asyncio.sleep(engine_of(call).pause)
