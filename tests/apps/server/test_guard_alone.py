"""The guard around an application that does nothing: bodies, places and names, each without a server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from tintype.apps.server import guard
from tintype.apps.server.app import make_app, make_engine
from tintype.apps.server.guard import Guard
from tintype.apps.server.settings import Settings

BODY = 1000  # bytes that one may have
Message = dict[str, Any]
TOKENS = {"ada": "adas-token-1"}


class Client:
    """One who asks and sends his body in parts."""

    def __init__(self, guarded: Guard, path: str = "/v1/jobs", host: str = "localhost", **headers: str) -> None:
        named = {"host": host, **headers}
        self.parts: asyncio.Queue[Message] = asyncio.Queue()
        self.answer: list[Message] = []
        self.scope: Message = {
            "type": "http", "method": "POST", "path": path, "client": ("127.0.0.1", 1),
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }  # fmt: skip
        self.task = asyncio.create_task(guarded(self.scope, self.parts.get, self._keep))

    async def _keep(self, message: Message) -> None:
        self.answer.append(dict(message))

    def send(self, size: int, *, more: bool = True) -> None:
        self.parts.put_nowait({"type": "http.request", "body": b"x" * size, "more_body": more})

    async def status(self) -> int:
        await asyncio.wait_for(self.task, 60)
        return self.answer[0]["status"]

    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.answer[0]["headers"]}

    def sentence(self) -> str:
        return json.loads(self.answer[1]["body"])["error"]["message"]


async def reading(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[..., Any]) -> None:
    """An application that reads all that is sent, and says so."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def guarding(app: Callable[..., Any] = reading, *, queue: int = 99, **settings: Any) -> Guard:
    engine: Any = SimpleNamespace(store=SimpleNamespace(count=0), queue=queue, pause=7)
    return Guard(app, Settings(body=BODY, **settings), CollectorRegistry(), engine)


async def settled() -> None:
    """All that can go on has."""
    for _ in range(20):
        await asyncio.sleep(0)


# For whom it is meant


@pytest.mark.parametrize(
    ("host", "tokens", "status"),
    [("127.0.0.1", {}, 403), ("127.0.0.1", TOKENS, 403), ("0.0.0.0", TOKENS, 202)],
    ids=["open", "with a token", "reached by others"],
)
def test_a_token_does_not_open_this_machine_to_other_names(host: str, tokens: dict[str, str], status: int) -> None:
    async def ask() -> int:
        guarded = guarding(host=host, tokens=tokens)
        client = Client(guarded, host="evil.example", authorization=f"Bearer {TOKENS['ada']}")
        client.send(1, more=False)
        return await client.status()

    assert asyncio.run(ask()) == status


# Bodies


def test_so_many_large_bodies_are_held_at_once_and_each_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "TOGETHER", 2)

    async def ask() -> None:
        guarded = guarding()
        first, second, third = (Client(guarded) for _ in range(3))
        for one in (first, second):
            one.send(BODY)
        await settled()
        third.send(1)
        assert await third.status() == 503
        assert "too many large bodies" in third.sentence()
        assert guarded.held == 2 * BODY
        first.send(0, more=False)
        assert await first.status() == 202
        fourth = Client(guarded)
        fourth.send(BODY, more=False)
        assert await fourth.status() == 202
        second.task.cancel()  # one who breaks off
        await asyncio.wait([second.task])
        assert guarded.held == 0

    asyncio.run(ask())


def test_one_body_is_no_larger_than_said_whatever_is_announced() -> None:
    async def ask() -> None:
        guarded = guarding()
        announced = Client(guarded, **{"content-length": str(BODY + 1)})
        counted = Client(guarded, **{"content-length": "1"})
        counted.send(BODY)
        counted.send(1)
        for one in (announced, counted):
            assert await one.status() == 413
            assert one.headers()["connection"] == "close"
        assert guarded.held == 0

    asyncio.run(ask())


def test_one_who_sends_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SLOWEST", 0.05)

    async def ask() -> None:
        guarded = guarding()
        client = Client(guarded)
        client.send(5)
        assert await client.status() == 408
        assert guarded.held == 0

    asyncio.run(ask())


def test_nor_one_who_sends_a_little_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LONGEST", 0.2)

    async def ask() -> None:
        client = Client(guarding())

        async def drop_by_drop() -> None:
            for _ in range(1000):
                client.send(0)
                await asyncio.sleep(0.01)
            client.send(0, more=False)

        dropping = asyncio.create_task(drop_by_drop())
        assert await client.status() == 408
        dropping.cancel()

    asyncio.run(ask())


def test_one_who_waits_for_the_answer_is_not_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLOWEST", "LONGEST"):
        monkeypatch.setattr(guard, name, 0.3)

    async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[..., Any]) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await reading(scope, receive, send)

    async def ask() -> int:
        client = Client(guarding(app))
        client.send(1, more=False)
        await asyncio.sleep(0.5)
        for _ in range(2):
            client.parts.put_nowait({"type": "http.disconnect"})
        return await client.status()

    assert asyncio.run(ask()) == 202


# Places in the queue


class Slow:
    """An application whose answers are held until they are let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, scope: Message, receive: Any, send: Callable[..., Any]) -> None:
        await self.go.wait()
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def test_those_on_their_way_into_the_queue_count_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "ENTERS", 3600.0)

    async def ask() -> None:
        app = Slow()
        guarded = guarding(app, queue=3)
        guarded.engine.store.count = 1
        inside = [Client(guarded), Client(guarded, path="/v1/images/generations")]
        await settled()
        late = Client(guarded, path="/sdapi/v1/txt2img")
        assert await late.status() == 429
        assert late.headers()["retry-after"] == "7"
        assert late.sentence() == "3 jobs wait already; try again in 7 s"
        elsewhere = [Client(guarded, path="/v1/tokens"), Client(guarded, **{"idempotency-key": "k"})]
        inside[0].scope["state"]["entered"]()  # it has its place, or none
        inside.append(Client(guarded))
        await settled()
        assert await Client(guarded).status() == 429
        app.go.set()
        assert [await one.status() for one in (*inside, *elsewhere)] == [202] * 5

    asyncio.run(ask())


def test_a_place_is_given_back_with_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "ENTERS", 3600.0)

    async def broken(*given: object) -> None:
        raise KeyError("a fault of ours")

    async def ask() -> None:
        guarded = guarding(queue=1)
        for _ in range(4):
            client = Client(guarded)
            client.send(BODY + 1)
            assert await client.status() == 413
        guarded.app = broken
        for _ in range(4):
            with pytest.raises(KeyError):
                await Client(guarded).status()
        assert guarded.entering == {}

    asyncio.run(ask())


def test_who_is_slow_to_come_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "ENTERS", 0.0)

    async def ask() -> list[int]:
        app = Slow()
        guarded = guarding(app, queue=1)
        inside = [Client(guarded) for _ in range(3)]
        await settled()
        app.go.set()
        return [await one.status() for one in inside]

    assert asyncio.run(ask()) == [202] * 3


# Frames


@pytest.mark.parametrize("frames", [(), ("https://huggingface.co", "http://localhost:3000")])
def test_only_sites_that_are_allowed_may_show_the_page_in_a_frame(tmp_path: Path, frames: tuple[str, ...]) -> None:
    settings = Settings(data=tmp_path, frames=frames, device="cpu")
    client = TestClient(make_app(settings, make_engine(settings)), base_url="http://localhost")
    for path in ("/", "/page/app.js", "/healthz", "/nothing"):
        assert client.get(path).headers.get("x-frame-options") == (None if frames else "SAMEORIGIN")
    policy = client.get("/").headers["content-security-policy"]
    assert policy.endswith(" ".join(("; frame-ancestors 'self'", *frames)))
