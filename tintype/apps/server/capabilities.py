"""What can be asked for here: tasks and their fields, models, LoRAs, limits. The page is made from it."""

import dataclasses
import typing
from typing import Literal

from fastapi import APIRouter
from fastapi import Request as Call

from tintype.apps.server.schema import bounds_of
from tintype.apps.server.settings import Settings
from tintype.apps.server.waiting import engine_of
from tintype.common.version import VERSION
from tintype.serving.engine import Engine
from tintype.tasks.request import BOUNDS, MODELS, NAMED, TASKS, Request, takes


def capability_routes(settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["jobs"])

    @router.get("/capabilities")
    def capabilities(call: Call) -> dict[str, object]:
        """What can be asked for here: tasks and their fields, models, LoRAs, limits."""
        return {
            "version": VERSION,
            "tasks": tasks(settings),
            "models": models(engine_of(call)),
            "loras": list(engine_of(call).models.loras()),
            "limits": limits(settings),
        }

    return router


def tasks(settings: Settings) -> dict[str, object]:
    """Of each its fields, with what a page needs to ask for them."""
    hints = typing.get_type_hints(Request)
    return {
        task: {
            "help": help,
            "model": MODELS.get(task, "default"),
            "fields": {
                field.name: _field(hints[field.name], field, settings)
                for field in dataclasses.fields(Request)
                if takes(task, field) and field.name != "task"
            },
        }
        for task, help in TASKS.items()
    }


def _field(kind: object, field: "dataclasses.Field[object]", settings: Settings) -> dict[str, object]:
    options = typing.get_args(kind)
    told: dict[str, object] = {"help": field.metadata.get("help", ""), "default": field.default}
    if typing.get_origin(kind) is Literal:
        return told | {"kind": "choice", "options": list(options)}
    if field.name in NAMED:
        return told | {"kind": "picture"}
    if field.name == "lora":
        return told | {"kind": "loras", "default": []}
    if typing.get_origin(kind) is tuple:
        return told | {"kind": "texts", "default": []}
    kinds = options or (kind,)
    if bool in kinds:
        return told | {"kind": "flag"}
    if field.name in BOUNDS:
        low, high = bounds_of(field.name, settings) or (0, 0)
        return told | {"kind": "number" if float in kinds else "integer", "least": low, "most": high}
    return told | {"kind": "text"}


def models(engine: Engine) -> list[dict[str, object]]:
    current = engine.models.current
    return [
        {"name": one.name, "open": current is not None and current[0] == one.name}
        for one in engine.models.listed()
        if not one.pickled
    ]


def limits(settings: Settings) -> dict[str, int]:
    return {
        "waiting": settings.queue,
        "largest_side": settings.largest,
        "pictures": settings.pictures,
        "steps": settings.steps,
        "body_bytes": settings.body,
    }
