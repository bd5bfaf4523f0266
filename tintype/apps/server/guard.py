"""What every request passes before anything reads it: who it comes from, for whom it is meant, how much it brings.

A browser on this machine can be led to any address by any page, so the Host must be one of ours and an Origin, where
there is one, the same (DNS rebinding, cross-site requests). Bodies are counted as they come, whatever they announce.
"""

import asyncio
import base64
import binascii
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter, Histogram

from tintype.apps.server.settings import LOCAL, Settings, is_loopback
from tintype.serving.engine import Engine

access = logging.getLogger("tintype.access")

Message = MutableMapping[str, Any]  # as ASGI has them
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

SLOWEST = 30.0  # seconds between two parts of a body
LONGEST = 300.0  # seconds for the whole of one
ENTERS = 2.0  # seconds for which one who comes is counted as one who waits
TOGETHER = 8  # largest bodies that are held in memory at once, however many clients send one
LONGEST_NUMBER = 18  # digits of a length
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # clients may invent others
OPEN = ("/", "/healthz", "/readyz")  # to anyone: the page asks for the token, load balancers know none
PAGE = "/page/"
QUEUED = (
    "/v1/jobs", "/v1/images/generations", "/v1/images/edits", "/v1/images/variations", "/sdapi/v1/txt2img",
    "/sdapi/v1/img2img", "/sdapi/v1/extra-single-image", "/sdapi/v1/extra-batch-images",
)  # fmt: skip  # what a POST to asks for a place in the queue
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
UNFRAMED = (b"x-frame-options", b"SAMEORIGIN")  # where no other site is allowed to: it knows no list


class Unread(HTTPException):
    """A body that is not taken: too large, too slow, or too many at once. FastAPI passes it on to whoever answers."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence, headers={"connection": "close"})


class Guard:
    """The ASGI application around all others. `scope["state"]["owner"]` is who asks: the user whose token it is, and
    without tokens the address, and the name given with it (HTTP Basic). `scope["state"]["entered"]` is called by
    who has a place in the queue, or none."""

    def __init__(self, app: App, settings: Settings, registry: CollectorRegistry, engine: Engine) -> None:
        self.app = app
        self.engine = engine
        self.entering: dict[int, float] = {}  # requests on their way into the queue, and when they came
        self.headers = HEADERS if settings.frames else [*HEADERS, UNFRAMED]
        self.settings = settings
        self.names = {one.strip("[]").lower() for one in (*LOCAL, settings.host, *settings.hosts)}
        self.held = 0  # bytes of bodies, of all requests that are answered now
        labels = ("method", "route", "status")
        self.requests = Counter("tintype_http_requests", "Answered requests.", labels, registry=registry)
        self.seconds = Histogram("tintype_http_seconds", "Until the answer was sent.", ("route",), registry=registry)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, told = time.perf_counter(), {"status": 500, "bytes": 0}
        counted = _Counted(self, receive)
        begun = False
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                message["headers"] = [*message.get("headers", ()), *self.headers]
            else:
                told["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                await _answer(sent, *refusal)
                return
            await self.app(scope, counted.receive, sent)
        except Unread as error:
            if not begun:
                await _answer(sent, error.status_code, error.detail, dict(error.headers or {}))
        finally:
            self.entering.pop(id(scope), None)
            self.held -= counted.taken
            self._tell(scope, told, time.perf_counter() - started)

    def _refusal(self, scope: Message, headers: dict[str, str]) -> tuple[int, str, dict[str, str]] | None:
        """Status, sentence and headers for what goes no further."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 403, f"Host {host!r} is not this server; reach it by its own name, or allow it with --allow-host", {}
        origin = headers.get("origin")
        if origin is not None and _split(origin).netloc != host:
            return 403, f"Origin {origin!r}: pages of other sites may not ask this server", {}
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["method"] != "GET":
            return 403, "pages of other sites may not ask this server", {}
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > LONGEST_NUMBER:
            return 400, f"Content-Length {length[:40]!r}: expected a number of bytes", {"connection": "close"}
        if int(length) > self.settings.body:
            return 413, self.too_large, {"connection": "close"}
        owner = self._owner(scope, headers)
        if owner is None and scope["path"] not in OPEN and not scope["path"].startswith(PAGE):
            sentence = "a token is needed: Authorization: Bearer TOKEN"
            is_script = headers.get("sec-fetch-mode") == "cors"  # the page's: it asks for the token itself, no pop-up
            asked = "Bearer" if is_script else "Basic"
            return 401, sentence, {"www-authenticate": f'{asked} realm="tintype"'}
        scope.setdefault("state", {}).update(owner=owner or "", entered=partial(self.entering.pop, id(scope), None))
        return self._full(scope, headers)

    def _full(self, scope: Message, headers: dict[str, str]) -> tuple[int, str, dict[str, str]] | None:
        """A crowd is sent away before its bodies are read: with those on their way no more get in than may wait. Who is
        slow to send his keeps no place for it."""
        if scope["method"] != "POST" or scope["path"] not in QUEUED or "idempotency-key" in headers:
            return None
        now = time.monotonic()
        entering = sum(now - came < ENTERS for came in self.entering.values())
        if self.engine.store.count + entering < self.engine.queue:
            self.entering[id(scope)] = now
            return None
        retry = str(self.engine.pause)
        sentence = f"{self.engine.queue} jobs wait already; try again in {retry} s"
        return 429, sentence, {"retry-after": retry, "connection": "close"}

    def _is_ours(self, host: str) -> bool:
        name = _split(f"//{host}").hostname or ""
        return name in self.names or (not is_loopback(self.settings.host) and bool(self.settings.tokens))

    def _owner(self, scope: Message, headers: dict[str, str]) -> str | None:
        """Who asks, or None for one that does not say so."""
        kind, _, value = headers.get("authorization", "").partition(" ")
        name, secret = "", value
        if kind.lower() == "basic":
            try:
                name, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return None if self.settings.tokens else ""
        if not self.settings.tokens:
            address = scope["client"][0] if scope.get("client") else "local"
            return f"{name}@{address}" if name else address
        found = None
        for user, token in self.settings.tokens.items():  # all of them, so that time tells nothing
            if hmac.compare_digest(secret.encode(), token.encode()):
                found = user
        return found

    @property
    def too_large(self) -> str:
        return f"the body has more than {self.settings.body} bytes; send smaller or fewer pictures"

    def _tell(self, scope: Message, told: dict[str, int], seconds: float) -> None:
        """Routes, not paths: ids and names of files are nobody's business in a log of numbers."""
        route = scope.get("route")
        name: str = getattr(route, "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.requests.labels(method, name, str(told["status"])).inc()
        self.seconds.labels(name).observe(seconds)
        line = {
            "client": scope["client"][0] if scope.get("client") else None,
            "owner": scope.get("state", {}).get("owner"),
            "method": method,
            "route": name,
            **told,
            "seconds": round(seconds, 4),
        }
        if self.settings.log_prompts and (prompt := scope.get("state", {}).get("prompt")) is not None:
            line["prompt"] = prompt
        access.info(json.dumps(line, ensure_ascii=False))


class _Counted:
    """The body of a request as it comes. Raises `Unread`."""

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self._guard = guard
        self._receive = receive
        self._whole = False
        self._until = time.monotonic() + LONGEST
        self.taken = 0

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()  # waits for the client to leave
        try:
            message = await asyncio.wait_for(self._receive(), min(SLOWEST, self._until - time.monotonic()))
        except TimeoutError as error:
            raise Unread(408, f"nothing for {SLOWEST:g} seconds, or not all in {LONGEST:g}; send it faster") from error
        if message["type"] == "http.request":
            self._count(len(message.get("body", b"")))
            self._whole = not message.get("more_body", False)
        return message

    def _count(self, size: int) -> None:
        self.taken += size
        self._guard.held += size
        most = self._guard.settings.body
        if self.taken > most:
            raise Unread(413, self._guard.too_large)
        if self._guard.held > TOGETHER * most:
            raise Unread(503, "too many large bodies come at once; try again later")


def _split(address: str) -> SplitResult:
    """Of what is no address, nothing."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


async def _answer(send: Send, status: int, sentence: str, headers: dict[str, str]) -> None:
    body = json.dumps({"error": {"message": sentence, "type": "refused"}}).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    await send({
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": body})
