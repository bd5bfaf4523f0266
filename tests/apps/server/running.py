"""A server as its users start it, for tests with the clients of other programs."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

SLOWEST = 120.0  # seconds until it is ready, on a machine that does other things


@contextmanager
def running(data: Path, *flags: str) -> Iterator[str]:
    """`tintype serve` on a free port of this machine: its address, once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tintype", "serve", "--port", str(port), "--data", str(data), *flags]
    log = data.with_suffix(".log")
    with log.open("w") as told:
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=told)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(process, address, log)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + SLOWEST
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not ready after {SLOWEST:g} s: {log.read_text()}")
