"""What A1111's clients send, as requests of ours: its words for what we have, and a refusal of what we have not
where leaving it out would change the picture."""

import base64
import binascii
import io
import re
from typing import Any

from fastapi import HTTPException
from PIL import Image
from pydantic import ConfigDict, Field

from tintype.apps.server.asked import JSON, Refusal, Wrong
from tintype.apps.server.schema import LONGEST_PROMPT, Body, data_url, png, unbroken
from tintype.tasks.loras import written
from tintype.tasks.request import LARGEST_SEED

FILLS = ("colours", "original", "noise", "nothing")  # by A1111's number
RESIZES = ("stretch", "crop", "fill")
LATENT_MODES = (
    "Latent",
    "Latent (antialiased)",
    "Latent (bicubic)",
    "Latent (bicubic antialiased)",
    "Latent (nearest)",
    "Latent (nearest-exact)",
)
NAMES = {
    "image": "init_images",
    "scale": "upscaling_resize",
    "strength": "denoising_strength",
    "sampler": "sampler_name",
    "variation_seed": "subseed",
    "variation_strength": "subseed_strength",
    "hires_scale": "hr_scale",
    "hires_strength": "denoising_strength",
    "hires_steps": "hr_second_pass_steps",
    "padding": "inpaint_full_res_padding",
    "mask_invert": "inpainting_mask_invert",
}  # A1111's of our fields
NETWORK = re.compile(r"<(lora|lyco|hypernet):([^<>]{1,500})>")  # in a prompt
LONGEST_NAME = 500
ABSENT = (
    "seed_resize_from_h", "seed_resize_from_w", "s_churn", "s_min_uncond", "firstphase_width", "firstphase_height",
)  # fmt: skip  # numbers that change nothing where they are 0


class Drawing(Body):
    """What both drawing calls take. Widths, steps and the like that are not sent are the model's own, not A1111's."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    prompt: str | None = Field(default="", max_length=LONGEST_PROMPT)
    negative_prompt: str | None = Field(default="", max_length=LONGEST_PROMPT)
    styles: list[str] | None = Field(default=None, max_length=64, fail_fast=True)
    seed: int | None = -1
    subseed: int | None = -1
    subseed_strength: float | None = 0
    seed_resize_from_h: int | None = -1
    seed_resize_from_w: int | None = -1
    sampler_name: str | None = Field(default=None, max_length=LONGEST_NAME)
    sampler_index: str | None = Field(default=None, max_length=LONGEST_NAME, description="of old clients")
    scheduler: str | None = Field(default=None, max_length=LONGEST_NAME)
    batch_size: int | None = Field(default=1, ge=1)
    n_iter: int | None = Field(default=1, ge=1)
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool | None = None
    do_not_save_grid: bool | None = None
    eta: float | None = None
    denoising_strength: float | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    clip_skip: int | None = None
    override_settings: dict[str, Any] | None = None
    override_settings_restore_afterwards: bool | None = True
    refiner_checkpoint: str | None = None
    script_name: str | None = None
    script_args: list[Any] | None = Field(default=None, max_length=1000)
    alwayson_scripts: dict[str, Any] | None = None
    send_images: bool | None = True
    save_images: bool | None = False


class Txt2Img(Drawing):
    enable_hr: bool | None = False
    hr_scale: float | None = 2
    hr_upscaler: str | None = None
    hr_second_pass_steps: int | None = 0
    hr_resize_x: int | None = 0
    hr_resize_y: int | None = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str | None = ""
    hr_negative_prompt: str | None = ""
    firstphase_width: int | None = 0
    firstphase_height: int | None = 0


class Img2Img(Drawing):
    init_images: list[str] | None = Field(default=None, max_length=16, fail_fast=True, description="one")
    mask: str | None = None
    resize_mode: int | None = Field(default=0, ge=0, le=2, description="stretch, crop, fill")
    mask_blur: int | None = 4
    inpainting_fill: int | None = Field(default=0, ge=0, le=3, description="colours, original, noise, nothing")
    inpaint_full_res: bool | None = True
    inpaint_full_res_padding: int | None = 0
    inpainting_mask_invert: int | None = Field(default=0, ge=0, le=1)
    initial_noise_multiplier: float | None = None
    image_cfg_scale: float | None = None
    include_init_images: bool | None = False


def refuse_absent(asked: Drawing) -> None:
    """What is not here. Raises `HTTPException` for scripts as A1111 does, `Wrong` for what would change the picture."""
    if asked.script_name:
        raise HTTPException(422, f"Script '{asked.script_name}' not found: there are none here")
    for name in asked.alwayson_scripts or {}:
        raise HTTPException(422, f"always on script {name} not found: there are none here")
    if asked.restore_faces:
        raise Wrong("restore_faces", "restore_faces: nothing restores faces here; expected false")
    if any(asked.styles or []):
        raise Wrong("styles", "styles: there are none here; expected none, their words in the prompt")
    for name in ABSENT:
        if (getattr(asked, name, None) or 0) > 0:
            raise Wrong(name, f"{name} {getattr(asked, name):g}: not here; expected 0")
    for name in ("s_noise", "initial_noise_multiplier"):
        if getattr(asked, name, None) not in (None, 1):
            raise Wrong(name, f"{name} {getattr(asked, name):g}: not here; expected 1")
    if asked.refiner_checkpoint not in (None, "", "None"):
        raise Wrong("refiner_checkpoint", "refiner_checkpoint: not here; expected none")


def common(asked: Drawing) -> JSON:
    """The fields that our tasks share, of the first picture; seeds are left as they are."""
    sampler, scheduler, takes_eta = walked(asked)
    prompt, loras = without_loras(asked.prompt or "")
    values: JSON = {
        "prompt": prompt,
        "lora": loras,
        "negative_prompt": asked.negative_prompt or "",
        "batch_size": asked.batch_size or 1,
        "sampler": sampler,
        "scheduler": scheduler,
        "eta": asked.eta if takes_eta else None,
        "steps": asked.steps,
        "cfg_scale": asked.cfg_scale,
        "width": asked.width or None,
        "height": asked.height or None,
        "tiling": bool(asked.tiling),
        "clip_skip": max(1, asked.clip_skip or 1),
        "seed": max(-1, -1 if asked.seed is None else asked.seed),
    }
    if asked.subseed_strength:
        subseed = -1 if asked.subseed is None else asked.subseed
        values |= {"variation_strength": asked.subseed_strength, "variation_seed": max(-1, subseed)}
    return values


def without_loras(prompt: str) -> tuple[str, list[str]]:
    """A prompt's text, and the LoRAs that it names: <lora:NAME:STRENGTH>. Raises `Wrong` for what is none here."""
    loras: list[str] = []
    for kind, told in NETWORK.findall(prompt):
        name, *strengths = told.split(":")
        if kind == "hypernet":
            raise Wrong("prompt", f"prompt: <hypernet:{name}>: there are none here; leave it out")
        if len(strengths) > 1 or not name:
            raise Wrong("prompt", f"prompt: <{kind}:{told}>: expected <lora:NAME:STRENGTH>, one strength for all of it")
        try:
            loras.append(written(name, float(strengths[0]) if strengths else 1.0))
        except ValueError as error:
            raise Wrong("prompt", f"prompt: <{kind}:{told}>: expected a number as the strength") from error
    return NETWORK.sub("", prompt), loras


def walked(asked: Drawing) -> tuple[str | None, str | None, bool]:
    """Sampler, spacing, and whether A1111 would give it eta, which clients send to all. A spacing in the sampler's name
    counts, as there. Raises `HTTPException` 400 for an unknown one."""
    from tintype.diffusion.names import canonical, preset, spacing
    from tintype.diffusion.samplers import takes

    name = asked.sampler_name or asked.sampler_index
    try:
        sampler, said = (None, None) if not name else canonical(name)
        if said is None and asked.scheduler and asked.scheduler.casefold() != "automatic":
            labels = {told["name"]: told["label"] for told in schedulers()}
            said = spacing(str(labels.get(asked.scheduler.casefold(), asked.scheduler)))
    except ValueError as error:
        raise Refusal(400, f"Sampler not found: {error}", "sampler_name") from error
    if sampler is None:
        return None, said, False
    bare = preset(sampler).sampler
    return sampler, said, takes(bare, "eta") and bare != "euler"  # its Euler knows none


def schedulers() -> list[JSON]:
    """As A1111 lists them."""
    from tintype.diffusion.names import A1111_SPACING_ALIASES, A1111_SPACINGS

    aliases = {ours: alias for alias, ours in A1111_SPACING_ALIASES.items() if alias != "align_your_steps"}
    return [
        {
            "name": label.lower().replace(" ", "_"),
            "label": label,
            "aliases": [aliases[ours]] if ours in aliases else None,
            "default_rho": {"karras": 7.0, "polyexponential": 1.0}.get(ours, -1),
            "need_inner_model": ours not in ("karras", "exponential", "polyexponential"),
        }
        for label, ours in {"Automatic": "", **A1111_SPACINGS}.items()
    ]


def txt2img(asked: Txt2Img) -> JSON:
    values = common(asked) | {"task": "txt2img"}
    if not asked.enable_hr:
        return values
    for name, same in (
        ("hr_checkpoint_name", "Use same checkpoint"),
        ("hr_sampler_name", "Use same sampler"),
        ("hr_scheduler", "Use same scheduler"),
    ):
        usual = (None, "", same, getattr(asked, name.removeprefix("hr_"), None))
        if getattr(asked, name) not in usual:
            raise Wrong(name, f"{name} {getattr(asked, name)!r}: the second pass is drawn as the first; leave it out")
    for name in ("prompt", "negative_prompt"):
        if getattr(asked, f"hr_{name}") not in (None, "", getattr(asked, name)):
            raise Wrong(f"hr_{name}", f"hr_{name}: the second pass reads the prompts of the first; leave it out")
    if asked.hr_upscaler not in (None, "", "None", "Lanczos", "Nearest", *LATENT_MODES):
        raise Wrong("hr_upscaler", f"hr_upscaler {asked.hr_upscaler!r}: not here; expected {LATENT_MODES[0]!r}")
    if asked.denoising_strength is not None:
        values["hires_strength"] = asked.denoising_strength
    return values | {"hires_scale": _scale(asked), "hires_steps": asked.hr_second_pass_steps or None}


def _scale(asked: Txt2Img) -> float | None:
    """How many times larger the second pass is; A1111's sizes win over its scale."""
    scales: list[float] = []
    for side, wanted in ((asked.width, asked.hr_resize_x), (asked.height, asked.hr_resize_y)):
        if wanted and not side:
            raise Wrong("hr_resize_x", "hr_resize_x, hr_resize_y: expected width and height with them, or an hr_scale")
        if wanted and side:
            scales.append(wanted / side)
    if len(scales) == 2 and abs(scales[0] - scales[1]) > 1e-6:
        raise Wrong("hr_resize_x", "hr_resize_x, hr_resize_y: another shape than the first pass; expected the same")
    return scales[0] if scales else asked.hr_scale


def img2img(asked: Img2Img) -> JSON:
    """Raises `HTTPException` 404 without a picture, as A1111."""
    pictures = [one for one in asked.init_images or [] if one]
    if not pictures:
        raise Refusal(404, "Init image not found", "init_images")
    if len(pictures) > 1:
        raise Wrong("init_images", f"init_images: got {len(pictures)} pictures; expected one")
    strength = 0.75 if asked.denoising_strength is None else asked.denoising_strength
    values = common(asked) | {"task": "img2img", "image": pictures[0], "strength": strength}
    values["resize"] = RESIZES[asked.resize_mode or 0]
    if not asked.mask:
        return values
    return values | {
        "task": "inpaint",
        "mask": mask_for(asked.mask, pictures[0]),
        "mask_blur": 4 if asked.mask_blur is None else asked.mask_blur,
        "mask_invert": bool(asked.inpainting_mask_invert),
        "fill": FILLS[asked.inpainting_fill or 0],
        "only_masked": asked.inpaint_full_res is not False,
        "padding": asked.inpaint_full_res_padding or 0,
    }


def mask_for(mask: str, image: str) -> str:
    """A mask as A1111 reads it: alpha where there is some, at the size of the picture."""
    held, size = opened(mask, "mask"), opened(image, "init_images").size
    alpha = held.convert("RGBA").getchannel("A")
    level = held.convert("L") if alpha.getextrema()[0] == 255 else alpha
    resized = level if level.size == size else level.resize(size, Image.Resampling.LANCZOS)
    return data_url(png(resized))


def opened(text: str, field: str) -> Image.Image:
    """A picture in base64, with or without a data URL before it; upright, in its own mode. Its size is checked before,
    by `checked_picture`."""
    from tintype.data.pictures import DAMAGED, formats

    try:
        content = base64.b64decode(unbroken(text.partition(",")[2] or text), validate=True)
        picture = Image.open(io.BytesIO(content), formats=formats())
        picture.load()
    except (*DAMAGED, binascii.Error) as error:
        raise Wrong(field, f"{field}: no picture that can be read ({type(error).__name__})") from error
    return picture


def following(seed: int, count: int) -> int:
    return (seed + count) % (LARGEST_SEED + 1)
