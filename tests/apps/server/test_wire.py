"""Connections that bring nothing are ended, and those that are served are not."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from inside import Listening
from proofs import PATIENCE

from tintype.apps.server import wire

IDLE = 0.7  # seconds; who is slower than that between two lines would be taken for idle


async def slow(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Events for longer than a connection may be idle; `/at-once` answers at once."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"keep-alive")]})
    for _ in range(0 if scope["path"] == "/at-once" else 4):
        await asyncio.sleep(IDLE / 2)
        await send({"type": "http.response.body", "body": b"still there\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"the end"})


@pytest.fixture(scope="module")
def listening() -> Iterator[Listening]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(wire, "IDLE", IDLE)
        with Listening(slow) as made:
            made.server.config.timeout_keep_alive = 3600  # so that only ours is at work
            yield made


@pytest.mark.parametrize("sent", [b"", b"GET /at-once HT", b"GET /at-once HTTP/1.1\r\nHost: localhost\r\nX-Half:"])
def test_who_sends_no_whole_head_is_sent_away(listening: Listening, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", listening.port), timeout=PATIENCE) as line:
        line.sendall(sent)
        assert line.recv(65536) == b""


def test_so_is_one_that_was_answered_and_asks_no_more(listening: Listening) -> None:
    with socket.create_connection(("127.0.0.1", listening.port), timeout=PATIENCE) as line:
        line.sendall(b"GET /at-once HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"the end" in answer


def test_events_may_take_as_long_as_they_do(listening: Listening) -> None:
    with listening.client() as client:
        answer: httpx.Response = client.get("/events")
    assert answer.text == "still there\n" * 4 + "the end"


class Written:
    """A transport that notes what reaches it."""

    def __init__(self) -> None:
        self.told: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("closed")


def test_what_is_written_in_one_turn_goes_out_as_one_and_before_the_end() -> None:
    async def told() -> list[bytes | str]:
        below = Written()
        above = wire.Gathered(below, asyncio.get_running_loop())  # pyright: ignore
        for data in (b"head ", b"", b"body"):
            above.write(data)
        assert below.told == []
        await asyncio.sleep(0)
        above.write(b"more")
        above.close()
        await asyncio.sleep(0)
        return below.told

    assert asyncio.run(told()) == [b"head body", b"more", "closed"]
