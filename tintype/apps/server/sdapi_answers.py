"""What A1111's clients get: what was asked, what was done, how far it is."""

import base64
import io
import json
import math
import time
from collections.abc import Sequence

from PIL import Image

from tintype.apps.server.asked import JSON
from tintype.apps.server.sdapi_fields import Drawing
from tintype.apps.server.sdapi_runs import Run
from tintype.common.version import VERSION
from tintype.serving.engine import Progress
from tintype.tasks.request import Request


def echo(asked: Drawing) -> JSON:
    """What was asked, pictures left out unless they are asked for."""
    told = asked.model_dump()
    if not told.get("include_init_images"):
        told |= {name: None for name in ("init_images", "mask") if name in told}
    return told


def info_of(asked: Drawing, requests: Sequence[Request], pictures: Sequence[bytes], model: str) -> str:
    """A1111's `info`: a JSON text of what was done, a picture at a time where it differs."""
    from tintype.diffusion.names import label
    from tintype.tasks.infotext import PARAMETERS, provenance

    held = [Image.open(io.BytesIO(content)) for content in pictures]
    made = [provenance(one) for one in held]
    seeds = [one.request.seeds[one.position] for one in made]
    others = [(one.request.variation_seeds or one.request.seeds)[one.position] for one in made]
    first = made[0].request if made else requests[0]
    told: JSON = {
        "prompt": first.prompt,
        "all_prompts": [first.prompt] * len(made),
        "negative_prompt": first.negative_prompt,
        "all_negative_prompts": [first.negative_prompt] * len(made),
        "seed": seeds[0] if seeds else first.seed,
        "all_seeds": seeds,
        "subseed": others[0] if others else first.seed,
        "all_subseeds": others,
        "subseed_strength": first.variation_strength,
        "width": held[0].width if held else first.width,
        "height": held[0].height if held else first.height,
        "sampler_name": label(first.sampler or ""),
        "cfg_scale": first.cfg_scale,
        "steps": first.steps,
        "batch_size": asked.batch_size or 1,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": model,
        "sd_model_hash": made[0].digest if made else None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": first.hires_strength if first.hires_scale else first.strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [str(one.info[PARAMETERS]) for one in held],
        "styles": asked.styles or [],
        "job_timestamp": stamp(time.time()),
        "clip_skip": first.clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": f"tintype {VERSION}",
    }
    return json.dumps(told, ensure_ascii=False)


def stamp(seconds: float) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.localtime(seconds))


def progress_of(run: Run | None, progress: Progress) -> JSON:
    """As A1111 tells it: shares of iterations, 0 where nothing is drawn."""
    share, left = 0.0, 0.0
    if run is not None:
        share = (min(run.done, run.count) + progress.step / max(1, progress.count)) / run.count
        share = max(share, 0.01)  # drawn or waiting, and so not 0
        spent = time.time() - run.began
        left = spent / share - spent
    shown = progress.preview
    return {
        "progress": min(share, 1.0),
        "eta_relative": left if math.isfinite(left) else 0.0,
        "state": {
            "skipped": run is not None and run.skipped and not run.stopped,
            "interrupted": run is not None and run.stopped,
            "stopping_generation": False,
            "job": "" if run is None else run.what,
            "job_count": 0 if run is None else run.count,
            "job_timestamp": "0" if run is None else stamp(run.began),
            "job_no": 0 if run is None else min(run.done, run.count - 1),
            "sampling_step": progress.step,
            "sampling_steps": progress.count,
        },
        "current_image": None if shown is None else base64.b64encode(shown).decode(),
        "textinfo": None,
        "current_task": None if run is None else run.job,
    }
