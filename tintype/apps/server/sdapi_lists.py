"""A1111's lists of what there is, and its options: of each who asks, since one user's model is not another's."""

from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi import Request as Call
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from fastapi.routing import APIRoute

from tintype.apps.server.asked import JSON, Refusal, Wrong, served
from tintype.apps.server.sdapi_extras import OURS, PLAIN
from tintype.apps.server.sdapi_fields import LATENT_MODES, schedulers
from tintype.apps.server.waiting import engine_of, owner_of, settings_of
from tintype.serving.models import Models, Unknown
from tintype.tasks.request import LARGEST_CLIP_SKIP, MODELS

MOST_OWNERS = 1000
MODEL, SKIP = "sd_model_checkpoint", "CLIP_stop_at_last_layers"
EMPTY = (
    "sd-vae",
    "hypernetworks",
    "face-restorers",
    "realesrgan-models",
    "prompt-styles",
    "script-info",
    "extensions",
)  # of what A1111 can have and we have not
REFRESHED = ("checkpoints", "vae", "loras", "embeddings")


class SdapiRoute(APIRoute):
    """A route whose wrong fields are 422 and whose unknown models are 404."""

    def get_route_handler(self) -> Callable[[Call], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handler(call: Call) -> Response:
            try:
                return await inner(call)
            except Unknown as error:
                raise Refusal(404, str(error), MODEL) from error
            except Wrong as error:
                raise Refusal(422, str(error), error.field) from error

        return handler


class Options:
    """What each owner chose; those who did so long ago are forgotten."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, JSON] = OrderedDict()

    def of(self, owner: str) -> JSON:
        return self._of.get(owner, {})

    def set(self, owner: str, chosen: JSON) -> None:
        self._of[owner] = self.of(owner) | chosen
        self._of.move_to_end(owner)
        if len(self._of) > MOST_OWNERS:
            self._of.popitem(last=False)


def known(models: Models, given: dict[str, Any]) -> JSON:
    """Of options that a client sends those that mean something here. Raises `Wrong` for values that cannot be, and
    `Unknown` for a model that is not here."""
    chosen: JSON = {}
    if (name := given.get(MODEL)) not in (None, ""):
        if not isinstance(name, str):
            raise Wrong(MODEL, f"{MODEL}: expected a name")
        chosen[MODEL] = models.check(name.partition(" [")[0]).name  # A1111's titles end in a hash
    if (skip := given.get(SKIP)) is not None:
        if not isinstance(skip, int) or isinstance(skip, bool) or not 1 <= skip <= LARGEST_CLIP_SKIP:
            raise Wrong(SKIP, f"{SKIP} {skip!r}: expected a whole number from 1 to {LARGEST_CLIP_SKIP}")
        chosen[SKIP] = skip
    if given.get("sd_vae") not in (None, "", "Automatic", "None"):
        raise Wrong("sd_vae", "sd_vae: a model has its own here; expected Automatic")
    if given.get("eta_noise_seed_delta") not in (None, 0):
        raise Wrong("eta_noise_seed_delta", "eta_noise_seed_delta: noise is of the seed alone here; expected 0")
    return chosen


def list_routes(options: Options) -> APIRouter:
    router = APIRouter(route_class=SdapiRoute)
    for name in EMPTY:
        router.add_api_route(f"/{name}", _nothing, methods=["GET"], name=name)
    for name in REFRESHED:
        router.add_api_route(f"/refresh-{name}", _done, methods=["POST"], name=f"refresh {name}")
    router.add_api_route("/samplers", _samplers, methods=["GET"])
    router.add_api_route("/schedulers", schedulers, methods=["GET"])
    router.add_api_route("/memory", _memory, methods=["GET"])

    @router.get("/options")
    def get_options(call: Call) -> JSON:
        """Yours: the model, and what A1111's clients look for."""
        return {
            MODEL: "default",
            SKIP: 1,
            "sd_checkpoint_hash": None,
            "sd_vae": "Automatic",
            "samples_format": "png",
            "outdir_samples": "",
            "eta_noise_seed_delta": 0,
            "live_previews_enable": True,
            **options.of(owner_of(call)),
        }

    @router.post("/options", responses={404: {"description": "No such model."}})
    async def set_options(call: Call, given: Annotated[dict[str, Any], Body()]) -> None:
        """Set yours: `sd_model_checkpoint`, `CLIP_stop_at_last_layers`; others are taken and mean nothing here."""
        options.set(owner_of(call), await run_in_threadpool(known, engine_of(call).models, given))

    @router.get("/sd-models")
    def models(call: Call) -> list[JSON]:
        """What can be set as `sd_model_checkpoint`."""
        return [
            {"title": name, "model_name": name, "hash": None, "sha256": None, "filename": name, "config": None}
            for name in served(call)
        ]

    @router.get("/loras")
    def loras(call: Call) -> list[JSON]:
        """What prompts can name: <lora:NAME:STRENGTH>."""
        names = engine_of(call).models.loras()
        return [{"name": name, "alias": name, "path": f"{name}.safetensors", "metadata": {}} for name in names]

    @router.get("/upscalers")
    def upscalers(call: Call) -> list[JSON]:
        blank: JSON = {"model_name": None, "model_path": None, "model_url": None, "scale": 4}
        return [{"name": name} | blank for name in ("None", *upscaler_names(call))]

    @router.get("/latent-upscale-modes")
    def latent_upscale_modes() -> list[JSON]:
        """A1111's names of ways to enlarge for the second pass; all of them mean ours here."""
        return [{"name": name} for name in LATENT_MODES]

    @router.get("/embeddings")
    def embeddings() -> JSON:
        return {"loaded": {}, "skipped": {}}

    @router.get("/scripts")
    def scripts() -> JSON:
        return {"txt2img": [], "img2img": []}

    @router.get("/cmd-flags")
    def cmd_flags(call: Call) -> JSON:
        """Of A1111's flags those that clients look for."""
        settings = settings_of(call)
        return {"api": True, "port": settings.port, "listen": settings.host, "share": False, "ckpt": "default"}

    return router


def upscaler_names(call: Call) -> list[str]:
    return [*PLAIN, *([OURS] if MODELS["upscale"] in served(call) else [])]


def _nothing() -> list[JSON]:
    """None here."""
    return []


def _done() -> None:
    """What is there is looked up whenever it is asked for."""


def _samplers() -> list[JSON]:
    """A1111's, and those of ours that it has not."""
    from tintype.diffusion.names import A1111, A1111_ALIASES, label
    from tintype.diffusion.samplers import SAMPLERS

    names = [*A1111, *(name for name in SAMPLERS if label(name) == name)]
    return [
        {"name": name, "aliases": [alias for alias, ours in A1111_ALIASES.items() if ours == name], "options": {}}
        for name in names
    ]


def _memory() -> JSON:
    """In bytes, of the machine and its first CUDA device."""
    import psutil
    import torch

    ram = psutil.virtual_memory()
    told: JSON = {"ram": {"free": ram.available, "used": ram.total - ram.available, "total": ram.total}}
    if not torch.cuda.is_available():
        return told | {"cuda": {"error": "unavailable"}}
    free, total = torch.cuda.mem_get_info()
    return told | {"cuda": {"system": {"free": free, "used": total - free, "total": total}}}
