"""Pictures as OpenAI's clients read them while they are drawn: server-sent events."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Literal

from fastapi import Request as Call
from fastapi.concurrency import run_in_threadpool

from tintype.apps.server.asked import JSON, contents, field_of
from tintype.apps.server.openai_fields import NONE_USED, Sent, now, size_of
from tintype.apps.server.schema import over_http
from tintype.apps.server.waiting import STATUS, changes, engine_of
from tintype.serving.engine import Progress
from tintype.serving.jobs import ENDED, Job

Kind = Literal["image_generation", "image_edit"]


async def events(call: Call, job: Job, sent: Sent, kind: Kind, partial: int) -> AsyncIterator[str]:
    """Estimates of the first picture, spread over its steps, then the pictures. Who leaves cancels the job."""
    engine, shown, seen, last = engine_of(call), 0, 0, job
    try:
        async for now_is, progress in changes(engine, job.id, previews=partial > 0):
            last = now_is
            if shown < partial and progress.previews > seen and progress.step * partial > progress.count * shown:
                seen = progress.previews
                yield await run_in_threadpool(_partial, progress, sent, kind, shown)
                shown += 1
            else:
                yield ": still there\n\n"
        if last.state != "done":
            yield _event("error", {"error": fault_of(last)})
            return
        for content in await run_in_threadpool(pictures_of, call, last, sent):
            yield _event(f"{kind}.completed", _picture(content, sent) | {"usage": NONE_USED})
    finally:
        if last.state not in ENDED:  # in a thread that nobody waits for: what is cancelled here may not wait
            asyncio.get_running_loop().run_in_executor(None, engine.cancel, job.id)


def fault_of(job: Job) -> JSON:
    kind = "invalid_request_error" if STATUS.get(job.fault or "", 500) < 500 else "server_error"
    sentence = over_http(job.error or "the server is stopping")
    return {"message": sentence, "type": kind, "param": field_of(sentence), "code": job.fault}


def _partial(progress: Progress, sent: Sent, kind: Kind, index: int) -> str:
    assert progress.preview is not None
    told = _picture(sent.encoded(progress.preview), sent)
    return _event(f"{kind}.partial_image", told | {"partial_image_index": index})


def _picture(content: bytes, sent: Sent) -> JSON:
    return {
        "b64_json": base64.b64encode(content).decode(),
        "created_at": now(),
        "output_format": sent.format,
        "size": size_of(content),
        "quality": "auto",
        "background": "opaque",
    }


def _event(name: str, told: JSON) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name} | told)}\n\n"


def pictures_of(call: Call, job: Job, sent: Sent) -> list[bytes]:
    return [sent.encoded(content) for content in contents(engine_of(call), job)]
