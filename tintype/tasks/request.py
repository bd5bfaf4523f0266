"""What a person or program asks for. Command-line flags, JSON bodies and forms are all made from this dataclass.

Imports nothing heavy: `tintype --help` reads this file.
"""

import dataclasses
import secrets
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tintype.common.config import ADDED, nearest

LARGEST_SEED = 2**32 - 1
LARGEST_SIDE = 8192
LARGEST_BATCH = 1024
LARGEST_STEPS = 1000
LARGEST_BLUR = 256
LARGEST_ENLARGEMENT = 8
TASKS: dict[str, str] = {
    "txt2img": "a picture from a sentence",
    "img2img": "a picture from a picture and a sentence",
    "inpaint": "paint a part of a picture anew",
    "outpaint": "continue a picture beyond its sides",
    "edit": "change a picture as a sentence says",
    "depth2img": "a picture from a picture, its depth and a sentence",
    "upscale": "a picture at several times its size",
    "class2img": "a picture of a class",
    "layout2img": "a picture of named boxes",
    "map2img": "a picture of a map of classes",
    "sample": "a picture that nothing steers",
}  # by the name of its file in `tasks`
MODELS = {"upscale": "upscaler"}  # the embedded model of a task, where it is not "default"
WITH_PICTURE = ("img2img", "inpaint", "outpaint", "edit", "depth2img", "upscale")
MASKED = ("inpaint",)
NAMED = ("image", "mask", "depth", "map")  # the fields that are pictures
LAID_OUT = ("layout2img",)
PROMPTED = ("txt2img", *WITH_PICTURE, *LAID_OUT)
UNPROMPTED = ("upscale", *LAID_OUT)  # may do without a prompt
LARGEST_NOISE_LEVEL = 350  # of Stable Diffusion's upscaler: x4-upscaling.yaml
LARGEST_CLIP_SKIP = 32  # layers of the deepest text tower
BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (-1, LARGEST_SEED),
    "variation_seed": (-1, LARGEST_SEED),
    "batch_size": (1, LARGEST_BATCH),
    "clip_skip": (1, LARGEST_CLIP_SKIP),
    "steps": (1, LARGEST_STEPS),
    "width": (8, LARGEST_SIDE),
    "height": (8, LARGEST_SIDE),
    "crop_top": (0, LARGEST_SIDE),
    "crop_left": (0, LARGEST_SIDE),
    **dict.fromkeys(("original_width", "original_height", "target_width", "target_height"), (1, LARGEST_SIDE)),
    **dict.fromkeys(("left", "right", "top", "bottom", "padding"), (0, LARGEST_SIDE)),
    **dict.fromkeys(("window", "window_stride"), (1, LARGEST_SIDE)),
    "mask_blur": (0, LARGEST_BLUR),
    "hires_scale": (1, LARGEST_ENLARGEMENT),
    "hires_steps": (1, LARGEST_STEPS),
    "cfg_scale": (0, 100),
    "pag_scale": (0, 100),
    "image_cfg_scale": (1, 100),
    "scale": (2, LARGEST_ENLARGEMENT),
    "noise_level": (0, LARGEST_NOISE_LEVEL),
    "tile": (16, LARGEST_SIDE),
    "overlap": (0, LARGEST_SIDE),
    "threshold": (0.5, 1),
    **dict.fromkeys(
        ("strength", "variation_strength", "hires_strength", "eta", "cfg_rescale", "cfg_start", "cfg_end"), (0, 1)
    ),
    **dict.fromkeys(("aesthetic_score", "negative_aesthetic_score"), (0, 100)),
}  # of the fields that are numbers


def takes(task: str, field: "dataclasses.Field[object]") -> bool:
    """Whether a task takes this field of a request."""
    return task in field.metadata.get("tasks", (task,))


def _option(*flags: str, help: str) -> dict[str, object]:
    return {"flags": flags, "help": help}


def _added(*flags: str, help: str) -> dict[str, object]:
    """A field that pictures made before it do not have."""
    return _option(*flags, help=help) | {ADDED: True}


def _of(tasks: tuple[str, ...], *flags: str, help: str) -> dict[str, object]:
    """A field that these tasks take, and no others."""
    return _added(*flags, help=help) | {"tasks": tasks}


def _pixels(help: str) -> int | None:
    return dataclasses.field(default=None, metadata=_added(help=f"{help}, pixels; for SDXL (default: the picture's)"))


def _beyond(side: str) -> int:
    return dataclasses.field(default=0, metadata=_of(("outpaint",), help=f"pixels to add {side}"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """None means the model's own default. Pictures are paths of files, or data URLs. Raises `ValueError` for values
    that no model could serve, and for those that the task does not take."""

    task: str = dataclasses.field(default="txt2img", metadata={ADDED: True})
    prompt: str = dataclasses.field(default="", metadata=_option("-p", help="what to show") | {"tasks": PROMPTED})
    negative_prompt: str = dataclasses.field(
        default="", metadata=_option("-n", help="what to keep away from") | {"tasks": PROMPTED}
    )
    prompt_2: str | None = dataclasses.field(
        default=None, metadata=_added(help="what SDXL's second text tower reads instead")
    )
    negative_prompt_2: str | None = dataclasses.field(
        default=None, metadata=_added(help="what it reads instead of the negative prompt")
    )
    prompt_style: Literal["a1111", "plain"] = dataclasses.field(
        default="a1111", metadata=_added(help="a1111: (weights), [schedules], AND, BREAK; plain: every sign is text")
    )
    clip_skip: int = dataclasses.field(
        default=1,
        metadata=_added(help="text layer to read, from the end: 1 is the model's own, 2 the one before last"),
    )
    seed: int = dataclasses.field(default=-1, metadata=_option(help="of the first picture; -1 draws one and prints it"))
    variation_seed: int | None = dataclasses.field(
        default=None,
        metadata=_added(help="whose noise to vary towards (default: drawn); a batch counts it, not the seed"),
    )
    variation_strength: float = dataclasses.field(
        default=0.0, metadata=_added(help="how far, from 0 (the seed's own picture) to 1 (the variation seed's)")
    )
    steps: int | None = dataclasses.field(default=None, metadata=_option(help="denoising steps"))
    cfg_scale: float | None = dataclasses.field(default=None, metadata=_option(help="how closely to follow the prompt"))
    width: int | None = dataclasses.field(default=None, metadata=_option("-W", help="pixels"))
    height: int | None = dataclasses.field(default=None, metadata=_option("-H", help="pixels"))
    batch_size: int = dataclasses.field(
        default=1, metadata=_option("-b", help="number of pictures; their seeds follow one another")
    )
    sampler: str | None = dataclasses.field(default=None, metadata=_option(help="see `tintype samplers`"))
    scheduler: str | None = dataclasses.field(
        default=None, metadata=_option(help="spacing of the noise levels; see `tintype samplers`")
    )
    eta: float | None = dataclasses.field(
        default=None, metadata=_option(help="fresh noise per step, 0 to 1, for samplers that take it")
    )
    cfg_rescale: float = dataclasses.field(
        default=0.0, metadata=_added(help="how much of the guided picture's contrast to take back, 0 to 1")
    )
    cfg_start: float = dataclasses.field(default=0.0, metadata=_added(help="share of the steps before guidance begins"))
    cfg_end: float = dataclasses.field(default=1.0, metadata=_added(help="share of the steps after which it ends"))
    threshold: float | None = dataclasses.field(
        default=None, metadata=_added(help="dynamic thresholding: the quantile guidance may not enlarge, such as 0.995")
    )
    pag_scale: float = dataclasses.field(
        default=0.0, metadata=_added(help="perturbed attention guidance beside cfg_scale; 3 is usual, 0 is none")
    )
    lora: tuple[str, ...] = dataclasses.field(
        default=(),
        metadata=_added("--lora", help="a LoRA to draw with: FILE, or FILE:STRENGTH (default: 1); once for each"),
    )
    exact: bool = dataclasses.field(
        default=False, metadata=_option(help="compute pictures one by one: bytes do not depend on the batch")
    )

    hires_scale: float | None = dataclasses.field(
        default=None, metadata=_of(("txt2img",), help="draw small, then enlarge so many times and draw anew from there")
    )
    hires_strength: float = dataclasses.field(
        default=0.7, metadata=_of(("txt2img",), help="with hires_scale: how much is made anew, 0 to 1, as in img2img")
    )
    hires_steps: int | None = dataclasses.field(
        default=None, metadata=_of(("txt2img",), help="of which hires_strength is a share (default: steps)")
    )
    tiling: bool = dataclasses.field(
        default=False, metadata=_added(help="a picture whose opposite sides meet without a seam, for textures")
    )
    window: int | None = dataclasses.field(
        default=None,
        metadata=_of(("txt2img",), help="draw a picture larger than that in overlapping windows of so many pixels"),
    )
    window_stride: int | None = dataclasses.field(
        default=None, metadata=_of(("txt2img",), help="pixels from window to window (default: a quarter of one)")
    )
    image: str | None = dataclasses.field(
        default=None, metadata=_of(WITH_PICTURE, "-i", help="the picture to begin with: a file, or a data URL")
    )
    strength: float | None = dataclasses.field(
        default=None,
        metadata=_of(
            ("img2img", "inpaint", "outpaint", "depth2img"),
            help="how much is made anew, 0 (nothing) to 1 (all): the share of the steps that is done",
        ),
    )
    resize: Literal["stretch", "crop", "fill"] = dataclasses.field(
        default="stretch",
        metadata=_of(
            ("img2img", "inpaint", "edit", "depth2img"), help="how the picture is brought to another width and height"
        ),
    )
    mask: str | None = dataclasses.field(
        default=None, metadata=_of(MASKED, help="white where the picture is painted anew; gray is in between")
    )
    mask_blur: int = dataclasses.field(default=0, metadata=_of(MASKED, help="pixels over which the mask fades"))
    mask_invert: bool = dataclasses.field(default=False, metadata=_of(MASKED, help="paint anew where it is black"))
    fill: Literal["original", "colours", "noise", "nothing"] = dataclasses.field(
        default="original",
        metadata=_of(
            MASKED,
            help="what is under the mask at first, below strength 1: the picture, colours around it, noise, nothing",
        ),
    )
    only_masked: bool = dataclasses.field(
        default=False, metadata=_of(MASKED, help="work on the masked part alone, at the model's full size")
    )
    padding: int = dataclasses.field(
        default=32, metadata=_of(MASKED, help="with only_masked: pixels around the part that are seen as well")
    )
    left: int = _beyond("on the left")
    right: int = _beyond("on the right")
    top: int = _beyond("above")
    bottom: int = _beyond("below")
    beyond: Literal["mirror", "noise"] = dataclasses.field(
        default="mirror", metadata=_of(("outpaint",), help="what is beyond the sides at first, seen below strength 1")
    )
    image_cfg_scale: float | None = dataclasses.field(
        default=None, metadata=_of(("edit",), help="how closely to follow the picture (default: 1.5)")
    )
    depth: str | None = dataclasses.field(
        default=None, metadata=_of(("depth2img",), help="how near all of the picture is: white near, black far")
    )
    scale: int | None = dataclasses.field(
        default=None,
        metadata=_of(("upscale",), help="how many times larger (default: what the model draws, usually 4)"),
    )
    noise_level: int | None = dataclasses.field(
        default=None,
        metadata=_of(
            ("upscale",),
            help="noise put on the picture first: the more, the freer (default: 20; ours: 0, of 63)",
        ),
    )
    tile: int | None = dataclasses.field(
        default=None,
        metadata=_of(("upscale",), help="work on squares of so many pixels of the picture (default: on all at once)"),
    )
    overlap: int | None = dataclasses.field(
        default=None, metadata=_of(("upscale",), help="pixels that neighbouring tiles share (default: a quarter)")
    )
    label: str | None = dataclasses.field(
        default=None, metadata=_of(("class2img",), help="the class: a name the model knows, or its number")
    )

    map: str | None = dataclasses.field(
        default=None,
        metadata=_of(("map2img",), help="the class at each pixel: a gray or palette PNG of their numbers"),
    )
    boxes: tuple[str, ...] = dataclasses.field(
        default=(),
        metadata=_of(
            LAID_OUT,
            "--box",
            help="what is where: NAME:left,top,right,bottom, in parts of the picture's sides; once for each",
        ),
    )

    original_width: int | None = _pixels("width that the picture is said to come from")
    original_height: int | None = _pixels("height that the picture is said to come from")
    crop_top: int | None = _pixels("rows said to be cropped above")
    crop_left: int | None = _pixels("columns said to be cropped on the left")
    target_width: int | None = _pixels("width that the picture is said to have")
    target_height: int | None = _pixels("height that the picture is said to have")
    aesthetic_score: float | None = dataclasses.field(
        default=None, metadata=_added(help="for SDXL's refiner (default: 6)")
    )
    negative_aesthetic_score: float | None = dataclasses.field(
        default=None, metadata=_added(help="of the negative prompt, for SDXL's refiner (default: 2.5)")
    )

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task {self.task!r}: expected {nearest(str(self.task), list(TASKS))}")
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), _HINTS[field.name]
            if not takes(self.task, field) and value != field.default:
                fitting = _or(field.metadata["tasks"])
                raise ValueError(f"{field.name}: {self.task} does not take it; leave it out, or use {fitting}")
            if value is not None or type(None) not in typing.get_args(kind):
                _check(field.name, kind, value)
        if not self.cfg_start < self.cfg_end:
            raise ValueError(f"cfg_start {self.cfg_start:g}, cfg_end {self.cfg_end:g}: expected a start before the end")

    @property
    def seeds(self) -> tuple[int, ...]:
        """One per picture; they follow one another and wrap after the largest. Variations are of one seed."""
        return (self.seed,) * self.batch_size if self.variation_strength else self._following(self.seed)

    @property
    def variation_seeds(self) -> tuple[int, ...]:
        """One per picture, of a request with its seeds drawn; none where nothing is varied."""
        return self._following(self.variation_seed or 0) if self.variation_strength else ()

    def _following(self, seed: int) -> tuple[int, ...]:
        return tuple((seed + number) % (LARGEST_SEED + 1) for number in range(self.batch_size))

    def with_seed(self) -> "Request":
        """The same request with seeds drawn where they were left open."""
        drawn = dataclasses.replace(self, seed=secrets.randbelow(LARGEST_SEED + 1)) if self.seed < 0 else self
        if self.variation_strength and self.variation_seed in (None, -1):
            drawn = dataclasses.replace(drawn, variation_seed=secrets.randbelow(LARGEST_SEED + 1))
        return drawn

    def alone(self) -> list["Request"]:
        """A request for each picture of one with its seeds drawn."""
        varied = self.variation_seeds or (self.variation_seed,) * self.batch_size
        return [
            dataclasses.replace(self, seed=seed, variation_seed=other, batch_size=1)
            for seed, other in zip(self.seeds, varied, strict=True)
        ]


_HINTS: dict[str, object] = typing.get_type_hints(Request)


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _check(name: str, kind: object, value: object) -> None:
    """Values come from JSON and from callers without a type checker, so kinds are checked as well."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise ValueError(f"{name} {value!r}: expected {_or(typing.get_args(kind))}")
    elif typing.get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            raise ValueError(f"{name} {value!r}: expected several texts")
        for one in typing.cast("tuple[object, ...]", value):
            _text(name, one)
    elif bool in kinds:
        if type(value) is not bool:
            raise ValueError(f"{name} {value!r}: expected true or false")
    elif str in kinds:
        _text(name, value)
    else:
        low, high = BOUNDS[name]
        whole = float not in kinds
        if not isinstance(value, int if whole else (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{name} {value!r}: expected a {'whole ' * whole}number from {low:g} to {high:.10g}")


def _text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} {value!r}: expected text")
    if "\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value):
        raise ValueError(f"{name} holds a NUL character, or half of one beyond 16 bits; remove it")
