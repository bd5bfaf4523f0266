"""What a person or program asks for. Command-line flags, JSON bodies and forms are all made from this dataclass.

Imports nothing heavy: `tintype --help` reads this file.
"""

import dataclasses
import secrets
from dataclasses import dataclass
from typing import Literal

from tintype.common.config import ADDED

LARGEST_SEED = 2**32 - 1
LARGEST_SIDE = 8192
LARGEST_BATCH = 1024
LARGEST_STEPS = 1000
NUMBERS = (
    ("cfg_scale", 0.0, 100.0),
    ("eta", 0.0, 1.0),
    ("cfg_rescale", 0.0, 1.0),
    ("cfg_start", 0.0, 1.0),
    ("cfg_end", 0.0, 1.0),
    ("threshold", 0.5, 1.0),
    ("pag_scale", 0.0, 100.0),
    ("aesthetic_score", 0.0, 100.0),
    ("negative_aesthetic_score", 0.0, 100.0),
)  # fields that are numbers, with their least and largest
LEFT_OPEN = ("cfg_scale", "eta", "threshold", "aesthetic_score", "negative_aesthetic_score")  # these may be None
LARGEST_CLIP_SKIP = 32  # layers of the deepest text tower


def _option(*flags: str, help: str) -> dict[str, object]:
    return {"flags": flags, "help": help}


def _added(*flags: str, help: str) -> dict[str, object]:
    """A field that pictures made before it do not have."""
    return _option(*flags, help=help) | {ADDED: True}


def _pixels(help: str) -> int | None:
    return dataclasses.field(default=None, metadata=_added(help=f"{help}, pixels; for SDXL (default: the picture's)"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """None means the model's own default. Raises `ValueError` for values that no model could serve."""

    prompt: str = dataclasses.field(default="", metadata=_option("-p", help="what to show"))
    negative_prompt: str = dataclasses.field(default="", metadata=_option("-n", help="what to keep away from"))
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
    exact: bool = dataclasses.field(
        default=False, metadata=_option(help="compute pictures one by one: bytes do not depend on the batch")
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
        _whole("seed", self.seed, -1, LARGEST_SEED)
        _whole("batch_size", self.batch_size, 1, LARGEST_BATCH)
        _whole("clip_skip", self.clip_skip, 1, LARGEST_CLIP_SKIP)
        for name in ("original_width", "original_height", "target_width", "target_height", "crop_top", "crop_left"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 0 if name.startswith("crop") else 1, LARGEST_SIDE)
        if self.prompt_style not in ("a1111", "plain"):
            raise ValueError(f"prompt_style {self.prompt_style!r}: expected a1111 or plain")
        for name, low, high in (("steps", 1, LARGEST_STEPS), ("width", 8, LARGEST_SIDE), ("height", 8, LARGEST_SIDE)):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), low, high)
        for name, low, high in NUMBERS:
            if name not in LEFT_OPEN or getattr(self, name) is not None:
                _number(name, getattr(self, name), low, high)
        if not self.cfg_start < self.cfg_end:
            raise ValueError(f"cfg_start {self.cfg_start:g}, cfg_end {self.cfg_end:g}: expected a start before the end")
        for name in ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2", "sampler", "scheduler"):
            if name.endswith("prompt") or getattr(self, name) is not None:
                _text(name, getattr(self, name))
        if type(self.exact) is not bool:
            raise ValueError(f"exact {self.exact!r}: expected true or false")

    @property
    def seeds(self) -> tuple[int, ...]:
        """One per picture; they follow one another and wrap after the largest."""
        return tuple((self.seed + number) % (LARGEST_SEED + 1) for number in range(self.batch_size))

    def with_seed(self) -> "Request":
        """The same request with a seed drawn where it was -1."""
        return self if self.seed >= 0 else dataclasses.replace(self, seed=secrets.randbelow(LARGEST_SEED + 1))


# Values come from JSON and from callers without a type checker, so kinds are checked as well


def _text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} {value!r}: expected text")
    if "\0" in value:
        raise ValueError(f"{name} holds a NUL character; remove it")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} {value!r}: expected a whole number from {low} to {high}")


def _number(name: str, value: object, low: float, high: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:  # NaN is in no range
        raise ValueError(f"{name} {value!r}: expected a number from {low:g} to {high:g}")
