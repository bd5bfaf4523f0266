"""Asynchronous code beside the worker's thread: submitting, and waiting for what becomes of a job."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import HTTPException
from fastapi import Request as Call
from fastapi.concurrency import run_in_threadpool

from tintype.apps.server.settings import Settings
from tintype.serving.engine import Draining, Engine, Progress
from tintype.serving.jobs import ENDED, Full, Job, Terms
from tintype.serving.models import Unknown
from tintype.tasks.request import Request

STATUS = {"invalid": 422, "cancelled": 409, "expired": 504, "out_of_memory": 507, "no_space": 507, "interrupted": 503}


def engine_of(call: Call) -> Engine:
    return call.app.state.engine


def settings_of(call: Call) -> Settings:
    return call.app.state.settings


def owner_of(call: Call) -> str:
    return call.scope["state"]["owner"]


def submitted(call: Call, request: Request, terms: Terms) -> Job:
    """A new job. Blocks for as long as a disk takes. Raises what HTTP is to answer."""
    engine = engine_of(call)
    call.scope["state"]["prompt"] = request.prompt
    try:
        return engine.submit(request, terms)
    except Full as error:
        retry = str(engine.pause)
        raise HTTPException(429, f"{error}; try again in {retry} s", headers={"Retry-After": retry}) from error
    except Draining as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "10"}) from error
    except sqlite3.OperationalError as error:
        raise HTTPException(507, "the queue cannot be written; the server's disk may be full") from error
    except Unknown as error:
        raise HTTPException(404, str(error)) from error
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    finally:
        call.scope["state"]["entered"]()


async def changes(
    engine: Engine, id: str, *, steps: bool = True, previews: bool = False
) -> AsyncIterator[tuple[Job, Progress]]:
    """What a job is now, and again whenever it changed, to its end; or to where the server stops and it waits."""
    changed, loop = asyncio.Event(), asyncio.get_running_loop()

    def poke() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(changed.set)

    stop = engine.watchers.add(id, poke, steps=steps, previews=previews)
    try:
        while True:
            changed.clear()
            progress = engine.progress(id)
            job = engine.begun(id) or await run_in_threadpool(engine.store.get, id)  # a step costs no thread
            if job is None:
                return
            yield job, progress
            if job.state in ENDED or (job.state == "queued" and (engine.draining or engine.failure)):
                return
            try:
                await asyncio.wait_for(changed.wait(), 1.0)
            except TimeoutError:  # a server that stops pokes nobody
                continue
    finally:
        stop()


async def finished(call: Call, job: Job) -> Job:
    """The job, done, for a caller who waits for it; one who leaves takes it with him. Raises what HTTP is to answer for
    one that came to nothing."""
    engine = engine_of(call)
    gone = asyncio.create_task(_left(call))
    last = job
    ended = asyncio.create_task(_last(engine, job.id))
    try:
        await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            raise HTTPException(499, "the client has left")
        last = ended.result() or job
    finally:
        gone.cancel()
        ended.cancel()
        if last.state not in ENDED:
            await run_in_threadpool(engine.cancel, job.id)
    if last.state == "done":
        return last
    if last.state not in ENDED:
        raise HTTPException(503, engine.failure or "the server is stopping", headers={"Retry-After": "10"})
    raise HTTPException(STATUS.get(last.fault or "", 500), last.error or last.state)


async def _last(engine: Engine, id: str) -> Job | None:
    last: Job | None = None
    async for job, _ in changes(engine, id, steps=False):
        last = job
    return last


async def _left(call: Call) -> None:
    while (await call.receive())["type"] != "http.disconnect":
        pass
