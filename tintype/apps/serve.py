"""`tintype serve`."""

import argparse
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from tintype.apps.server.app import make_app, make_engine
from tintype.apps.server.settings import Settings
from tintype.apps.server.wire import Wire
from tintype.common.files import reserved
from tintype.serving.engine import Engine

NAMED = ("host", "port", "queue", "batch", "largest", "grace", "device", "log_prompts")
FOLDERS = ("data", "models")
TURN = 0.0005  # seconds that the thread which draws may keep others waiting, a tenth of Python's usual
MOST_CONNECTIONS = 800  # at once; systems usually let a process have 1,024 files
USER = "user"  # of a token that is given without a name
NAMED_TOKEN = re.compile(r"([A-Za-z][\w.-]{0,31})=([^=].*)")  # what ends in = is a token in base64
EVERYWHERE = ("0.0.0.0", "::", "[::]")


def serve(arguments: argparse.Namespace) -> int:
    """Until a signal ends it."""
    settings = _settings(arguments)
    sys.setswitchinterval(TURN)
    logging.getLogger("tintype").setLevel(logging.INFO)
    logging.getLogger("tintype.generation").setLevel(logging.ERROR)  # it warns in words of prompts: jobs tell it
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--data {settings.data}: {error.strerror}; expected a folder that can be written") from error
    with reserved(settings.data, what="another server"), _bound(settings.host, settings.port) as listening:
        engine = make_engine(settings)
        config = uvicorn.Config(
            make_app(settings, engine),
            host=settings.host,
            http=Wire,
            access_log=False,
            server_header=False,
            log_level="warning",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=int(settings.grace) + 5,
        )
        server = _Server(config, engine, settings.grace)
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

    def __init__(self, config: uvicorn.Config, engine: Engine, grace: float) -> None:
        super().__init__(config)
        self._engine, self._grace = engine, grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port: int = self.servers[0].sockets[0].getsockname()[1]  # not the one asked for where that is 0
            host, more = self.config.host, ""
            if host in EVERYWHERE:
                host, more = "localhost", " and at this machine's other addresses"
            print(f"tintype is at http://{host}:{port}{more}  (Ctrl+C ends it)", file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Unlike uvicorn's it does not raise the signal again at the end: a server that was asked to stop has done
        what it was to do."""
        if self._engine.running and not self.should_exit:
            print(f"finishing what is drawn, {self._grace:g} s at most; Ctrl+C again ends at once", file=sys.stderr)
        self._engine.drain()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def _settings(arguments: argparse.Namespace) -> Settings:
    given = {name: value for name, value in vars(arguments).items() if value is not None and name in NAMED}
    given |= {name: Path(getattr(arguments, name)) for name in FOLDERS if getattr(arguments, name) is not None}
    hosts, frames = tuple(arguments.allow_host), tuple(arguments.allow_frame)
    tokens = _tokens(arguments.token, os.environ.get("TINTYPE_TOKEN"))
    settings = Settings(**given, tokens=tokens, hosts=hosts, frames=frames)
    if settings.device not in (None, "cpu"):
        from tintype.common.device import usable_device

        usable_device(settings.device)
    return settings


def _tokens(flags: Sequence[str], variable: str | None) -> dict[str, str]:
    """By user. Raises `ValueError`, which never tells a token."""
    found: dict[str, str] = {}
    named = [(match[1], match[2]) if (match := NAMED_TOKEN.fullmatch(flag)) else (USER, flag) for flag in flags]
    for name, token in [*named, *([(USER, variable)] if variable else [])]:
        if name in found or token in found.values():
            raise ValueError(f"--token: two for {name}, or one for two; expected each user and each token once")
        found[name] = token
    return found
