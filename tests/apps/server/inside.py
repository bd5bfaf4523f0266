"""A server in the tests' own process, so that they can reach into it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from proofs import PATIENCE, wait_until

from tintype.apps.server.app import make_app, make_engine
from tintype.apps.server.settings import Settings
from tintype.apps.server.wire import Wire


class Listening:
    """An ASGI application on a port of its own, which ends with the block."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, http=Wire, log_level="error"))
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> "Listening":
        self.thread.start()
        wait_until(lambda: self.server.started)
        self.port: int = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *error: object) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, trust_env=False)


class Inside(Listening):
    """Ours; `change` is called with the application before it starts."""

    def __init__(self, data: Path, *, change: Callable[[FastAPI], None] = lambda app: None) -> None:
        settings = Settings(data=data, device="cpu", port=0, grace=5)
        self.engine = make_engine(settings)
        app = make_app(settings, self.engine)
        change(app)
        super().__init__(app)

    def ready(self) -> "Inside":
        """With its model open."""
        assert self.engine.ready.wait(PATIENCE)
        return self
