"""What other programs' interfaces ask for, as requests of ours: one set of bounds, whoever asks."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from fastapi import HTTPException
from fastapi import Request as Call
from pydantic import BaseModel, ValidationError

from tintype.apps.server.schema import as_request
from tintype.apps.server.waiting import engine_of
from tintype.serving.engine import Engine
from tintype.serving.jobs import Job
from tintype.tasks.request import Request

FIELDS = frozenset(field.name for field in dataclasses.fields(Request))
JSON = dict[str, object]


class Wrong(ValueError):
    """A field with a value that cannot be; `field` as the client calls it."""

    def __init__(self, field: str | None, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


def checked(kind: type[BaseModel], values: Mapping[str, object], names: Mapping[str, str]) -> Request:
    """A request of these fields, of which `names` are called otherwise by the client; `kind`: the model of our own
    jobs. Raises `Wrong`."""
    try:
        return as_request(kind.model_validate(values).model_dump())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        raise Wrong(names.get(field, field), f"{names.get(field, field)}: {first['msg']}") from error
    except ValueError as error:
        refuse(str(error), names)


def refuse(sentence: str, names: Mapping[str, str]) -> NoReturn:
    """Our sentence about a field of ours, as one about the client's."""
    field = field_of(sentence)
    theirs = names.get(field or "", field)
    raise Wrong(theirs, sentence if field is None else sentence.replace(field, theirs or field, 1))


def field_of(sentence: str) -> str | None:
    """The field that a sentence of ours begins with."""
    found = re.match(r"(?:unknown )?(\w+)", sentence)
    return found[1] if found and found[1] in FIELDS else None


def renamed(error: HTTPException, names: Mapping[str, str]) -> HTTPException:
    """The same, its sentence about the client's field."""
    try:
        refuse(str(error.detail), names)
    except Wrong as wrong:
        return HTTPException(error.status_code, str(wrong), headers=error.headers)


def contents(engine: Engine, job: Job) -> list[bytes]:
    """The files of a job's pictures. Raises `HTTPException` where they were removed meanwhile."""
    paths: list[Path] = [engine.path(job.id, place) for place in range(job.pictures)]
    try:
        return [path.read_bytes() for path in paths]
    except OSError as error:
        raise HTTPException(410, f"the pictures of job {job.id} were removed") from error


def served(call: Call) -> list[str]:
    """Names of the models that can be asked for."""
    return [one.name for one in engine_of(call).models.listed() if not one.pickled]
