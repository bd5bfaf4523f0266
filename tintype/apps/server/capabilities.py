"""What can be asked for here: tasks and their fields, models, LoRAs, limits. The page is made from it."""

import dataclasses
import functools
import json
import typing
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter
from fastapi import Request as Call

from tintype.apps.server.schema import bounds_of, most_pixels, over_http
from tintype.apps.server.settings import Settings
from tintype.apps.server.waiting import engine_of
from tintype.common.version import VERSION
from tintype.serving.engine import Engine
from tintype.serving.models import Listed, Models
from tintype.tasks.request import BOUNDS, MODELS, NAMED, TASKS, Request, takes

if TYPE_CHECKING:
    from tintype.families.base import FamilyConfig

FROM_PROMPTS = ("txt2img", "img2img", "inpaint", "outpaint")


def capability_routes(settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["jobs"])

    @router.get("/capabilities")
    def capabilities(call: Call) -> dict[str, object]:
        """What can be asked for here: tasks and their fields, models, LoRAs, limits."""
        return {
            "version": VERSION,
            "tasks": tasks(settings, suggestions(engine_of(call))),
            "models": models(engine_of(call)),
            "loras": list(engine_of(call).models.loras()),
            "limits": limits(settings),
        }

    return router


def tasks(settings: Settings, suggested: dict[str, list[str]]) -> dict[str, object]:
    """Of each its fields, with what a page needs to ask for them; `suggested`: of fields that are texts what they may
    be."""
    hints = typing.get_type_hints(Request)
    return {
        task: {
            "help": help,
            "model": MODELS.get(task, "default"),
            "fields": {
                field.name: _field(hints[field.name], field, settings, suggested)
                for field in dataclasses.fields(Request)
                if takes(task, field) and field.name != "task"
            },
        }
        for task, help in TASKS.items()
    }


def _field(
    kind: object, field: "dataclasses.Field[object]", settings: Settings, suggested: dict[str, list[str]]
) -> dict[str, object]:
    options = typing.get_args(kind)
    told: dict[str, object] = {"help": over_http(field.metadata.get("help", "")), "default": field.default}
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
    told |= {"kind": "text"}
    return told | {"options": suggested[field.name]} if field.name in suggested else told


def suggestions(engine: Engine) -> dict[str, list[str]]:
    """What fields that are texts may be. None before the first model is open: the names come with torch, which no page
    is to wait for."""
    if not engine.ready.is_set():
        return {"sampler": [], "scheduler": [], "label": []}
    from tintype.diffusion.names import A1111, A1111_SPACINGS, DIFFUSERS
    from tintype.diffusion.samplers import SAMPLERS
    from tintype.diffusion.spacing import SPACINGS

    config = config_of(engine.models, "default")
    return {
        "sampler": [*SAMPLERS, *A1111, *DIFFUSERS],
        "scheduler": [*SPACINGS, *(name for name in A1111_SPACINGS if name.casefold() not in SPACINGS)],
        "label": [] if config is None else list(config.labels),
    }


def models(engine: Engine) -> list[dict[str, object]]:
    """`tasks`: those that the model can do; `labels`: its classes. Null where nothing is known of it before it was
    open once."""
    current = engine.models.current
    told: list[dict[str, object]] = []
    for one in engine.models.listed():
        if one.pickled:
            continue
        config = known(engine.models, one) if engine.ready.is_set() else None  # nothing waits for torch
        told.append({
            "name": one.name,
            "open": current is not None and current[0] == one.name,
            "tasks": None if config is None else tasks_of(config),
            "labels": None if config is None else list(config.labels),
        })  # fmt: skip
    return told


def config_of(models: Models, name: str) -> "FamilyConfig | None":
    """What is known of the model of that name. Raises `Unknown` for one that is not here."""
    return known(models, models.check(name))


def known(models: Models, one: Listed) -> "FamilyConfig | None":
    """What is known of a model without its weights: from when it was open, or told by a folder in our own layout."""
    if one.name in models.configs:
        return models.configs[one.name]
    folder = Path(str(resources.files("tintype.weights"))) / one.name if one.path is None else one.path
    try:
        file = folder / "model.json"
        return _told(file, file.stat().st_mtime_ns)
    except (OSError, ValueError, RecursionError):
        return None


@functools.lru_cache(maxsize=64)
def _told(file: Path, changed: int) -> "FamilyConfig":
    from tintype.common.config import from_json
    from tintype.families.base import FamilyConfig

    return from_json(FamilyConfig, json.loads(file.read_text()))


def tasks_of(config: "FamilyConfig") -> list[str]:
    """The tasks that do not refuse a model of this configuration: by what stands beside its noise, and what it
    reads."""
    from tintype.conditioning.bert import BertConfig
    from tintype.conditioning.class_label import ClassConfig
    from tintype.conditioning.layout import LayoutConfig
    from tintype.conditioning.spatial import SpatialConfig
    from tintype.conditioning.text import TextConfig
    from tintype.conditioning.towers import TextTowersConfig

    read = config.conditioner
    if config.enlarges:
        return ["upscale"]
    if config.further in (("picture",), ("depth",)):
        return ["edit"] if config.further == ("picture",) else ["depth2img"]
    beside = config.unet.in_channels - config.autoencoder.latent_channels
    can = {"map2img"} if isinstance(read, SpatialConfig) else set[str]()
    if not beside or any("mask" in name for name in config.further):
        can |= {"sample"}
        prompted = isinstance(read, TextConfig | TextTowersConfig | BertConfig)
        if prompted or (read is None and config.unet.context_dim is None):
            can |= set(FROM_PROMPTS)
        objects = isinstance(read, TextConfig) and read.objects is not None
        can |= {"class2img"} if objects or isinstance(read, ClassConfig) else set()
        can |= {"layout2img"} if objects or isinstance(read, LayoutConfig) else set()
    return [task for task in TASKS if task in can]


def limits(settings: Settings) -> dict[str, int]:
    return {
        "waiting": settings.queue,
        "largest_side": settings.largest,
        "pictures": settings.pictures,
        "pixels": most_pixels(settings),
        "steps": settings.steps,
        "body_bytes": settings.body,
    }
