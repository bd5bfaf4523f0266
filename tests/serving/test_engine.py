"""The worker against its promises, with the embedded model: what is drawn, what ends early, what may go wrong."""

import dataclasses
import errno
import gc
import io
import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import tintype
from tintype import generation
from tintype.common.files import load_tensors
from tintype.families.base import LatentDiffusion
from tintype.serving import engine as engines
from tintype.serving.engine import Draining, Engine, Progress
from tintype.serving.jobs import ENDED, Full, Job, Store, Terms, given
from tintype.serving.models import Models, Unknown
from tintype.tasks.infotext import save
from tintype.tasks.pictures import data_url
from tintype.tasks.request import Request
from tintype.tasks.task import resolve
from tintype.weights import embedded

SIZE = 32
USUAL = Request(prompt="a red apple", seed=3, steps=3, width=SIZE, height=SIZE)
PATIENCE = 60.0  # seconds; how busy the machine is says nothing of the code

Made = Callable[..., Engine]


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default", device="cpu")


@pytest.fixture
def make(tmp_path: Path, model: LatentDiffusion) -> Iterator[Made]:
    """Engines over the same folder, which end with the test. They have the model open already."""
    running: list[Engine] = []

    def made(*, models: Path | None = None, start: bool = True, **settings: int) -> Engine:
        pictures = tmp_path / "pictures"
        pictures.mkdir(exist_ok=True)
        engine = Engine(
            Store(tmp_path / "queue.sqlite"), Models(models, device="cpu"), pictures, **{"queue": 99, **settings}
        )
        running.append(engine)
        engine.models._open = ("default", model)
        if start:
            engine.start()
            assert engine.ready.wait(PATIENCE)
        return engine

    yield made
    for engine in running:
        engine.stop(grace=0)


def seeded(seed: int, **change: object) -> Request:
    return dataclasses.replace(USUAL, seed=seed, **change)  # pyright: ignore


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.005)


def ended(engine: Engine, job: Job) -> Job:
    wait_until(lambda: engine.store.get(job.id).state in ENDED)  # pyright: ignore
    now = engine.store.get(job.id)
    assert now is not None
    return now


def submit(engine: Engine, request: Request = USUAL, **terms: object) -> Job:
    return engine.submit(request, Terms(owner="ada", **terms))  # pyright: ignore


class Held:
    """Holds the worker after its first step of a walk, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self.walks: list[int] = []
        self.steps = 0
        for name in ("steps", "steps_together", "steps_from"):
            monkeypatch.setattr(generation, name, self._counted(getattr(generation, name)))

    def _counted(self, real: Callable[..., Iterator[object] | None]) -> Callable[..., Iterator[object] | None]:
        def counted(model: object, asked: object, *given: object, **named: object) -> Iterator[object] | None:
            walk = real(model, asked, *given, **named)
            return None if walk is None else self._through(walk, len(asked) if isinstance(asked, list) else 1)

        return counted

    def _through(self, walk: Iterator[object], count: int) -> Iterator[object]:
        self.walks.append(count)
        for step in walk:
            self.steps += 1
            yield step
            self.reached.set()
            assert self.go.wait(PATIENCE)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    made = Held(monkeypatch)
    yield made
    made.go.set()


# What is drawn


@pytest.mark.parametrize(
    "request_",
    [
        USUAL,
        seeded(5, batch_size=2, exact=True),
        seeded(7, sampler="euler_ancestral"),
        Request(task="class2img", label="pizza", seed=4, steps=2, width=SIZE, height=SIZE),
        Request(task="img2img", image=data_url(Image.new("RGB", (SIZE, SIZE), "red")), seed=4, steps=4),
        Request(task="img2img", image=data_url(Image.new("RGB", (SIZE, SIZE), "red")), seed=4, steps=4, strength=0.0),
    ],
    ids=["txt2img", "exact batch", "ancestral", "class2img", "img2img", "no step"],
)
def test_a_picture_is_byte_for_byte_the_one_that_python_draws(
    make: Made, model: LatentDiffusion, tmp_path: Path, request_: Request
) -> None:
    engine = make()
    job = ended(engine, submit(engine, request_))
    assert (job.state, job.error, job.pictures) == ("done", None, request_.batch_size)
    expected = tintype.generate(model, request_)
    for position, picture in enumerate(expected):
        save(picture, tmp_path / "expected.png")
        assert engine.path(job.id, position).read_bytes() == (tmp_path / "expected.png").read_bytes()
    kept = engine.store.kept("ada", before=None, count=9)
    assert [(one.job, one.position, one.seed) for one in reversed(kept)] == [
        (job.id, position, seed) for position, seed in enumerate(request_.seeds)
    ]
    assert "data:" not in str(job.request)


def test_waiting_requests_that_go_together_are_drawn_in_one_walk(
    make: Made, model: LatentDiffusion, held: Held
) -> None:
    engine = make(batch=4)
    first = submit(engine, seeded(1, steps=2))
    assert held.reached.wait(PATIENCE)
    others = [submit(engine, seeded(seed)) for seed in (2, 3, 4)]
    exact = submit(engine, seeded(5, exact=True))
    double = submit(engine, seeded(6, batch_size=2))
    held.go.set()
    for job in (first, *others, exact, double):
        assert ended(engine, job).state == "done"
    assert held.walks == [1, 3, 1, 1]  # two more do not fit beside the three
    alone = tintype.generate(model, seeded(3))[0]
    with Image.open(engine.path(others[1].id, 0)) as together:
        assert np.abs(np.asarray(together).astype(int) - np.asarray(alone).astype(int)).max() <= 1


def test_pictures_that_take_no_step_go_together_too(make: Made, held: Held) -> None:
    engine = make()
    submit(engine)
    assert held.reached.wait(PATIENCE)
    image = data_url(Image.new("RGB", (SIZE, SIZE), "red"))
    still = Request(task="img2img", image=image, strength=0.0, steps=3, seed=1)
    jobs = [submit(engine, dataclasses.replace(still, seed=seed)) for seed in (1, 2)]
    held.go.set()
    assert [ended(engine, job).state for job in jobs] == ["done", "done"]
    assert held.walks == [1, 2]


@pytest.mark.parametrize("first", ["branch", "whole"])
def test_a_branch_is_drawn_alone_whatever_waits_beside_it(
    make: Made, model: LatentDiffusion, held: Held, first: str
) -> None:
    held.go.set()
    engine = make()
    kept = ended(engine, submit(engine, seeded(1, steps=4), keep=True))
    held.go.clear()
    held.reached.clear()
    submit(engine)
    assert held.reached.wait(PATIENCE)
    held.walks.clear()
    asked = seeded(2, steps=4, prompt="two dogs")
    branch = f"{kept.id}:1"
    jobs = [submit(engine, asked, branch=branch if is_branch else None) for is_branch in (first == "branch", False)]
    jobs += [submit(engine, asked, branch=branch if first == "whole" else None), submit(engine, asked)]
    held.go.set()
    assert [ended(engine, job).state for job in jobs] == ["done"] * 4
    assert held.walks == ([1, 3] if first == "branch" else [3, 1])
    resolved, step = resolve(model, asked), engine.past.step(branch)
    branched = generation.last(generation.steps_from(model, resolved, step))
    for job in jobs:
        expected = branched if job.branch else generation.last(generation.steps(model, resolved))
        [picture] = generation.finish(model, resolved, expected)
        with Image.open(engine.path(job.id, 0)) as found:
            assert np.abs(np.asarray(found).astype(int) - np.asarray(picture).astype(int)).max() <= 1


# What ends early


def test_a_waiting_job_that_is_cancelled_never_begins(make: Made, held: Held) -> None:
    engine = make()
    first = submit(engine)
    assert held.reached.wait(PATIENCE)
    waiting = submit(engine)
    assert engine.cancel(waiting.id)
    assert ended(engine, waiting).fault == "cancelled"
    assert not engine.cancel(waiting.id)
    held.go.set()
    assert ended(engine, first).state == "done"
    assert held.walks == [1]
    assert not engine.cancel(first.id)
    assert not engine.cancel("nobody")


def test_a_job_that_is_cancelled_while_it_is_drawn_ends_before_the_next_step(make: Made, held: Held) -> None:
    engine = make()
    job = submit(engine, seeded(1, steps=50))
    assert held.reached.wait(PATIENCE)
    assert engine.cancel(job.id)
    assert engine.cancel(job.id)
    held.go.set()
    assert ended(engine, job).state == "cancelled"
    assert held.steps <= 2
    assert list(engine.pictures.iterdir()) == []
    assert ended(engine, submit(engine)).state == "done"


def test_of_those_drawn_together_one_is_cancelled_at_once_and_the_others_go_on(make: Made, held: Held) -> None:
    engine = make()
    submit(engine)
    assert held.reached.wait(PATIENCE)
    kept, left = submit(engine, seeded(1, steps=20)), submit(engine, seeded(2, steps=20))
    held.reached.clear()
    held.go.set()
    wait_until(lambda: 2 in held.walks)
    held.go.clear()
    assert engine.cancel(left.id)
    steps = held.steps
    held.go.set()
    assert ended(engine, left).state == "cancelled"
    assert held.steps - steps < 19  # not at the end of the walk
    assert ended(engine, kept).state == "done"
    assert not engine.path(left.id, 0).exists()


def test_a_cancellation_while_the_model_opens_is_heard(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    opening, go, real = threading.Event(), threading.Event(), engine.models.open

    def slow(name: str) -> LatentDiffusion:
        opening.set()
        assert go.wait(PATIENCE)
        return real(name)

    monkeypatch.setattr(engine.models, "open", slow)
    job = submit(engine)
    assert opening.wait(PATIENCE)
    assert engine.cancel(job.id)
    go.set()
    assert ended(engine, job).state == "cancelled"
    assert ended(engine, submit(engine)).state == "done"
    assert not engine.path(job.id, 0).exists()


def test_a_cancellation_while_the_picture_is_written_leaves_no_picture(
    make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, jobs = make(), list[Job]()

    def cancelling(picture: Image.Image, path: Path) -> None:
        save(picture, path)
        assert engine.cancel(jobs[0].id)

    monkeypatch.setattr("tintype.tasks.infotext.save", cancelling)
    with engine._bell:  # so that it is known before it begins
        jobs.append(submit(engine))
    assert ended(engine, jobs[0]).state == "cancelled"
    time.sleep(0.05)
    assert list(engine.pictures.iterdir()) == []


def test_time_runs_out_for_those_that_wait_and_for_those_that_are_drawn(
    make: Made, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "PATIENCE", 0.0)
    engine = make()
    drawn = submit(engine, seeded(1, steps=50), deadline=time.time() + 3600)
    assert held.reached.wait(PATIENCE)
    running = engine._running[drawn.id]
    running.job = dataclasses.replace(running.job, deadline=time.time() - 1)
    waiting = submit(engine, deadline=time.time() - 1)
    held.go.set()
    for job, words in ((drawn, "while it was drawn"), (waiting, "while it waited")):
        now = ended(engine, job)
        assert (now.state, now.fault) == ("expired", "expired")
        assert words in (now.error or "")
    assert held.steps <= 2


def test_time_runs_out_for_those_that_wait_while_another_is_drawn(
    make: Made, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "PATIENCE", 0.0)
    engine = make()
    drawn = submit(engine, seeded(1, steps=5))
    assert held.reached.wait(PATIENCE)
    waiting = submit(engine, deadline=time.time() - 1)
    held.go.set()
    late, done = ended(engine, waiting), ended(engine, drawn)
    assert (late.state, done.state) == ("expired", "done")
    assert (late.ended or 0) < (done.ended or 0)


class Deep:
    """Holds the network's first layer until it is let go, and counts how often its last one is asked."""

    def __init__(self, model: LatentDiffusion) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self.ends = 0
        layers = [one for one in model.denoiser.network.modules() if not list(one.children())]
        self.handles = [layers[0].register_forward_hook(self._hold), layers[-1].register_forward_hook(self._count)]

    def _hold(self, *given: object) -> None:
        self.reached.set()
        assert self.go.wait(PATIENCE)

    def _count(self, *given: object) -> None:
        self.ends += 1


@pytest.fixture
def deep(model: LatentDiffusion) -> Iterator[Deep]:
    made = Deep(model)
    yield made
    made.go.set()
    for handle in made.handles:
        handle.remove()


@pytest.mark.parametrize("count", [1, 2])
def test_a_cancellation_in_the_middle_of_a_step_is_heard_before_the_next_layer(
    make: Made, deep: Deep, count: int
) -> None:
    engine = make(start=False)
    jobs = [submit(engine, seeded(seed)) for seed in range(count)]
    engine.start()
    assert deep.reached.wait(PATIENCE)
    assert all(engine.cancel(job.id) for job in jobs)
    deep.go.set()
    assert [ended(engine, job).fault for job in jobs] == ["cancelled"] * count
    assert deep.ends == 0
    assert list(engine.pictures.iterdir()) == []
    assert ended(engine, submit(engine)).state == "done"
    assert deep.ends == USUAL.steps
    assert not torch.nn.modules.module._global_forward_pre_hooks  # it looks up no more


def test_time_that_runs_out_in_the_middle_of_a_step_is_heard_before_the_next_layer(make: Made, deep: Deep) -> None:
    engine = make()
    job = submit(engine, deadline=time.time() + 3)
    assert deep.reached.wait(PATIENCE)
    wait_until(lambda: bool(torch.nn.modules.module._global_forward_pre_hooks))
    deep.go.set()
    assert ended(engine, job).state == "expired"
    assert deep.ends == 0


def test_of_two_in_a_step_one_is_cancelled_and_the_other_goes_on(make: Made, deep: Deep) -> None:
    engine = make(start=False)
    left, kept = submit(engine, seeded(1)), submit(engine, seeded(2))
    engine.start()
    assert deep.reached.wait(PATIENCE)
    assert engine.cancel(left.id)
    deep.go.set()
    assert (ended(engine, left).state, ended(engine, kept).state) == ("cancelled", "done")
    assert deep.ends == USUAL.steps


def test_one_that_is_drawn_alone_after_a_batch_broke_off_hears_it_as_soon(
    make: Made, deep: Deep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "steps_together", _without_room)
    engine = make(start=False)
    left, kept = submit(engine, seeded(1)), submit(engine, seeded(2))
    engine.start()
    assert deep.reached.wait(PATIENCE)
    assert engine.running == 2
    assert engine.cancel(left.id)
    deep.go.set()
    assert (ended(engine, left).state, ended(engine, kept).state) == ("cancelled", "done")
    assert deep.ends == USUAL.steps  # of the other alone


def test_a_stop_in_the_middle_of_a_step_ends_it_before_the_next_layer(make: Made, deep: Deep) -> None:
    engine = make()
    drawn, waiting = submit(engine), submit(engine, seeded(2, steps=4))
    assert deep.reached.wait(PATIENCE)
    stopping = threading.Thread(target=engine.stop, kwargs={"grace": 0})
    stopping.start()
    wait_until(lambda: engine._abandoned)
    deep.go.set()
    stopping.join(PATIENCE)
    assert not engine._thread.is_alive()
    assert deep.ends == 0
    again = make(start=False)
    assert [again.store.get(job.id).state for job in (drawn, waiting)] == ["interrupted", "queued"]  # pyright: ignore


# What goes wrong


def test_what_the_open_model_cannot_do_is_refused_at_once_and_else_when_its_turn_comes(make: Made) -> None:
    wrong = seeded(1, width=36)
    engine = make()
    with pytest.raises(ValueError, match="width 36"):
        submit(engine, wrong)
    stored = engine.store.add(given(wrong), Terms(model="default", owner="ada"), limit=9)[0]
    submit(engine)
    now = ended(engine, stored)
    assert (now.state, now.fault) == ("failed", "invalid")
    assert "width 36" in (now.error or "")


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (KeyError("a fault of ours"), "internal"),
        (FloatingPointError("not numbers"), "not_numbers"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_job_that_raises_ends_and_the_next_one_is_drawn(
    make: Made, monkeypatch: pytest.MonkeyPatch, error: Exception, fault: str
) -> None:
    real = generation.steps

    def raising(model: LatentDiffusion, request: Request) -> Iterator[object]:
        walk = real(model, request)
        yield next(walk)
        if request.seed == 1:
            raise error
        yield from walk

    monkeypatch.setattr(generation, "steps", raising)
    engine = make()
    now = ended(engine, submit(engine, seeded(1)))
    assert (now.state, now.fault) == ("failed", fault)
    assert "a fault of ours" not in (now.error or "")
    assert ended(engine, submit(engine, seeded(2))).state == "done"


def test_the_fault_of_one_is_not_told_to_those_beside_it(
    make: Made, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture whose header is good and whose pixels are not there: seen only when it is read."""
    engine = make()
    submit(engine)
    assert held.reached.wait(PATIENCE)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))
    begun = Request(task="img2img", image=data_url(noise), prompt="a red apple", seed=1, steps=4)
    good, bad = submit(engine, begun), submit(engine, dataclasses.replace(begun, seed=2))
    real = generation.finish

    def raising(model: LatentDiffusion, request: Request, step: object) -> list[Image.Image]:
        if request.seed == 2:
            raise FloatingPointError("not numbers")
        return real(model, request, step)  # pyright: ignore

    monkeypatch.setattr(generation, "finish", raising)
    held.go.set()
    assert ended(engine, good).state == "done"
    assert ended(engine, bad).fault == "not_numbers"
    assert held.walks == [1, 2]


def _unplanned(*given: object) -> Iterator[object]:
    raise ValueError("another's picture is damaged")


def _without_room(*given: object) -> Iterator[object]:
    raise RuntimeError("can't allocate memory")
    yield


@pytest.mark.parametrize("raising", [_unplanned, _without_room])
def test_what_cannot_be_drawn_together_is_drawn_alone(
    make: Made, held: Held, monkeypatch: pytest.MonkeyPatch, raising: Callable[..., Iterator[object]]
) -> None:
    engine = make()
    submit(engine)
    assert held.reached.wait(PATIENCE)
    monkeypatch.setattr(generation, "steps_together", raising)
    jobs = [submit(engine, seeded(seed)) for seed in (1, 2)]
    held.go.set()
    assert [ended(engine, job).state for job in jobs] == ["done", "done"]


def test_a_batch_that_breaks_off_and_is_drawn_alone_keeps_each_step_once(
    make: Made, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    submit(engine)
    assert held.reached.wait(PATIENCE)
    together = generation.steps_together

    def breaking_off(model: LatentDiffusion, requests: list[Request]) -> Iterator[object]:
        walk = together(model, requests)
        assert walk is not None
        yield from itertools.islice(walk, 2)
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(generation, "steps_together", breaking_off)
    jobs = [submit(engine, seeded(seed, steps=4), keep=True) for seed in (1, 2)]
    held.go.set()
    for job in jobs:
        assert ended(engine, job).state == "done"
        kept = load_tensors(engine.past.trace(job.id).path)
        assert kept["place"].tolist() == [[step, 4] for step in range(4)]
        assert len(kept["sigma"]) == 4
    assert held.walks == [1, 2, 1, 1]


def test_steps_that_are_too_many_to_be_kept_are_told_at_once_or_when_the_model_is_open(make: Made) -> None:
    many = Request(prompt="a", steps=150, width=512, height=512, batch_size=4)
    sentence = "keep_steps: they take 300 MiB, of which 256 are kept; ask for fewer steps"
    engine = make(start=False)
    opened, engine.models._open = engine.models._open, None
    early = submit(engine, many, keep=True)
    engine.models._open = opened
    with pytest.raises(ValueError, match=sentence):
        submit(engine, many, keep=True)
    engine.start()
    now = ended(engine, early)
    assert (now.state, now.fault, now.error) == ("failed", "invalid", sentence)
    assert ended(engine, submit(engine)).state == "done"


def test_pictures_that_cannot_be_removed_stop_nobody(make: Made, held: Held) -> None:
    engine = make()
    job = submit(engine)
    assert held.reached.wait(PATIENCE)
    for path in (engine.path(job.id, 0), engine.past.trace(job.id).path):
        path.mkdir()  # nor can it be written there
    held.go.set()
    assert ended(engine, job).state == "failed"
    assert ended(engine, submit(engine)).state == "done"
    assert engine.remove(job.id)


def test_a_full_disk_leaves_no_part_of_a_picture(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    real, calls = Image.Image.save, 0

    def full(picture: Image.Image, target: object, **given: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            assert isinstance(target, Path)
            target.write_bytes(b"half a picture")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(picture, target, **given)  # pyright: ignore

    monkeypatch.setattr(Image.Image, "save", full)
    now = ended(engine, submit(engine, seeded(1, batch_size=2, exact=True)))
    assert (now.state, now.fault, now.pictures) == ("failed", "no_space", 0)
    assert list(engine.pictures.iterdir()) == []
    assert ended(engine, submit(engine)).state == "done"


def test_a_queue_that_cannot_be_written_is_mended_when_there_is_room(
    make: Made, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "PATIENCE", 0.02)
    engine = make()
    job = submit(engine)
    assert held.reached.wait(PATIENCE)
    engine.store._file.execute("CREATE TRIGGER full BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'full'); END")
    held.go.set()
    wait_until(lambda: engine._unwritten)
    now = engine.store.get(job.id)
    assert now is not None
    assert now.state == "running"
    engine.store._file.execute("DROP TRIGGER full")
    assert ended(engine, job).state == "interrupted"
    assert ended(engine, submit(engine)).state == "done"


def test_a_model_that_cannot_be_opened_is_told_to_whoever_asks(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("the weights are gone")

    engine = make(start=False)
    engine.models._open = None
    monkeypatch.setattr(engine.models, "open", broken)
    engine.start()
    engine._thread.join(PATIENCE)
    assert not engine.ready.is_set()
    assert "the weights are gone" in (engine.failure or "")
    with pytest.raises(Draining, match="the weights are gone"):
        submit(engine)


# The end, and the start after it


def test_a_stop_finishes_what_is_drawn_and_keeps_what_waits(make: Made, held: Held) -> None:
    engine = make()
    drawn = submit(engine)
    assert held.reached.wait(PATIENCE)
    waiting = [submit(engine, seeded(seed)) for seed in range(5)]
    threading.Timer(0.1, held.go.set).start()
    engine.stop(grace=PATIENCE)
    with pytest.raises(Draining):
        submit(engine)
    again = make(start=False)
    assert [again.store.get(job.id).state for job in (drawn, *waiting)] == ["done", *["queued"] * 5]  # pyright: ignore
    again.start()
    assert [ended(again, job).state for job in waiting] == ["done"] * 5


def test_what_takes_longer_than_the_grace_is_interrupted(make: Made, held: Held) -> None:
    engine = make()
    drawn = submit(engine, seeded(1, steps=50))
    assert held.reached.wait(PATIENCE)
    threading.Timer(0.4, held.go.set).start()
    began = time.monotonic()
    engine.drain()
    time.sleep(0.2)
    engine.stop(grace=0.3)  # counted from where the draining began
    assert time.monotonic() - began < 5
    again = make(start=False)
    now = again.store.get(drawn.id)
    assert now is not None
    assert (now.state, now.fault) == ("interrupted", "interrupted")
    assert list(engine.pictures.iterdir()) == []


def test_a_start_marks_what_ran_and_removes_what_was_half_written(make: Made) -> None:
    before = make(start=False)
    job = submit(before)
    before.store.begin([job.id])
    for name in (f"{job.id}-0.png", f".{job.id}-1.png.x1y2z3.tmp"):
        (before.pictures / name).write_bytes(b"half")
    before.store.close()
    after = make()
    assert ended(after, job).state == "interrupted"
    assert list(after.pictures.iterdir()) == []
    assert after.remove(job.id)


def test_no_more_wait_than_may(make: Made, held: Held) -> None:
    engine = make(queue=2)
    submit(engine)
    assert held.reached.wait(PATIENCE)
    submit(engine), submit(engine)
    with pytest.raises(Full):
        submit(engine)
    assert engine.pause >= 1


# Watching


def test_a_watcher_is_poked_at_each_step_and_previews_are_drawn_for_those_who_look(
    make: Made, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    real = generation.decode

    def counted(model: LatentDiffusion, wrapped: torch.Tensor, **given: object) -> list[Image.Image]:
        decoded.append(len(wrapped))
        return real(model, wrapped, **given)  # pyright: ignore

    engine = make()
    monkeypatch.setattr(generation, "decode", counted)
    job = submit(engine, seeded(1, steps=6))
    seen: list[Progress] = []
    unwatch = engine.watchers.add(job.id, lambda: seen.append(engine.progress(job.id)), previews=True)
    held.go.set()
    assert ended(engine, job).state == "done"
    time.sleep(0.05)
    shown = [one for one in seen if one.step]
    assert [one.step for one in shown] == sorted({one.step for one in shown})
    assert {one.count for one in shown} == {6}
    assert shown[-1].previews >= 1
    assert Image.open(io.BytesIO(shown[-1].preview or b"")).size == (SIZE, SIZE)
    unwatch()
    unwatch()
    assert len(engine.watchers) == 0
    decoded.clear()
    seen.clear()
    other = submit(engine, seeded(2, steps=6))
    quiet = engine.watchers.add(other.id, lambda: None)
    assert ended(engine, other).state == "done"
    quiet()
    assert decoded == [1]  # the picture itself
    assert seen == []


def test_previews_take_a_twentieth_of_the_time_at_most(make: Made, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which a step and a preview take a second each."""
    shown: list[int] = []
    real = generation.decode

    def counted(*given: object, **named: object) -> list[Image.Image]:
        shown.append(held.steps)
        return real(*given, **named)  # pyright: ignore

    clock = SimpleNamespace(
        time=time.time, monotonic=time.monotonic, sleep=time.sleep, perf_counter=lambda: held.steps + len(shown)
    )
    monkeypatch.setattr(generation, "decode", counted)
    monkeypatch.setattr(engines, "time", clock)
    engine = make()
    job = submit(engine, seeded(1, steps=50))
    unwatch = engine.watchers.add(job.id, lambda: None, previews=True)
    held.go.set()
    assert ended(engine, job).state == "done"
    unwatch()
    previews, picture = shown[:-1], shown[-1]
    assert picture == 50
    assert previews == [1, 20, 39]  # 19 steps and a preview


# Models


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models"
    packaged = Path(str(resources.files("tintype.weights") / "default"))
    shutil.copytree(packaged, made / "below" / "other")
    return made


def rss() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def test_twenty_switches_of_models_take_no_memory(make: Made, folder: Path) -> None:
    engine = make(models=folder)
    names = ["below/other", "default"]
    for name in names:
        assert ended(engine, submit(engine, model=name)).state == "done"
    before = rss()
    for name in names * 10:
        assert ended(engine, submit(engine, model=name)).state == "done"
    assert rss() < 1.05 * before
    assert engine.models.current is not None
    assert engine.models.current[0] == "default"


def test_jobs_of_other_models_are_not_drawn_together(make: Made, folder: Path, held: Held) -> None:
    engine = make(models=folder)
    submit(engine)
    assert held.reached.wait(PATIENCE)
    jobs = [submit(engine, model=name) for name in ("default", "below/other", "default")]
    held.go.set()
    assert [ended(engine, job).state for job in jobs] == ["done"] * 3
    assert held.walks == [1, 2, 1]


@pytest.mark.parametrize(
    "name",
    ["../outside", "below/../../outside", "/etc", "/etc/passwd", "below\0", "", ".", "..", "link", "file.safetensors",
     "pickled.ckpt", "disguised.safetensors", "hub/like", "below/other/", "below//other", "below\\other", "C:below"],
)  # fmt: skip
def test_names_reach_nothing_but_what_is_served(make: Made, folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(folder / "below" / "other", outside)
    (folder / "link").symlink_to(outside)
    (folder / "file.safetensors").symlink_to(outside / "unet.safetensors")
    torch.save({"a": torch.zeros(1)}, folder / "pickled.ckpt")
    shutil.copyfile(folder / "pickled.ckpt", folder / "disguised.safetensors")
    engine = make(models=folder, start=False)
    if name:  # an empty one is the task's own
        with pytest.raises(Unknown, match="model"):
            submit(engine, model=name)
    assert engine.store.line() == []
    listed = {one.name for one in engine.models.listed() if not one.pickled}
    assert listed == {*embedded(), "below/other", "disguised.safetensors"}
    assert engine.models.check("below/other").path == folder / "below" / "other"


def test_a_folder_of_pickled_parts_is_not_served(make: Made, folder: Path) -> None:
    (folder / "hers" / "unet").mkdir(parents=True)
    (folder / "hers" / "model_index.json").write_text("{}")
    torch.save({}, folder / "hers" / "unet" / "diffusion_pytorch_model.bin")
    models = make(models=folder, start=False).models
    with pytest.raises(Unknown, match="safetensors files are served"):
        models.check("hers")
    shutil.copyfile(
        folder / "below" / "other" / "unet.safetensors",
        folder / "hers" / "unet" / "diffusion_pytorch_model.safetensors",
    )
    assert not models.check("hers").pickled


def test_names_that_are_no_text_and_folders_that_are_gone_harm_nothing(make: Made, folder: Path) -> None:
    (folder / os.fsdecode(b"\xff\xfe.safetensors")).write_bytes(b"")
    (folder / "default").mkdir()
    (folder / "default" / "model.json").write_text("{}")
    models = make(models=folder, start=False).models
    assert [one.name for one in models.listed()] == [*embedded(), "below/other"]
    assert models.check("default").path is None
    shutil.rmtree(folder)
    assert [one.name for one in models.listed()] == embedded()


def test_a_fault_between_two_jobs_is_logged_and_the_worker_goes_on(
    make: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "PATIENCE", 0.02)
    engine = make(start=False)
    real, faults = engine._expire, [RuntimeError("a fault of ours")]

    def faulty() -> None:
        if faults:
            raise faults.pop()
        real()

    monkeypatch.setattr(engine, "_expire", faulty)
    job = submit(engine)
    engine.start()
    assert ended(engine, job).state == "done"
    assert any(one.exc_info and "a fault of ours" in str(one.exc_info[1]) for one in caplog.records)
