"""What is asked of the server and what becomes of it: jobs, and the store that outlives the process.

One SQLite file in WAL mode. Every change is one transaction, with the system before it is told to anyone, so a process
that is killed loses no job: those that waited wait again, and the one that ran is marked `interrupted`. A machine that
loses its power may lose what happened since the last `flush`.
"""

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from tintype.common.config import Json, from_json, to_json
from tintype.common.files import flush
from tintype.tasks.request import NAMED, Request

State = Literal["queued", "running", "done", "failed", "cancelled", "expired", "interrupted"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled", "expired", "interrupted")
SHOWN = 40  # characters of a picture in a request, of which the whole lies apart
FORMAT = 2  # of the tables; a file of another is refused, never guessed at
TABLES = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, owner TEXT NOT NULL, key TEXT, state TEXT NOT NULL,
    model TEXT NOT NULL, request TEXT NOT NULL, digest TEXT NOT NULL, priority INTEGER NOT NULL, deadline REAL,
    created REAL NOT NULL, started REAL, ended REAL, error TEXT, fault TEXT, warnings TEXT NOT NULL,
    steps INTEGER NOT NULL DEFAULT 0, pictures INTEGER NOT NULL DEFAULT 0, keep INTEGER NOT NULL DEFAULT 0, branch TEXT
) STRICT;
CREATE TABLE inputs (job TEXT NOT NULL, name TEXT NOT NULL, picture TEXT NOT NULL, PRIMARY KEY (job, name)) STRICT;
CREATE INDEX waiting ON jobs (priority DESC, number) WHERE state = 'queued';
CREATE UNIQUE INDEX keys ON jobs (owner, key) WHERE key IS NOT NULL;
CREATE INDEX owned_jobs ON jobs (owner, number);
CREATE TABLE pictures (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, position INTEGER NOT NULL, owner TEXT NOT NULL,
    created REAL NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, seed INTEGER NOT NULL,
    prompt TEXT NOT NULL, UNIQUE (job, position)
) STRICT;
CREATE INDEX owned_pictures ON pictures (owner, number);
"""


class Full(Exception):
    """No more may wait."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} jobs wait already")
        self.waiting = waiting


class Taken(ValueError):
    """A key that another request was asked for with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """On which terms a picture is asked for. `model`: its name, empty for the embedded one of the task; `deadline`:
    seconds since the epoch; `key`: the owner's own name for the job, who asks again with it gets the same one; `keep`:
    whether its steps are kept; `branch`: «JOB:STEP», the kept step of another that it goes on from."""

    owner: str
    model: str = ""
    priority: int = 0
    deadline: float | None = None
    key: str | None = None
    keep: bool = False
    branch: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Job(Terms):
    """`request`: the fields of a `Request` that were given, as JSON, of pictures only the beginning (`Store.inputs` has
    the whole). `digest`: of all that was asked. `number`: the order in which jobs came. `fault`: a word for what went
    wrong, `error` a sentence; `warnings`: what the model did not take from the request; `steps`: how many it took."""

    id: str
    number: int
    state: State
    request: dict[str, object]
    digest: str
    created: float
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    fault: str | None = None
    warnings: tuple[str, ...] = ()
    steps: int = 0
    pictures: int = 0


def given(request: Request) -> dict[str, Json]:
    """The request as JSON, without what is as usual."""
    values = to_json(request)
    assert isinstance(values, dict)
    usual = {field.name: to_json(field.default) for field in fields(Request)}
    return {name: value for name, value in values.items() if value != usual[name]}


def asked(job: Job, inputs: Mapping[str, str] | None = None) -> Request:
    """The request of a job, with its pictures where they are given."""
    return from_json(Request, job.request | dict(inputs or {}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A finished picture, as the gallery lists it."""

    number: int
    job: str
    position: int
    created: float
    width: int
    height: int
    seed: int
    prompt: str


class Store:
    """Jobs and pictures in a file. Any thread may use it; calls take turns. Raises `ValueError` for a file that is none
    of ours; `sqlite3.OperationalError` where the disk takes no more, and then nothing has changed."""

    def __init__(self, path: Path) -> None:
        self._turn = threading.Lock()
        self._log = path.with_name(f"{path.name}-wal")
        self.count = 0  # of jobs that wait, to be read by whoever cannot wait for a turn
        try:
            self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
            self._file.row_factory = sqlite3.Row
            self._prepare(path)
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{path}: {error}; expected a queue that tintype wrote; name another folder with --data"
            ) from error

    def _prepare(self, path: Path) -> None:
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = NORMAL")  # the disk is waited for by `flush` alone
        with self._changing():
            (found,) = self._file.execute("PRAGMA user_version").fetchone()
            if found == 0:
                for statement in TABLES.split(";\n"):
                    self._file.execute(statement)
                self._file.execute(f"PRAGMA user_version = {FORMAT}")
            elif found != FORMAT:
                raise ValueError(f"{path} is of format {found}; expected {FORMAT}: name another folder with --data")
        flush(path.parent)  # the names of its files

    def add(self, request: Mapping[str, object], terms: Terms, *, limit: int) -> tuple[Job, bool]:
        """A new job at its place in the queue, or the one that this owner's key was given to before (False). Raises
        `Full` where `limit` jobs wait already, `Taken` for the key of another request."""
        inputs = {name: value for name, value in request.items() if name in NAMED and isinstance(value, str)}
        whole = [dict(request), terms.model, terms.keep, terms.branch]
        digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        with self._changing():
            if terms.key is not None:
                known = self._file.execute("SELECT * FROM jobs WHERE owner = ? AND key = ?", (terms.owner, terms.key))
                row = known.fetchone()
                if row is not None and row["digest"] != digest:
                    raise Taken(f"key {terms.key!r}: another request was asked for with it; expected one of its own")
                if row is not None:
                    return _job(row), False
            (waiting,) = self._file.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()
            if waiting >= limit:
                raise Full(waiting)
            (last,) = self._file.execute("SELECT coalesce(max(number), 0) FROM jobs").fetchone()
            job = Job(
                id=secrets.token_hex(8),
                number=last + 1,
                state="queued",
                request={**request, **{name: _beginning(picture) for name, picture in inputs.items()}},
                digest=digest,
                created=time.time(),
                **asdict(terms),
            )
            row = asdict(job) | {"request": json.dumps(job.request), "warnings": json.dumps(job.warnings)}
            self._file.execute(f"INSERT INTO jobs ({', '.join(row)}) VALUES (:{', :'.join(row)})", row)
            self._file.executemany("INSERT INTO inputs VALUES (?, ?, ?)", [(job.id, *one) for one in inputs.items()])
            return job, True

    def inputs(self, id: str) -> dict[str, str]:
        """The pictures that a job begins with, by their fields, until it ends."""
        with self._turn:
            rows = self._file.execute("SELECT name, picture FROM inputs WHERE job = ?", (id,)).fetchall()
        return {row["name"]: row["picture"] for row in rows}

    def get(self, id: str) -> Job | None:
        return next(self._jobs("WHERE id = ?", (id,)), None)

    def line(self) -> list[str]:
        """The ids of all that wait, in order."""
        with self._turn:
            rows = self._file.execute(
                "SELECT id FROM jobs WHERE state = 'queued' ORDER BY priority DESC, number"
            ).fetchall()
        return [row["id"] for row in rows]

    def late(self, now: float) -> list[str]:
        """The ids of those whose time ran out while they waited."""
        with self._turn:
            rows = self._file.execute("SELECT id FROM jobs WHERE state = 'queued' AND deadline < ?", (now,)).fetchall()
        return [row["id"] for row in rows]

    def recent(self, owner: str | None, count: int) -> list[Job]:
        """The last jobs of an owner, or of all, newest first."""
        whose, values = ("", ()) if owner is None else ("WHERE owner = ? ", (owner,))
        return list(self._jobs(f"{whose}ORDER BY number DESC LIMIT ?", (*values, count)))

    def begin(self, ids: Sequence[str]) -> list[Job]:
        """Those of these that still wait, now running."""
        with self._changing():
            begun = [
                row
                for id in ids
                for row in self._file.execute(
                    "UPDATE jobs SET state = 'running', started = ? WHERE id = ? AND state = 'queued' RETURNING *",
                    (time.time(), id),
                )
            ]
        return [_job(row) for row in begun]

    def end(
        self,
        id: str,
        state: State,
        *,
        fault: str | None = None,
        error: str | None = None,
        request: Mapping[str, object] | None = None,
        warnings: Sequence[str] = (),
        steps: int = 0,
        pictures: Sequence[tuple[int, int, int]] = (),
    ) -> bool:
        """Whether it had not ended before. `request`: what is kept in place of the one that was asked; `pictures`:
        (width, height, seed) of each."""
        now = time.time()
        with self._changing():
            row = self._file.execute(
                "SELECT owner, request FROM jobs WHERE id = ? AND state IN ('queued', 'running')", (id,)
            ).fetchone()
            if row is None:
                return False
            kept = json.loads(row["request"]) if request is None else dict(request)
            self._file.execute(
                "UPDATE jobs SET state = ?, ended = ?, fault = ?, error = ?, warnings = ?, steps = ?, pictures = ?,"
                " request = ? WHERE id = ?",
                (state, now, fault, error, json.dumps(list(warnings)), steps, len(pictures), json.dumps(kept), id),
            )
            self._file.execute("DELETE FROM inputs WHERE job = ?", (id,))
            prompt = str(kept.get("prompt", ""))
            self._file.executemany(
                "INSERT INTO pictures (job, position, owner, created, width, height, seed, prompt)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(id, place, row["owner"], now, *one, prompt) for place, one in enumerate(pictures)],
            )
        return True

    def recover(self) -> list[Job]:
        """After a start: jobs that ran when the process died, now `interrupted`."""
        with self._changing():
            rows = self._file.execute(
                "UPDATE jobs SET state = 'interrupted', ended = ?, fault = 'interrupted',"
                " error = 'the server stopped while it ran; ask for it again' WHERE state = 'running' RETURNING *",
                (time.time(),),
            ).fetchall()
            self._file.executemany("DELETE FROM inputs WHERE job = ?", [(row["id"],) for row in rows])
        return [_job(row) for row in rows]

    def remove(self, id: str) -> bool:
        """Forget an ended job and its pictures; False where there is no such."""
        with self._changing():
            ended = ", ".join(f"'{state}'" for state in ENDED)
            gone = self._file.execute(f"DELETE FROM jobs WHERE id = ? AND state IN ({ended})", (id,)).rowcount
            if gone:
                self._file.execute("DELETE FROM pictures WHERE job = ?", (id,))
        return bool(gone)

    def kept(self, owner: str | None, *, before: int | None, count: int) -> list[Kept]:
        """Pictures of an owner, or of all, newest first, from those before this number on."""
        wheres: list[str] = []
        values: list[str | int] = []
        for column, value in (("owner = ?", owner), ("number < ?", before)):
            if value is not None:
                wheres.append(column)
                values.append(value)
        where = f"WHERE {' AND '.join(wheres)} " if wheres else ""
        columns = "number, job, position, created, width, height, seed, prompt"
        with self._turn:
            rows = self._file.execute(
                f"SELECT {columns} FROM pictures {where}ORDER BY number DESC LIMIT ?", (*values, count)
            ).fetchall()
        return [Kept(**dict(row)) for row in rows]

    def flush(self) -> None:
        """Wait until all that was written so far is on the disk."""
        flush(self._log)

    def close(self) -> None:
        with self._turn:
            self._file.close()

    def _jobs(self, rest: str, values: Sequence[object]) -> Iterator[Job]:
        with self._turn:
            rows = self._file.execute(f"SELECT * FROM jobs {rest}", tuple(values)).fetchall()
        return map(_job, rows)

    @contextmanager
    def _changing(self) -> Generator[None]:
        """A transaction."""
        with self._turn:
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield
                (waiting,) = self._file.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()
                self._file.execute("COMMIT")
                self.count = waiting
            except BaseException:
                if self._file.in_transaction:  # a full disk ends it by itself
                    self._file.execute("ROLLBACK")
                raise


def is_full(error: BaseException) -> bool:
    """Whether the disk took no more of the store."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL


def _beginning(picture: str) -> str:
    return picture if len(picture) <= SHOWN else f"{picture[:SHOWN]}…"


def _job(row: sqlite3.Row) -> Job:
    told = dict(row)
    told["request"], told["keep"] = json.loads(told["request"]), bool(told["keep"])
    told["warnings"] = tuple(json.loads(told["warnings"]))
    return Job(**told)
