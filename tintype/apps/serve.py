"""`tintype serve`."""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from tintype.apps.server.app import make_app, make_engine
from tintype.apps.server.settings import Settings
from tintype.apps.server.wire import Wire
from tintype.common.files import reserved

NAMED = ("host", "port", "queue", "batch", "grace", "device", "log_prompts")
FOLDERS = ("data", "models")
TURN = 0.0005  # seconds that the thread which draws may keep others waiting, a tenth of Python's usual
USER = "user"  # of a token that is given without a name


def serve(arguments: argparse.Namespace) -> int:
    """Until a signal ends it."""
    settings = _settings(arguments)
    sys.setswitchinterval(TURN)
    logging.getLogger("tintype").setLevel(logging.INFO)
    settings.data.mkdir(parents=True, exist_ok=True)
    with reserved(settings.data, what="another server"), _bound(settings.host, settings.port) as listening:
        engine = make_engine(settings)
        config = uvicorn.Config(
            make_app(settings, engine),
            host=settings.host,
            http=Wire,
            access_log=False,
            server_header=False,
            log_level="warning",
            timeout_graceful_shutdown=int(settings.grace) + 5,
        )
        server = _Server(config, engine.drain)
        server.run([listening])
    return 0


def _bound(host: str, port: int) -> socket.socket:
    """Taken before anything is begun; who comes early waits in it. Raises `ValueError` for an address that cannot be
    had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)  # without its protocol asyncio leaves Nagle's 40 ms in it
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port}: {error.strerror}; expected an address of this machine and a free port"
        ) from error
    listening.listen()
    return listening


class _Server(uvicorn.Server):
    """Says where it is once it listens there, and tells the engine of a signal at once, so that it takes nothing new
    while answers are still sent."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port: int = self.servers[0].sockets[0].getsockname()[1]  # not the one asked for where that is 0
            print(f"tintype is at http://{self.config.host}:{port}  (Ctrl+C ends it)", file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Unlike uvicorn's it does not raise the signal again at the end: a server that was asked to stop has done
        what it was to do."""
        self._drain()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def _settings(arguments: argparse.Namespace) -> Settings:
    given = {name: value for name, value in vars(arguments).items() if value is not None and name in NAMED}
    given |= {name: Path(getattr(arguments, name)) for name in FOLDERS if getattr(arguments, name) is not None}
    said = [*arguments.token, *filter(None, [os.environ.get("TINTYPE_TOKEN")])]
    pairs = [one.partition("=") if "=" in one else (USER, "", one) for one in said]
    return Settings(**given, tokens={name: token for name, _, token in pairs}, hosts=tuple(arguments.allow_host))
