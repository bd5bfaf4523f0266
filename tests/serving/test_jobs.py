"""The store: what was acknowledged is there, in its order, once, whoever asks at once and however the process dies."""

import dataclasses
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tintype.serving.jobs import ENDED, FORMAT, SHOWN, Full, Job, Store, Taken, Terms

MANY = 10_000
ADA = Terms(model="default", owner="ada")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "queue.sqlite")
    yield made
    made.close()


def add(store: Store, prompt: str = "", *, owner: str = "ada", limit: int = 100, priority: int = 0) -> Job:
    return store.add({"prompt": prompt}, Terms(model="default", owner=owner, priority=priority), limit=limit)[0]


def test_those_of_higher_priority_come_first_and_of_equal_the_older(store: Store) -> None:
    asked = random.Random(0)
    priorities = [asked.randint(-2, 2) for _ in range(40)]
    for number, priority in enumerate(priorities):
        add(store, str(number), priority=priority)
    expected = sorted(range(40), key=lambda number: (-priorities[number], number))
    assert [int(str(job.request["prompt"])) for job in map(store.get, store.line()) if job] == expected


def test_no_more_wait_than_may_and_who_leaves_the_queue_makes_room(store: Store) -> None:
    first, _ = add(store, limit=2), add(store, limit=2)
    with pytest.raises(Full) as told:
        add(store, limit=2)
    assert told.value.waiting == 2
    store.begin([first.id])
    add(store, limit=2)
    with pytest.raises(Full):
        add(store, limit=2)


def test_a_key_is_one_job_of_one_owner_even_when_the_queue_is_full(store: Store) -> None:
    def keyed(owner: str, key: str) -> tuple[Job, bool]:
        return store.add({}, Terms(model="default", owner=owner, key=key), limit=2)

    first, is_new = keyed("ada", "k")
    other, other_is_new = keyed("bob", "k")
    assert is_new
    assert other_is_new
    assert other.id != first.id
    again, again_is_new = keyed("ada", "k")
    assert (again, again_is_new) == (first, False)
    store.end(first.id, "done")
    assert keyed("ada", "k")[0].state == "done"


@pytest.mark.parametrize("handles", [1, 2], ids=["one handle", "a handle each"])
def test_threads_that_add_at_once_never_exceed_the_limit(tmp_path: Path, handles: int) -> None:
    stores = [Store(tmp_path / "queue.sqlite") for _ in range(handles)]
    refused: list[int] = []
    gate = threading.Barrier(4)

    def many(store: Store) -> None:
        gate.wait()
        for _ in range(20):
            try:
                add(store, limit=30)
            except Full as full:
                refused.append(full.waiting)

    threads = [threading.Thread(target=many, args=(stores[number % handles],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waiting = stores[0].line()
    assert len(waiting) == 30
    assert refused == [30] * 50
    assert len({job.number for job in map(stores[0].get, waiting) if job}) == 30


def test_a_job_begins_only_from_the_queue_and_only_once(store: Store) -> None:
    waits, cancelled = add(store), add(store)
    store.end(cancelled.id, "cancelled")
    begun = store.begin([cancelled.id, waits.id, waits.id, "nobody"])
    assert [(job.id, job.state) for job in begun] == [(waits.id, "running")]
    assert begun[0].started is not None
    assert store.begin([waits.id]) == []


@pytest.mark.parametrize("state", ENDED)
def test_a_job_ends_once(store: Store, state: str) -> None:
    job = add(store)
    assert store.end(job.id, state, fault="first", pictures=[(64, 64, 1)])  # pyright: ignore
    assert not store.end(job.id, "done", fault="second", pictures=[(8, 8, 2)] * 3)
    kept = store.get(job.id)
    assert kept is not None
    assert (kept.state, kept.fault, kept.pictures) == (state, "first", 1)
    assert len(store.kept(None, before=None, count=10)) == 1
    assert not store.end("nobody", "done")


def test_what_ran_when_the_process_died_is_interrupted_and_what_waited_waits(tmp_path: Path) -> None:
    before = Store(tmp_path / "queue.sqlite")
    ran, waits, ended = (add(before, name) for name in ("ran", "waits", "ended"))
    before.begin([ran.id, ended.id])
    before.end(ended.id, "done")
    after = Store(tmp_path / "queue.sqlite")
    assert [(job.id, job.state, job.fault) for job in after.recover()] == [(ran.id, "interrupted", "interrupted")]
    assert after.recover() == []
    assert [after.get(id).state for id in (waits.id, ended.id)] == ["queued", "done"]  # pyright: ignore


def test_an_ended_job_keeps_no_pictures_that_it_was_given(store: Store) -> None:
    long = "data:image/png;base64," + "A" * 100_000
    failed, interrupted = (store.add({"image": long, "prompt": "data: a word"}, ADA, limit=9)[0] for _ in range(2))
    store.end(failed.id, "failed", fault="invalid")
    store.begin([interrupted.id])
    store.recover()
    for id in (failed.id, interrupted.id):
        kept = store.get(id)
        assert kept is not None
        assert len(str(kept.request)) < 200
        assert kept.request["prompt"] == "data: a word"


@pytest.mark.parametrize("how", ["done", "recovered", "forgotten"])
def test_pictures_that_a_job_begins_with_lie_apart_until_it_ends(store: Store, how: str) -> None:
    image, mask = (f"data:image/png;base64,{letter * 100_000}" for letter in "AB")
    asked = {"image": image, "mask": mask, "prompt": image}
    job, other = (store.add(asked, ADA, limit=9)[0] for _ in range(2))
    (row,) = store._file.execute("SELECT request FROM jobs WHERE id = ?", (job.id,)).fetchone()
    assert len(row) < len(image) + 500  # the prompt is a prompt
    for told in (job, store.get(job.id), *store.recent("ada", 9), *store.begin([job.id])):
        assert told is not None
        assert told.request == {"image": f"{image[:SHOWN]}…", "mask": f"{mask[:SHOWN]}…", "prompt": image}
    assert store.inputs(job.id) == {"image": image, "mask": mask}
    if how == "recovered":
        store.recover()
    else:
        store.end(job.id, "done")
    if how == "forgotten":
        store.remove(job.id)
    assert store.inputs(job.id) == {}
    assert store.inputs(other.id) == {"image": image, "mask": mask}
    assert store.inputs("nobody") == {}


def test_the_key_of_another_request_is_refused(store: Store) -> None:
    keyed = dataclasses.replace(ADA, key="k")
    long = "data:image/png;base64," + "A" * 1000
    first = store.add({"prompt": "a", "image": long}, keyed, limit=9)[0]
    assert store.add({"image": long, "prompt": "a"}, keyed, limit=9) == (first, False)
    store.end(first.id, "done", request={"prompt": "a", "seed": 7})  # whatever is kept of it
    again, is_new = store.add({"prompt": "a", "image": long}, keyed, limit=9)
    assert (again.id, is_new) == (first.id, False)
    for request, terms in (
        ({"prompt": "b", "image": long}, keyed),
        ({"prompt": "a", "image": long[:-1] + "B"}, keyed),
        ({"prompt": "a", "image": long}, dataclasses.replace(keyed, model="other")),
        ({"prompt": "a", "image": long}, dataclasses.replace(keyed, keep=True)),
        ({"prompt": "a", "image": long}, dataclasses.replace(keyed, branch=f"{first.id}:1")),
    ):
        with pytest.raises(Taken, match="another request was asked for with it"):
            store.add(request, terms, limit=9)
    assert store.add({"prompt": "b"}, dataclasses.replace(keyed, owner="bob"), limit=9)[1]


def test_late_ones_are_those_whose_time_ran_out_while_they_waited(store: Store) -> None:
    late, early, _, runs = (
        store.add({}, Terms(model="default", owner="ada", deadline=deadline), limit=9)[0]
        for deadline in (10, 30, None, 10)
    )
    store.begin([runs.id])
    assert store.late(20) == [late.id]
    assert store.late(40) == [late.id, early.id]


def test_only_ended_ones_can_be_forgotten_with_their_pictures(store: Store) -> None:
    job = add(store)
    assert not store.remove(job.id)
    store.begin([job.id])
    assert not store.remove(job.id)
    store.end(job.id, "done", pictures=[(64, 64, 1)])
    assert store.remove(job.id)
    assert store.get(job.id) is None
    assert store.kept(None, before=None, count=1) == []
    assert not store.remove(job.id)


def test_a_page_of_ten_thousand_pictures_takes_less_than_fifty_milliseconds(store: Store) -> None:
    for _ in range(MANY // 1000):
        job = add(store)
        store.end(job.id, "done", pictures=[(64, 64, seed) for seed in range(1000)])
    rare = add(store, owner="bob")
    store.end(rare.id, "done", pictures=[(64, 64, 7)])
    seen: list[int] = []
    took: list[float] = []
    before = None
    while True:
        began = time.thread_time()  # not the clock: other work runs on this machine
        page = store.kept("ada", before=before, count=500)
        took.append(time.thread_time() - began)
        if not page:
            break
        seen += [one.number for one in page]
        before = page[-1].number
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == MANY
    assert statistics.median(took[:-1]) < 0.05  # the slowest one has the garbage of all other tests collected in it
    assert [one.seed for one in store.kept("bob", before=None, count=9)] == [7]


ADDS = """
import sys
from pathlib import Path
from tintype.serving.jobs import Store, Terms
store = Store(Path(sys.argv[1]))
while True:
    job, _ = store.add({"prompt": "x" * 5000}, Terms(owner="ada", model="default"), limit=10**6)
    sys.stdout.write(job.id + "\\n")
    sys.stdout.flush()
"""


def test_every_job_that_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    child = subprocess.Popen([sys.executable, "-c", ADDS, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [child.stdout.readline().strip() for _ in range(25)]
    os.kill(child.pid, signal.SIGKILL)
    told += [line.strip() for line in child.stdout.read().splitlines() if len(line) == 16]
    assert child.wait() == -signal.SIGKILL
    after = Store(path)
    there = after.line()
    assert there[: len(told)] == told
    assert len(there) - len(told) <= 1  # written, but the word of it did not get out
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert add(after, limit=10**6).number == len(there) + 1


def test_a_full_disk_changes_nothing_and_the_store_goes_on_when_there_is_room(store: Store) -> None:
    job = add(store)
    (pages,) = store._file.execute("PRAGMA page_count").fetchone()
    store._file.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError) as told:
        store.add({"prompt": "x" * 100_000}, ADA, limit=9)
    assert told.value.sqlite_errorcode == sqlite3.SQLITE_FULL
    assert store.line() == [job.id]
    store._file.execute("PRAGMA max_page_count = 1000000")
    assert store.add({"prompt": "x" * 100_000}, ADA, limit=9)[1]


@pytest.mark.parametrize(
    "content", [b"not a database at all, but some text" * 50, b"SQLite format 3\0" + b"\xff" * 500]
)
def test_a_file_that_is_none_of_ours_is_refused_with_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "queue.sqlite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected a queue that tintype wrote"):
        Store(path)
    assert path.read_bytes() == content


def test_a_file_of_another_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as file:
        file.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(ValueError, match=f"format {FORMAT + 1}; expected {FORMAT}"):
        Store(path)
