"""The page: static files of this package, under a policy that lets nothing else in."""

import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter, HTTPException, Response
from fastapi import Path as InPath
from fastapi import Request as Call

from tintype.apps.server.waiting import settings_of

FOLDER = Path(__file__).parent.parent / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",  # licences, hashes
}
POLICY = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'self'",  # the last: further sites may follow
))  # fmt: skip


@cache
def files() -> dict[str, Path]:
    """By the name below /page/. What is not in this listing is not served, whatever is asked for."""
    found = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.suffix in KINDS)
    return {path.relative_to(FOLDER).as_posix(): path for path in found}


def page_routes() -> APIRouter:
    """`/` and what it loads. The page itself is open to anyone: it asks for the token that the rest needs."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    def index(call: Call) -> Response:
        return _answer(call, files()["index.html"])

    @router.api_route("/page/{file:path}", methods=["GET", "HEAD"])
    def part(call: Call, file: str = InPath(max_length=200)) -> Response:
        path = files().get(file)
        if path is None:
            raise HTTPException(404, "the page has no such file")
        return _answer(call, path)

    return router


def _answer(call: Call, path: Path) -> Response:
    """Asked for anew each time (no-cache), sent anew when it changed: an update is never half of the old page."""
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    policy = " ".join((POLICY, *settings_of(call).frames))
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": policy}
    known = [one.strip().removeprefix("W/") for one in call.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=KINDS[path.suffix], headers=headers)
