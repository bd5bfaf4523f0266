"""From the start to the end, however it comes: what was taken is kept, what was drawn whole, and it always answers."""

import json
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from fastapi import Request as Call
from inside import Inside
from PIL import Image
from proofs import LONG, PATIENCE, SMALL, Server, begin, ended, percentile, running, serving, state, submit, wait_until

from tintype.apps.server.waiting import finished, owner_of, submitted
from tintype.serving.jobs import Store, Terms
from tintype.tasks.request import Request

USABLE = 10.0  # seconds; 2 are promised on a machine that does nothing else, see benchmarks/serving.py
STOPPED = 60.0


def whole(path: Path) -> bool:
    with Image.open(path) as picture:
        picture.load()
    return True


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("lifecycle")) as made:
        yield made.ready()


def test_it_answers_before_its_model_is_open_and_takes_jobs_meanwhile(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.client() as client:
        assert server.usable < USABLE
        first = client.get("/readyz")
        assert first.status_code == 503, "too late to see"
        assert first.json() == {"ready": False, "stopping": False, "failure": None}
        id = submit(client)
        assert client.get(f"/v1/jobs/{id}").json()["position"] == 0
        assert ended(client, id)["state"] == "done"
        assert client.get("/readyz").status_code == 200
        assert server.stop() == 0


def test_a_second_server_of_the_same_folder_is_refused(server: Server) -> None:
    with pytest.raises(AssertionError, match="another server is going on"):
        begin(server.data)


def test_a_port_that_is_taken_is_told_and_nothing_else_is(server: Server, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Address already in use; expected") as told:
        begin(tmp_path, "--port", str(urlsplit(server.url).port))
    assert "tintype is at" not in str(told.value)


def test_a_damaged_queue_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "queue.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(AssertionError, match="expected a queue that tintype wrote"):
        begin(tmp_path)


def test_it_answers_while_it_draws(server: Server) -> None:
    """Generously bounded: 50 ms are promised on a machine that does nothing else, see benchmarks/serving.py."""
    with server.client() as client, server.client() as other:
        id = submit(client, **LONG)
        running(client, id)
        took: list[float] = []
        until = time.monotonic() + 4
        while time.monotonic() < until:
            began = time.perf_counter()
            assert other.get("/healthz").status_code == 200
            took.append(time.perf_counter() - began)
            time.sleep(0.01)
        assert state(client, id) == "running"
        assert client.post(f"/v1/jobs/{id}/cancel").status_code == 200
        assert ended(client, id)["state"] == "cancelled"
        assert percentile(took, 0.99) < 0.5


def test_no_answer_waits_for_the_client_to_acknowledge_a_part_of_it(server: Server) -> None:
    """Nagle's algorithm and delayed acknowledgements make 40 ms of every answer of two parts."""
    took: list[float] = []
    with server.client() as client:
        for _ in range(40):
            began = time.perf_counter()
            client.get("/healthz")
            took.append(time.perf_counter() - began)
    assert percentile(took, 0.2) < 0.03


def test_a_job_outlives_who_submitted_it(server: Server) -> None:
    address = urlsplit(server.url)
    body = json.dumps(SMALL | {"prompt": "a lonely dog"}).encode()
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with server.client() as client:
        before = len(client.get("/v1/jobs").json())
        with socket.create_connection((address.hostname, address.port)) as line:
            line.sendall(head.encode() + b"\r\n\r\n" + body)
            wait_until(lambda: len(client.get("/v1/jobs").json()) == before + 1)  # and the answer is not read
        id = client.get("/v1/jobs").json()[0]["id"]
        assert ended(client, id)["state"] == "done"
        assert client.get(f"/v1/jobs/{id}/pictures/0").content.startswith(b"\x89PNG")


def test_events_tell_each_change_to_the_end_and_previews_to_those_who_want_them(server: Server) -> None:
    with server.client() as client, server.client() as other:
        for previews in (False, True):
            block = submit(client, **LONG)
            id = submit(client, steps=12)
            told: list[tuple[str, dict[str, object]]] = []
            with other.stream("GET", f"/v1/jobs/{id}/events", params={"previews": previews}) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert answer.headers["cache-control"] == "no-store"
                kind = ""
                for line in answer.iter_lines():
                    if line.startswith("event: "):
                        kind = line[7:]
                    elif line.startswith("data: "):
                        told.append((kind, json.loads(line[6:])))
                        if len(told) == 1:
                            client.post(f"/v1/jobs/{block}/cancel")
            jobs = [one for kind, one in told if kind == "job"]
            assert jobs[0]["state"] == "queued"
            assert jobs[-1]["state"] == "done"
            assert [one["step"] for one in jobs[:-1]] == sorted(one["step"] for one in jobs[:-1])  # pyright: ignore
            assert any(kind == "preview" for kind, _ in told) == previews


def test_a_job_can_be_cancelled_and_forgotten_and_asked_for_again(server: Server) -> None:
    with server.client() as client:
        drawn = submit(client, **LONG)
        running(client, drawn)
        waiting = submit(client)
        assert client.delete(f"/v1/jobs/{drawn}").status_code == 409
        for id in (waiting, drawn):
            assert client.post(f"/v1/jobs/{id}/cancel").status_code == 200
            assert ended(client, id)["state"] == "cancelled"
            assert client.post(f"/v1/jobs/{id}/cancel").status_code == 409
            assert client.delete(f"/v1/jobs/{id}").status_code == 204
            assert client.get(f"/v1/jobs/{id}").status_code == 404
        late = submit(client, **LONG, timeout=0.2)
        assert ended(client, late)["state"] == "expired"


# The end


def test_a_signal_finishes_what_is_drawn_and_a_start_what_waited_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    server = begin(tmp_path).ready()
    with server.client() as client:
        drawn = submit(client, **LONG | {"steps": 40, "width": 64, "height": 64})
        running(client, drawn)
        waiting = [submit(client, seed=seed) for seed in range(5)]
        server.process.send_signal(signal.SIGTERM)
        # Whoever still asks is told, or not let in; it is never left waiting
        with suppress(httpx.TransportError):
            assert client.post("/v1/jobs", json=SMALL).status_code == 503
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < STOPPED
    store = Store(tmp_path / "queue.sqlite")
    assert [store.get(id).state for id in (drawn, *waiting)] == ["done", *["queued"] * 5]  # pyright: ignore
    store.close()
    assert whole(tmp_path / "pictures" / f"{drawn}-0.png")
    again = begin(tmp_path).ready()
    with again.client() as client:
        assert [ended(client, id)["state"] for id in waiting] == ["done"] * 5
        assert client.get(f"/v1/jobs/{drawn}/pictures/0").status_code == 200
    a_kill_loses_nothing_that_was_taken(again)


def a_kill_loses_nothing_that_was_taken(server: Server) -> None:
    with server.client() as client:
        before = {path.name for path in (server.data / "pictures").iterdir()}
        drawn = submit(client, **LONG)
        running(client, drawn)
        waiting = [submit(client, seed=seed) for seed in range(5)]
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    (server.data / "pictures" / f".{drawn}-0.png.abc.tmp").write_bytes(b"half")
    with serving(server.data) as again, again.client() as client:
        told = client.get(f"/v1/jobs/{drawn}").json()
        assert (told["state"], told["fault"], told["pictures"]) == ("interrupted", "interrupted", [])
        assert [ended(client, id)["state"] for id in waiting] == ["done"] * 5
        pictures = {path.name for path in (server.data / "pictures").iterdir()}
        assert pictures - before == {f"{id}-0.png" for id in waiting}
        assert all(whole(server.data / "pictures" / name) for name in pictures)
        assert again.stop() == 0


@pytest.mark.slow
def test_a_grace_that_is_too_short_interrupts_and_still_ends_well(tmp_path: Path) -> None:
    server = begin(tmp_path, "--grace", "0.5").ready()
    with server.client() as client:
        drawn = submit(client, **LONG)
        running(client, drawn)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20
    store = Store(tmp_path / "queue.sqlite")
    assert store.get(drawn).state == "interrupted"  # pyright: ignore
    store.close()


def test_a_signal_in_the_middle_of_a_long_step_is_heard(tmp_path: Path) -> None:
    server = begin(tmp_path, "--grace", "1").ready()
    with server.client() as client:
        drawn = submit(client, width=2048, height=2048)  # a step takes longer than the end may
        wait_until(lambda: state(client, drawn) == "running")
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < STOPPED
    store = Store(tmp_path / "queue.sqlite")
    job = store.get(drawn)
    store.close()
    assert job is not None
    assert (job.state, job.fault) == ("interrupted", "interrupted")
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == []


@pytest.mark.parametrize("flags", [(), ("--log-prompts",)], ids=["without", "with --log-prompts"])
def test_no_word_of_a_prompt_is_in_the_log_unless_it_is_wanted(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with serving(tmp_path, *flags) as server, server.ready().client() as client:
        id = submit(client, prompt="an apple zeppelin", negative_prompt="xylophones", seed=4)
        assert ended(client, id)["state"] == "done"
        for path, more in (
            ("/v1/tokens", {}), ("/v1/jobs", {"width": 36}), ("/v1/jobs", {"task": "edit"}),
            ("/v1/images/generations", {}), ("/sdapi/v1/txt2img", {}),
        ):  # fmt: skip
            client.post(path, json={"prompt": "an apple zeppelin", "steps": 1} | more)
        assert server.stop() == 0
        log = server.log()
    lines = [json.loads(line.partition(": ")[2]) for line in log.splitlines() if '"route"' in line]
    assert [one["route"] for one in lines if one["status"] == 202] == ["/v1/jobs"]
    prompts = [one["prompt"] for one in lines if "prompt" in one]
    if flags:
        assert set(prompts) == {"an apple zeppelin"}
        assert len(prompts) >= 3
    else:
        assert prompts == []
        assert not [word for word in ("apple", "zeppelin", "xylophones") if word in log]


# Callers who wait for their picture, as those of other programs' interfaces do


class Waited(Inside):
    """The application with a route that answers when the picture is done."""

    def __init__(self, data: Path) -> None:
        super().__init__(data, change=_wait)


def _wait(app: FastAPI) -> None:
    @app.post("/waited")
    async def waited(call: Call, steps: int, size: int = 32, timeout: float | None = None) -> dict[str, str]:
        request = Request(prompt="a red apple", seed=1, steps=steps, width=size, height=size)
        deadline = None if timeout is None else time.time() + timeout
        job = submitted(call, request, Terms(owner=owner_of(call), deadline=deadline))
        return {"id": (await finished(call, job)).id}


@pytest.fixture(scope="module")
def waited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waited]:
    with Waited(tmp_path_factory.mktemp("waited")) as made:
        made.ready()
        yield made


def test_who_waits_gets_the_job_that_is_done(waited: Waited) -> None:
    answer = httpx.post(f"{waited.url}/waited", params={"steps": 2}, timeout=PATIENCE, trust_env=False)
    assert answer.status_code == 200
    assert waited.engine.store.get(answer.json()["id"]).state == "done"  # pyright: ignore


def test_a_job_is_on_the_disk_before_it_is_promised(waited: Waited, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, int]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        flushed.append((os.readlink(f"/proc/self/fd/{descriptor}"), len(waited.engine.store.recent(None, 500))))

    before = len(waited.engine.store.recent(None, 500))
    monkeypatch.setattr(os, "fsync", fsync)
    answer = httpx.post(f"{waited.url}/v1/jobs", json=SMALL, trust_env=False)
    monkeypatch.undo()
    assert answer.status_code == 202
    assert [told for told in flushed if told[0].endswith("queue.sqlite-wal")] == [
        (str(waited.engine.pictures.parent / "queue.sqlite-wal"), before + 1)
    ]
    wait_until(lambda: waited.engine.store.get(answer.json()["id"]).state == "done")  # pyright: ignore


@pytest.mark.parametrize("when", ["waiting", "drawn"])
def test_who_leaves_takes_the_job_along_before_its_next_step(waited: Waited, when: str) -> None:
    engine, before = waited.engine, waited.engine.store.recent(None, 1)
    long = Request(prompt="a dog", steps=150, width=256, height=256)
    block = engine.submit(long, Terms(owner="ada")) if when == "waiting" else None
    with socket.create_connection(("127.0.0.1", waited.port)) as line:
        line.sendall(b"POST /waited?steps=150&size=256 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        wait_until(lambda: engine.store.recent(None, 1) != before and engine.store.recent(None, 1)[0].owner != "ada")
        id = engine.store.recent(None, 1)[0].id
        if when == "drawn":
            wait_until(lambda: engine.progress(id).step > 0)
        left_at = engine.progress(id).step
    wait_until(lambda: engine.store.get(id).state == "cancelled")  # pyright: ignore
    if block is None:
        took = engine.store.get(id).ended  # pyright: ignore
        assert took is not None
        assert engine.progress(id).step == 0  # it is drawn no more
        assert left_at < 140
    else:
        assert engine.cancel(block.id)
    wait_until(lambda: engine.running == 0)
    assert len(engine.watchers) == 0


def test_a_deadline_answers_who_waits(waited: Waited) -> None:
    answer = httpx.post(
        f"{waited.url}/waited", params={"steps": 150, "size": 256, "timeout": 0.3}, timeout=PATIENCE, trust_env=False
    )
    assert answer.status_code == 504
    assert "its time ran out" in answer.json()["detail"]


def test_what_is_submitted_to_a_full_disk_is_told(waited: Waited, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **named: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(waited.engine.store, "add", full)
    answer = httpx.post(f"{waited.url}/waited", params={"steps": 2}, timeout=PATIENCE, trust_env=False)
    assert answer.status_code == 507


def test_nobody_who_waits_is_left_when_it_stops(tmp_path: Path) -> None:
    answers: list[int] = []

    def ask(made: Waited, steps: int) -> None:
        answers.append(
            httpx.post(f"{made.url}/waited", params={"steps": steps}, timeout=PATIENCE, trust_env=False).status_code
        )

    with Waited(tmp_path) as made:
        made.ready()
        threads = [threading.Thread(target=ask, args=(made, 100 + number)) for number in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: made.engine.running == 1 and len(made.engine.store.line()) == 2)
        made.engine.drain()  # as a signal does
        made.server.should_exit = True
        for thread in threads:
            thread.join(PATIENCE)
    assert sorted(answers) == [200, 503, 503]


def test_one_that_stops_is_not_ready_though_it_draws(tmp_path: Path) -> None:
    with Inside(tmp_path) as made, made.ready().client() as client:
        assert client.get("/readyz").status_code == 200
        drawn = submit(client, **LONG)
        running(client, drawn)
        made.engine.drain()
        answer = client.get("/readyz")
        assert state(client, drawn) == "running"
        assert answer.status_code == 503
        assert answer.json() == {"ready": False, "stopping": True, "failure": None}
        assert client.get("/healthz").status_code == 200
        refused = client.post("/v1/jobs", json=SMALL)
        assert refused.status_code == 503
        assert "stopping" in refused.json()["detail"]
        assert made.engine.cancel(drawn)


def test_a_model_that_cannot_be_opened_is_told_to_who_waits_and_who_asks(tmp_path: Path) -> None:
    sentence = "the embedded model cannot be opened: the weights are gone"
    broken, answers = threading.Event(), list[httpx.Response]()

    def gone(name: str) -> None:
        assert broken.wait(PATIENCE)
        raise RuntimeError("the weights are gone")

    made = Waited(tmp_path)
    made.engine.models.open = gone  # pyright: ignore
    with made, made.client() as client:
        paths = ("/waited?steps=2", "/v1/images/generations")

        def ask(path: str) -> None:
            answers.append(httpx.post(made.url + path, json={"prompt": "a"}, timeout=PATIENCE, trust_env=False))

        threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(made.engine.store.line()) == 1)
        assert client.get("/readyz").json()["failure"] is None
        broken.set()
        for thread in threads:
            thread.join(PATIENCE)
        answers += [client.post(path, json={"prompt": "a"}) for path in (*paths, "/v1/jobs")]
        assert [(one.status_code, sentence in one.text) for one in answers] == [(503, True)] * 5
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json() == {"ready": False, "stopping": False, "failure": sentence}
        assert client.get("/healthz").status_code == 200
