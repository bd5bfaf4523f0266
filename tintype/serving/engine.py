"""The worker: takes jobs from the store in their order, draws those that go together in one batch, says how far it is.

One thread owns the model. Whoever watches a job is poked when it changes, and reads what it has become; nothing waits
for a watcher. All that is told of a job is in the store first.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tintype.common.config import Json
from tintype.serving.faults import fault_of
from tintype.serving.jobs import Job, State, Store, Terms, asked, given
from tintype.serving.models import Models, give_back
from tintype.serving.traces import Past, check_room
from tintype.serving.watchers import Watchers
from tintype.tasks.loras import read_lora
from tintype.tasks.request import MODELS, Request

if TYPE_CHECKING:
    from tintype.diffusion.step import Step
    from tintype.families.base import LatentDiffusion

log = logging.getLogger(__name__)

LOOKED_AT = 32  # waiting jobs that may join a batch
SHARE = 0.05  # of the time may go into previews
BETWEEN = 0.04  # seconds between two steps that are told: each takes time from the drawing
PATIENCE = 1.0  # seconds between two looks for jobs whose time has run out


class Draining(Exception):
    """The server takes nothing new: it is stopping, or its model cannot be opened."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Steps done and to do; `left`: seconds to the end, as far as can be told; `preview`: the estimate of the picture
    so far, a PNG, where someone asked for previews; `previews`: how many there were."""

    step: int = 0
    count: int = 0
    left: float | None = None
    preview: bytes | None = None
    previews: int = 0


@dataclass(slots=True, eq=False)
class _Running:
    """A job that is drawn. `cancelled`: to end before the next step; `over`: it has ended, and what is still drawn of
    it beside others is for nobody."""

    job: Job
    request: Request = field(default_factory=Request)
    cancelled: bool = False
    over: bool = False
    progress: Progress = field(default_factory=Progress)
    trace: "list[Step]" = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    alarm: threading.Timer | None = None  # for its deadline

    @property
    def is_late(self) -> bool:
        return self.job.deadline is not None and time.time() > self.job.deadline


class _Stopped(BaseException):
    """Nobody wants any more what is drawn. No `Exception`: it is no fault of a job's."""


class Engine:
    """`pictures`: the folder of finished ones, `ID-POSITION.png`. `queue`: how many jobs may wait; `batch`: how many
    pictures are drawn together at most."""

    def __init__(self, store: Store, models: Models, pictures: Path, *, queue: int = 64, batch: int = 4) -> None:
        self.store = store
        self.models = models
        self.pictures = pictures
        self.past = Past(store, models, pictures)
        self.watchers = Watchers()
        self.queue = queue
        self.batch = batch
        self.ready = threading.Event()
        self.failure: str | None = None
        self.draining = False
        self._drained = 0.0
        self._hooks: list[Callable[[], None]] = []
        self._abandoned = False  # what is still drawn after the time for it
        self._bell = threading.Condition()  # held where jobs begin and end, so that nobody sees one in between
        self._running: dict[str, _Running] = {}
        self._drawn: list[_Running] = []  # of these what is walked through just now
        self._looked = self._told = self._next_preview = 0.0
        self._unwritten = False  # the end of a job that the disk did not take
        self._usual = 1.0  # seconds that a job takes, on average lately
        self.made = 0
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work. What ran when the process died before is marked so, and what was half written removed."""
        for path in self.pictures.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        self._recover()
        self._thread.start()

    def drain(self) -> None:
        """Take nothing new, and begin nothing."""
        with self._bell:
            if not self.draining:
                self.draining, self._drained = True, time.monotonic()
            self._bell.notify_all()

    def stop(self, *, grace: float) -> None:
        """Drain, finish what is drawn, or `grace` seconds after the draining began leave it as interrupted. What waits
        stays in the store for the next start."""
        self.drain()
        if self._thread.is_alive():
            self._thread.join(max(0.0, self._drained + grace - time.monotonic()))
        if self._thread.is_alive():
            for one in list(self._running.values()):
                self._end(one, "interrupted", fault="interrupted", error="the server stopped; ask again")
            self._abandoned = True
            self._interrupt()
            self._thread.join(10)
            self._look_away()
        self.store.close()

    def submit(self, request: Request, terms: Terms) -> Job:
        """Queue a request. Raises `ValueError` for one that its model, where it is open, cannot serve; `Unknown` for a
        model that is not there; `Full` and `Draining` where nothing more is taken."""
        if self.draining or self.failure is not None:
            raise Draining(self.failure or "the server is stopping")
        terms = replace(terms, model=terms.model or MODELS.get(request.task, "default"))
        self.models.check(terms.model)
        try:
            self._check(self.models.located(request), terms)
        except ValueError as error:
            raise ValueError(self.models.shown(str(error))) from error
        self.past.check(request, terms)
        job, _ = self.store.add(given(request), terms, limit=self.queue)
        with self._bell:
            self._bell.notify_all()
        return job

    def _check(self, request: Request, terms: Terms) -> None:
        """Raises `ValueError` for what its model cannot draw, where that is the open one."""
        from tintype.checkpoints.lora import differences
        from tintype.tasks.task import resolve

        current = self.models.current
        if current is not None and current[0] == terms.model:
            resolved = resolve(current[1], request)
            check_room(current[1], resolved, terms)
            for file, _ in map(read_lora, request.lora):
                differences(Path(file), current[1])

    def cancel(self, id: str) -> bool:
        """End a job now if it waits, before its next step if it is drawn; False where it has ended. One that was
        cancelled is never done."""
        with self._bell:
            running = self._running.get(id)
            if running is not None:
                running.cancelled = True
                self._interrupt()
                return True
            ended = self.store.end(id, "cancelled", fault="cancelled", error="cancelled before it began")
        self.watchers.tell(id)
        return ended

    def begun(self, id: str) -> Job | None:
        """The job, where it is drawn now: told without asking the disk."""
        running = self._running.get(id)
        return None if running is None or running.over else running.job

    def progress(self, id: str) -> Progress:
        running = self._running.get(id)
        return Progress() if running is None else running.progress

    def path(self, id: str, position: int) -> Path:
        return self.pictures / f"{id}-{position}.png"

    def remove(self, id: str) -> bool:
        """Forget an ended job, its pictures and its steps; False for one that goes on."""
        gone = self.store.remove(id)
        if gone:
            self._remove_pictures(id)
        return gone

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def pause(self) -> int:
        """Whole seconds after which a place in the queue may be free."""
        return max(1, min(60, round(self._usual)))

    @property
    def is_alive(self) -> bool:
        """Whether it draws what it takes."""
        return self.ready.is_set() and self._thread.is_alive() and not self.draining

    def _interrupt(self) -> None:
        """Have the worker look up before the next layer of a network that runs, not only before the next step: one may
        take minutes. Looking costs time, so it is done only when there may be something to see."""
        import torch

        def look(module: object, given: object) -> None:
            if threading.current_thread() is self._thread:
                hook.remove()
                unwanted = [one.cancelled or one.over or one.is_late for one in self._drawn]
                if self._abandoned or (unwanted and all(unwanted)):
                    raise _Stopped

        hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
        self._hooks.append(hook.remove)

    def _look_away(self) -> None:
        while self._hooks:
            self._hooks.pop()()

    # The worker's own

    def _whole(self, job: Job) -> Request:
        """What is asked for, with its pictures and the files of its LoRAs."""
        return self.models.located(asked(job, self.store.inputs(job.id)))

    def _work(self) -> None:
        try:
            self.models.open("default")
        except _Stopped:
            return
        except Exception as error:  # without it nothing can be drawn, and whoever asks is told why
            self.failure = f"the embedded model cannot be opened: {error}"
            log.exception("the embedded model cannot be opened")
            for id in self.store.line():
                self.watchers.tell(id)
            return
        self.ready.set()
        while not self.draining:
            try:
                while first := self._next():
                    self._draw(first)
                    self._drawn = []
                    self._look_away()
            except sqlite3.Error as error:  # a disk that is full, say: later there may be room
                log.error("the queue cannot be read or written: %s", error)
                time.sleep(PATIENCE)
            except Exception:  # a fault of ours: the next job may come through
                log.exception("the worker goes on after a fault")
                time.sleep(PATIENCE)

    def _next(self) -> _Running | None:
        """The job whose turn it is, begun; waits for one. None at the end."""
        while True:
            if self._unwritten:
                self._recover()
                self._unwritten = False
            with self._bell:
                while not self.draining and not self.store.line():
                    self._bell.wait()
                if self.draining:
                    return None
            self._expire()
            for begun in self._begin(self.store.line()[:1]):
                return begun

    def _begin(self, ids: Sequence[str]) -> list[_Running]:
        """Those of these that still wait, unless the server is stopping."""
        with self._bell:
            begun = [] if self.draining else [_Running(job) for job in self.store.begin(ids)]
            self._running |= {one.job.id: one for one in begun}
        for one in begun:
            if one.job.deadline is not None:
                one.alarm = threading.Timer(one.job.deadline - time.time(), self._interrupt)
                one.alarm.daemon = True
                one.alarm.start()
        return begun

    def _draw(self, first: _Running) -> None:
        """A job, and those that go with it. Where they come to nothing each is drawn alone, so that nobody is told of
        another's fault."""
        from tintype.tasks.task import resolve

        self._drawn = drawn = [first]
        try:
            model = self.models.open(first.job.model)
            first.request = resolve(model, self._whole(first.job))
            self._walk(model, self._together(model, drawn), drawn)
        except _Stopped:
            self._end_cancelled(drawn)
            return
        except Exception as error:  # whatever a job does, the worker goes on with the next
            if len(drawn) == 1:
                self._fail(first, error)
                return
            log.warning("%d jobs that were drawn together are drawn alone: %s", len(drawn), error)
        for one in drawn:
            if not one.over:
                one.trace.clear()
                self._draw_alone(one)

    def _draw_alone(self, one: _Running) -> None:
        self._drawn = [one]
        try:
            model = self.models.open(one.job.model)
            self._walk(model, self._alone(model, one), [one])
        except _Stopped:
            self._end_cancelled([one])
        except Exception as error:  # as above
            self._fail(one, error)

    def _alone(self, model: "LatentDiffusion", one: _Running) -> "Iterator[Step]":
        """The walk of one job, from its beginning or from where it branches off."""
        from tintype.generation import steps, steps_from

        if one.job.branch is None:
            return steps(model, one.request)
        return steps_from(model, one.request, self.past.step(one.job.branch))

    def _together(self, model: "LatentDiffusion", drawn: list[_Running]) -> "Iterator[Step]":
        """The walk of the first job and of those that wait and go with it, which are added to `drawn`."""
        from tintype.generation import steps_together

        first = drawn[0].request
        others = {} if drawn[0].job.branch else self._alike(model, first, drawn[0].job.model)
        try:
            walk = steps_together(model, [first, *others.values()]) if others else None
        except (ValueError, OSError):  # who is to be told of it is seen where each is drawn alone
            walk = None
        if walk is None:
            return self._alone(model, drawn[0])
        begun = {one.job.id: one for one in self._begin(list(others))}
        for id, request in others.items():
            one = begun.get(id) or _Running(drawn[0].job, over=True)  # it ended meanwhile; its rows are there
            one.request = request
            drawn.append(one)
        return walk

    def _alike(self, model: "LatentDiffusion", first: Request, name: str) -> dict[str, Request]:
        """The resolved requests of jobs that wait and go with the first one, by their ids, as many as there is room
        for."""
        from tintype.tasks.joined import alike
        from tintype.tasks.task import resolve

        found: dict[str, Request] = {}
        room = self.batch - first.batch_size
        for id in self.store.line()[:LOOKED_AT] if room > 0 and alike(first, first) else ():
            job = self.store.get(id)
            if job is None or job.model != name or job.branch:
                continue
            try:
                request = resolve(model, self._whole(job))
            except (ValueError, OSError):  # told when its turn comes
                continue
            if request.batch_size <= room and alike(first, request):
                found[id] = request
                room -= request.batch_size
            if not room:
                break
        return found

    def _walk(self, model: "LatentDiffusion", walk: "Iterator[Step]", drawn: Sequence[_Running]) -> None:
        from tintype.generation import warnings

        step: Step | None = None
        left = [one for one in drawn if not one.over and not self._ended_early(one)]
        for one in left:
            check_room(model, one.request, one.job)
            one.warnings = warnings(model, one.request)
        for step in walk if left else ():
            self._after(model, step, drawn)
            if all(one.over for one in drawn):
                return
        self._finish(model, step, drawn)

    def _after(self, model: "LatentDiffusion", step: "Step", drawn: Sequence[_Running]) -> None:
        """After each step: who is still to be drawn, and how far it is."""
        now = time.time()
        if now - self._looked > PATIENCE:
            self._expire()
        is_time = now - self._told > BETWEEN
        self._told = now if is_time else self._told
        for number, one in enumerate(drawn):
            if one.over or self._ended_early(one):
                continue
            if one.job.keep:
                one.trace.append(self._rows(step, drawn, number))
            done, count = step.index + 1, step.count
            before, shown = one.progress, self._preview(model, step, drawn, number)
            one.progress = Progress(
                step=done,
                count=count,
                left=(now - (one.job.started or now)) / done * (count - done),
                preview=shown or before.preview,
                previews=before.previews + (shown is not None),
            )
            if shown is not None or is_time:
                self.watchers.tell(one.job.id, step=True)

    def _ended_early(self, one: _Running) -> bool:
        """Whether it was cancelled, or its time ran out."""
        if one.cancelled:
            self._end(one, "cancelled", fault="cancelled", error="cancelled while it was drawn")
        elif one.is_late:
            self._end(one, "expired", fault="expired", error="its time ran out while it was drawn")
        return one.over

    def _end_cancelled(self, drawn: Sequence[_Running]) -> None:
        for one in drawn:
            if not one.over:
                self._ended_early(one)

    def _preview(self, model: "LatentDiffusion", step: "Step", drawn: Sequence[_Running], number: int) -> bytes | None:
        """The estimate of this job's first picture, where someone wants to see it and it is cheap enough."""
        from tintype.data.pictures import encode
        from tintype.generation import decode
        from tintype.tasks.tiling import endless

        one = drawn[number]
        if not self.watchers.want_previews(one.job.id) or time.perf_counter() < self._next_preview:
            return None
        started = time.perf_counter()
        [picture] = decode(endless(model, one.request), self._rows(step, drawn, number).denoised[:1])
        content = encode(picture, "png")
        ended = time.perf_counter()
        self._next_preview = ended + (ended - started) * (1 / SHARE - 1)
        return content

    def _rows(self, step: "Step", drawn: Sequence[_Running], number: int) -> "Step":
        """The part of one job in a step."""
        from tintype.generation import rows_of

        return step if len(drawn) == 1 else rows_of(step, [one.request for one in drawn])[number]

    def _finish(self, model: "LatentDiffusion", step: "Step | None", drawn: Sequence[_Running]) -> None:
        from tintype.generation import rows_of

        parts: Sequence[Step | None]
        if step is None or len(drawn) == 1:
            parts = [step] * len(drawn)
        else:
            parts = rows_of(step, [one.request for one in drawn])
        for one, part in zip(drawn, parts, strict=True):
            if one.over:
                continue
            try:
                self._keep(model, one, part)
            except Exception as error:  # those beside it have nothing to do with it
                self._fail(one, error)

    def _keep(self, model: "LatentDiffusion", one: _Running, step: "Step | None") -> None:
        """A job's pictures in their files, then the word that it is done."""
        from tintype.generation import finish
        from tintype.tasks.infotext import branched, save
        from tintype.tasks.pictures import referred

        made = finish(model, one.request, step)
        if one.job.branch is not None:
            for picture in made:
                branched(picture, one.job.branch)
        if one.job.keep:
            self.past.trace(one.job.id).save(one.trace)
        for position, picture in enumerate(made):
            save(picture, self.path(one.job.id, position))
        sizes = [(picture.width, picture.height) for picture in made]
        kept = [(*size, seed) for size, seed in zip(sizes, one.request.seeds, strict=True)]
        told = given(replace(referred(one.request), lora=asked(one.job).lora))
        with self._bell:
            if not one.over and not one.cancelled:
                self._end(one, "done", request=told, warnings=one.warnings, steps=one.progress.step, pictures=kept)
                self.made += len(made)
                self._usual += 0.2 * (time.time() - (one.job.started or time.time()) - self._usual)
                return
        self._end(one, "cancelled", fault="cancelled", error="cancelled while it was drawn")
        self._remove_pictures(one.job.id)

    def _end(
        self,
        one: _Running,
        state: State,
        *,
        fault: str | None = None,
        error: str | None = None,
        request: dict[str, Json] | None = None,
        warnings: Sequence[str] = (),
        steps: int = 0,
        pictures: Sequence[tuple[int, int, int]] = (),
    ) -> None:
        """Nothing for one that is over. Whoever watches is told after the store."""
        with self._bell:
            if one.over:
                return
            one.over = True
            if one.alarm is not None:
                one.alarm.cancel()
            self._running.pop(one.job.id, None)
            try:
                self.store.end(
                    one.job.id,
                    state,
                    fault=fault,
                    error=error,
                    request=request,
                    warnings=warnings,
                    steps=steps,
                    pictures=pictures,
                )
            except sqlite3.Error as refused:
                log.error("job %s is %s, which cannot be written: %s", one.job.id, state, refused)
                self._unwritten = True
        self.watchers.tell(one.job.id)

    def _fail(self, one: _Running, error: Exception) -> None:
        fault, sentence = fault_of(error)
        sentence = self.models.shown(sentence)
        if fault == "internal":  # a fault of ours
            log.error("job %s", one.job.id, exc_info=error)
        if fault == "out_of_memory":
            give_back()
        self._remove_pictures(one.job.id)
        self._end(one, "failed", fault=fault, error=sentence)

    def _recover(self) -> None:
        """Mark what is said to run and does not: before anything is drawn, and where the disk did not take an end."""
        self._running.clear()
        for job in self.store.recover():
            log.warning("job %s was interrupted", job.id)
            self._remove_pictures(job.id)
            self.watchers.tell(job.id)

    def _expire(self) -> None:
        """Jobs whose time ran out while they waited."""
        now = self._looked = time.time()
        try:
            for id in self.store.late(now):
                self.store.end(id, "expired", fault="expired", error="its time ran out while it waited")
                self.watchers.tell(id)
        except sqlite3.Error as error:
            log.error("jobs whose time ran out cannot be ended: %s", error)

    def _remove_pictures(self, id: str) -> None:
        for path in (*self.pictures.glob(f"{id}-*.png"), self.past.trace(id).path):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.error("%s cannot be removed: %s", path.name, error.strerror)
