"""The text a picture carries so that it can be made again: A1111's "parameters", read by people and other programs,
and beside it the exact request as JSON, read by `--from`."""

import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, PngImagePlugin

from tintype.common.config import from_json, to_json
from tintype.common.files import whole_file
from tintype.common.version import VERSION
from tintype.diffusion.names import label, spacing_label
from tintype.tasks.request import Request

ALSO = {
    "label": "Class",
    "strength": "Denoising strength",
    "window": "Window",
    "window_stride": "Window stride",
    "image_cfg_scale": "Image CFG scale",
    "scale": "Upscale by",
    "noise_level": "Noise level",
    "tile": "Tile",
    "overlap": "Tile overlap",
    "prompt_2": "Prompt 2",
    "negative_prompt_2": "Negative prompt 2",
    "original_width": "Original width",
    "original_height": "Original height",
    "crop_top": "Crop top",
    "crop_left": "Crop left",
    "target_width": "Target width",
    "target_height": "Target height",
    "aesthetic_score": "Aesthetic score",
    "negative_aesthetic_score": "Negative aesthetic score",
}
PARAMETERS, REQUEST = "parameters", "tintype"


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where a picture comes from: a request with nothing left open, its place in the batch, and the model."""

    request: Request
    position: int
    model: str
    digest: str


def parameters(made: Provenance) -> str:
    """A1111's grammar: prompt, negative prompt, then `Key: value` pairs on the last line."""
    request = made.request
    pairs = {
        "Steps": request.steps,
        "Sampler": label(request.sampler or ""),
        "Schedule type": spacing_label(request.scheduler or ""),
        "CFG scale": f"{request.cfg_scale:g}",
        "Seed": request.seeds[made.position],
        "Size": f"{request.width}x{request.height}",
        "Model hash": made.digest,
        "Model": made.model,
    }
    if request.variation_strength:
        pairs["Variation seed"] = request.variation_seeds[made.position]
        pairs["Variation seed strength"] = f"{request.variation_strength:g}"
    if request.eta is not None:
        pairs["Eta"] = f"{request.eta:g}"
    pairs |= {
        key: f"{value:g}"
        for key, value, usual in (
            ("CFG rescale", request.cfg_rescale, 0),
            ("CFG start", request.cfg_start, 0),
            ("CFG end", request.cfg_end, 1),
            ("PAG scale", request.pag_scale, 0),
        )
        if value != usual
    }
    if request.threshold is not None:
        pairs["Dynamic threshold"] = f"{request.threshold:g}"
    if request.hires_scale is not None:
        pairs |= {"Denoising strength": f"{request.hires_strength:g}", "Hires upscale": f"{request.hires_scale:g}"}
        pairs |= {} if request.hires_steps is None else {"Hires steps": request.hires_steps}
        pairs["Hires upscaler"] = "Bicubic"
    if request.batch_size > 1:
        pairs |= {"Batch size": request.batch_size, "Batch pos": made.position}
    if request.exact:
        pairs["Exact"] = "True"
    if request.tiling:
        pairs["Tiling"] = "True"
    if request.clip_skip > 1:
        pairs["Clip skip"] = request.clip_skip
    pairs |= {key: getattr(request, name) for name, key in ALSO.items() if getattr(request, name) is not None}
    if request.boxes:
        pairs["Boxes"] = " ".join(request.boxes)
    if request.lora:
        pairs["LoRA"] = " ".join(request.lora)
    if request.prompt_style == "plain":
        pairs["Prompt style"] = "plain"
    pairs["Version"] = f"tintype {VERSION}"
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items()))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if set(value) & set(",:\n") else value


def stamp(picture: Image.Image, made: Provenance) -> Image.Image:
    """Put both texts into `picture.info`."""
    picture.info[PARAMETERS] = parameters(made)
    picture.info[REQUEST] = json.dumps(to_json(made), ensure_ascii=False)
    return picture


def branched(picture: Image.Image, branch: str) -> Image.Image:
    """Of one that goes on from a step of another: its settings, which alone would not repeat it, tell so, and there is
    no request that would."""
    picture.info[PARAMETERS] += f", Branch: {_quoted(branch)}"
    del picture.info[REQUEST]
    return picture


def png_info(picture: Image.Image) -> PngImagePlugin.PngInfo:
    """The texts of `picture.info` as PNG chunks."""
    chunks = PngImagePlugin.PngInfo()
    for key in (PARAMETERS, REQUEST):
        if key in picture.info:
            chunks.add_itxt(key, picture.info[key])
    return chunks


def save(picture: Image.Image, path: str | Path) -> None:
    """Write a PNG that keeps both texts (PIL's own `save` drops them); it is there whole or not at all."""
    with whole_file(Path(path)) as temporary:
        picture.save(temporary, format="PNG", pnginfo=png_info(picture))


def provenance(picture: Image.Image) -> Provenance:
    """How a picture of ours was made. Raises `ValueError` when it does not say."""
    text: object = picture.info.get(REQUEST)
    if not isinstance(text, str):
        raise ValueError(
            "the picture holds no tintype request; expected a PNG written by tintype, not re-saved by others"
        )
    try:
        made = from_json(Provenance, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the picture's tintype request is damaged: {error}") from error
    if not 0 <= made.position < made.request.batch_size:
        raise ValueError(f"the picture's tintype request is damaged: position {made.position}")
    return made
