"""A real server in a process of its own, and what its tests ask of it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

PATIENCE = 90.0  # seconds; how busy the machine is says nothing of the code
ENDED = ("done", "failed", "cancelled", "expired", "interrupted")
SMALL: dict[str, object] = {"prompt": "a red apple", "steps": 2, "width": 32, "height": 32, "seed": 1}
LONG = SMALL | {"steps": 150, "width": 256, "height": 256}  # many seconds, in steps of a fraction of one


@dataclass
class Server:
    process: subprocess.Popen[str]
    url: str
    data: Path
    usable: float  # seconds from the start to the first answer
    said: list[str]  # lines of its log, as they come
    reader: threading.Thread

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, trust_env=False)

    def rss(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def ready(self) -> "Server":
        """With its model open."""
        with self.client() as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
        return self

    def log(self) -> str:
        """All that it said, once it has ended."""
        self.reader.join(PATIENCE)
        return "".join(self.said)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def begin(data: Path, *flags: str, environment: dict[str, str] | None = None) -> Server:
    """`tintype serve` on a free port, listening."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "tintype", "serve", "--port", "0", "--data", str(data), "--device", "cpu", *flags],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
    )
    assert process.stderr is not None
    said = ""
    while (found := re.search(r"tintype is at (http://\S+)", said)) is None:
        line = process.stderr.readline()
        assert line, f"it ended with {process.wait()}: {said}"
        said += line
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reader.start()  # whether anyone wants to know or not: the pipe would fill in the end
    url = found[1]
    while True:
        try:
            assert httpx.get(f"{url}/healthz", trust_env=False, timeout=PATIENCE).status_code == 200
            break
        except httpx.TransportError:
            time.sleep(0.01)
    return Server(process, url, data, time.monotonic() - began, lines, reader)


@contextmanager
def serving(data: Path, *flags: str, environment: dict[str, str] | None = None) -> Generator[Server]:
    server = begin(data, *flags, environment=environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.02)


def submit(client: httpx.Client, **change: object) -> str:
    answer = client.post("/v1/jobs", json=SMALL | change)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def state(client: httpx.Client, id: str) -> str:
    return client.get(f"/v1/jobs/{id}").json()["state"]


def ended(client: httpx.Client, id: str) -> dict[str, object]:
    wait_until(lambda: state(client, id) in ENDED)
    return client.get(f"/v1/jobs/{id}").json()


def running(client: httpx.Client, id: str) -> None:
    wait_until(lambda: client.get(f"/v1/jobs/{id}").json()["step"] > 0)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]
