"""What `tintype serve` is told."""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from tintype.tasks.request import LARGEST_SIDE

LOCAL = ("127.0.0.1", "localhost", "[::1]")
MEBIBYTE = 2**20
LONGEST_GRACE = 86_400
SHORTEST_TOKEN = 8
ORIGIN = re.compile(r"https?://[\w.-]+(:\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """`data`: the folder of the queue and the pictures. `models`: a folder of checkpoints, or None. `tokens`: of each
    user by name; without any everyone may ask, and the server binds to loopback alone. `hosts`: further names that it
    is reached by; `frames`: sites that may show the page in a frame. `queue`: jobs that may wait; `batch`: pictures
    drawn at once; `largest`: pixels of a picture's longer side, sent or drawn; `body`: bytes of a request's body;
    `grace`: seconds that a picture has to be finished in when the server stops. `log_prompts`: whether they are written
    to the log. Raises `ValueError` for what is not safe."""

    host: str = "127.0.0.1"
    port: int = 7860
    data: Path = Path("server")
    models: Path | None = None
    tokens: dict[str, str] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    queue: int = 64
    batch: int = 4
    body: int = 32 * MEBIBYTE
    largest: int = 2048
    pictures: int = 16
    steps: int = 150
    grace: float = 30.0
    device: str | None = None
    log_prompts: bool = False

    def __post_init__(self) -> None:
        if not self.tokens and not is_loopback(self.host):
            raise ValueError(
                f"--host {self.host}: others can reach it there; expected a token that they must know (--token, or "
                "TINTYPE_TOKEN), or 127.0.0.1"
            )
        for name, least in (("queue", 1), ("batch", 1), ("largest", 64), ("pictures", 1), ("steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} {getattr(self, name)}: expected {least} or more")
        if self.largest > LARGEST_SIDE:
            raise ValueError(f"--largest {self.largest}: expected {LARGEST_SIDE} or less")
        if not 0 <= self.grace <= LONGEST_GRACE:
            raise ValueError(f"--grace {self.grace:g}: expected 0 to {LONGEST_GRACE} seconds")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port {self.port}: expected 0 to 65535")
        if self.models is not None and not self.models.is_dir():
            raise ValueError(f"--models {self.models}: no such folder")
        for name, token in self.tokens.items():
            if len(token) < SHORTEST_TOKEN:
                raise ValueError(f"--token of {name}: {len(token)} characters; expected {SHORTEST_TOKEN} or more")
        for origin in self.frames:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"--allow-frame {origin!r}: expected a site, such as https://huggingface.co")


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
