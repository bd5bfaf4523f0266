"""How answers leave: uvicorn writes head and body of one apart, and each write wakes the system and the client."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

IDLE = 30.0  # seconds for which a connection may bring no whole head of a request


class Wire(H11Protocol):
    """HTTP/1.1 whose writes of one turn of the loop go out as one, and which waits for nobody without end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(cast("asyncio.Transport", Gathered(transport, self.loop)))
        self._seen: object = None
        self._look = self.loop.call_later(IDLE, self._end_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)

    def _end_idle(self) -> None:
        """End a connection whose last request, if any, was answered before the last look."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # uvicorn's annotation leaves None out
        if cycle is self._seen and (cycle is None or cycle.response_complete):
            self.transport.close()
            return
        self._seen = self.cycle
        self._look = self.loop.call_later(IDLE, self._end_idle)


class Gathered:
    """A transport that holds what is written until the loop's next turn, or its end."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        held, self._held = self._held, []
        if held:
            self._transport.write(b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
