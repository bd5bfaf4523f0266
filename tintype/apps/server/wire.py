"""How answers leave: uvicorn writes head and body of one apart, and each write wakes the system and the client."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol


class Wire(H11Protocol):
    """HTTP/1.1 whose writes of one turn of the loop go out as one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(cast("asyncio.Transport", Gathered(transport, self.loop)))


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
