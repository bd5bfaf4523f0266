"""Many at once: a full queue says so at once, whoever was let in is served, and memory stays what it is.

How quickly is measured by benchmarks/serving.py on a machine that does nothing else; the bounds here are generous.
"""

import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from proofs import LONG, SMALL, Server, ended, percentile, running, serving, state, submit, wait_until

CROWD, QUEUE = 200, 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("crowd"), "--queue", str(QUEUE)) as made:
        yield made.ready()


def crowd(server: Server, count: int, body: dict[str, object]) -> list[tuple[int, dict[str, str], bytes, float]]:
    """Status, headers, body and seconds to the answer of requests sent at once, each by a connection of its own. One
    thread sends and reads them all: so many would wait for each other as long as for the server."""
    address, text = urlsplit(server.url), json.dumps(body).encode()
    head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    whole = f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text
    found: list[tuple[int, dict[str, str], bytes, float]] = []
    with selectors.DefaultSelector() as open_ones:
        for _ in range(count):
            line = socket.create_connection((address.hostname, address.port), timeout=60)
            open_ones.register(line, selectors.EVENT_READ, [0.0, b""])
        for key in open_ones.get_map().values():
            key.data[0] = time.perf_counter()
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.sendall(whole)
        while open_ones.get_map():
            ready = open_ones.select(60)
            assert ready, "no answer"
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                came = key.fileobj.recv(65536)
                key.data[1] += came
                if not came:
                    found.append((*_read(key.data[1]), time.perf_counter() - key.data[0]))
                    open_ones.unregister(key.fileobj)
                    key.fileobj.close()
    return found


def _read(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    top, _, content = answer.partition(b"\r\n\r\n")
    status, *fields = top.decode().split("\r\n")
    return int(status.split()[1]), dict(field.lower().split(": ", 1) for field in fields), content


def test_of_a_crowd_so_many_wait_as_may_and_the_others_are_told_when_to_come_again(server: Server) -> None:
    with server.client() as client:
        ended(client, submit(client))
        block = submit(client, **LONG)
        running(client, block)
        before = server.rss()
        answers = crowd(server, CROWD, SMALL)
        assert state(client, block) == "running"
        taken = [json.loads(content)["id"] for status, _, content, _ in answers if status == 202]
        refused = [(headers, took) for status, headers, _, took in answers if status == 429]
        assert len(taken) == QUEUE
        assert len(refused) == CROWD - QUEUE
        assert all(1 <= int(headers["retry-after"]) <= 60 for headers, _ in refused)
        assert percentile([took for _, took in refused], 0.5) < 5
        assert client.post(f"/v1/jobs/{block}/cancel").status_code == 200
        assert [ended(client, id)["state"] for id in taken] == ["done"] * QUEUE
        wait_until(lambda: "tintype_jobs_waiting 0.0" in client.get("/metrics").text)
        assert submit(client)
        assert server.rss() < before + 64 * 2**20


def test_many_who_watch_are_all_told_and_none_is_remembered(server: Server) -> None:
    address = urlsplit(server.url)
    ends: list[bytes] = []
    with server.client() as client:
        block = submit(client, **LONG)
        running(client, block)
        id = submit(client, steps=3)

        def watch() -> None:
            with socket.create_connection((address.hostname, address.port), timeout=60) as line:
                line.sendall(
                    f"GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
                )
                ends.append(b"".join(iter(lambda: line.recv(65536), b""))[-2000:])

        threads = [threading.Thread(target=watch) for _ in range(60)]  # more than there are threads to serve them
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        assert client.get("/healthz").status_code == 200
        assert client.post(f"/v1/jobs/{block}/cancel").status_code == 200
        for thread in threads:
            thread.join()
    assert len(ends) == 60
    assert all(b'"state":"done"' in end for end in ends)
