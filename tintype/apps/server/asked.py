"""What other programs' interfaces ask for, as requests of ours: one set of bounds, whoever asks."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from fastapi import HTTPException
from fastapi import Request as Call
from pydantic import BaseModel, ValidationError

from tintype.apps.server.schema import as_request, over_http
from tintype.apps.server.waiting import engine_of
from tintype.serving.engine import Engine
from tintype.serving.jobs import Job
from tintype.tasks.request import Request

FIELDS = frozenset(
    ("model", "priority", "timeout", "keep_steps", "branch", *(field.name for field in dataclasses.fields(Request)))
)
SINGULAR = {"box": "boxes"}
PLACES = ("body", "query", "path", "header")  # where fields of a call are
OURS = "Value error, "  # what pydantic puts before a sentence of ours
JSON = dict[str, object]


class Wrong(ValueError):
    """A field with a value that cannot be; `field` as the client calls it."""

    def __init__(self, field: str | None, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


class Refusal(HTTPException):
    """An answer that is no success, and the field that it is about, as the client calls it."""

    def __init__(
        self, status: int, sentence: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, sentence, headers)
        self.field = field


def checked(kind: type[BaseModel], values: Mapping[str, object], names: Mapping[str, str]) -> Request:
    """A request of these fields, of which `names` are called otherwise by the client; `kind`: the model of our own
    jobs. Raises `Wrong`."""
    try:
        return as_request(kind.model_validate(values).model_dump())
    except ValidationError as error:
        field, sentence = problem(error.errors(include_url=False, include_input=False)[0])
        if field in names:
            sentence = sentence.replace(field, names[field], 1)
        raise Wrong(names.get(field, field), sentence) from error
    except ValueError as error:
        refuse(str(error), names)


def problem(found: Mapping[str, Any]) -> tuple[str, str]:
    """Of one of pydantic's errors the field and the sentence, which begins with it."""
    told = over_http(str(found["msg"]).removeprefix(OURS))
    place = [str(part) for part in found["loc"]]
    if place and place[0] in PLACES:
        del place[0]
    if found["type"] == "json_invalid":
        place, told = [], f"no JSON ({found['ctx']['error']} at character {place[0]}); expected an object"
    elif not place and found["type"] == "missing":
        told = "it is empty; expected a JSON object"
    if not place and (field := field_of(told)):
        return field, told
    return (place[0], f"{'.'.join(place)}: {told}") if place else ("body", f"body: {told}")


def refuse(sentence: str, names: Mapping[str, str]) -> NoReturn:
    """Our sentence about a field of ours, as one about the client's."""
    field, sentence = field_of(sentence), over_http(sentence)
    theirs = names.get(field or "", field)
    raise Wrong(theirs, sentence if field is None else sentence.replace(field, theirs or field, 1))


def field_of(sentence: str) -> str | None:
    """The field that a sentence of ours begins with."""
    found = re.match(r"(?:unknown |no |the )?(\w+)", sentence)
    field = SINGULAR.get(found[1], found[1]) if found else None
    return field if field in FIELDS else None


def renamed(error: HTTPException, names: Mapping[str, str]) -> HTTPException:
    """The same, its sentence about the client's field."""
    try:
        refuse(str(error.detail), names)
    except Wrong as wrong:
        return Refusal(error.status_code, str(wrong), wrong.field, error.headers)


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
