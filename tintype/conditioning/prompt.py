"""What a prompt is, before any network reads it. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal

PromptStyle = Literal["a1111", "plain"]
# A class by its number, and its box: left, top, right and bottom as parts of the picture's sides, or None for anywhere
PlacedObject = tuple[int, tuple[float, float, float, float] | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Framing:
    """The numbers SDXL was told of each training picture, in pixels (Podell et al. 2023, section 2.2).

    original_size, target_size: height, width; crop: top, left. `aesthetic_score`: the refiner's, about 0 to 10.
    """

    original_size: tuple[int, int]
    target_size: tuple[int, int]
    crop: tuple[int, int] = (0, 0)
    aesthetic_score: float = 6.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One text for the towers to read, without schedules or AND: those are several of these.

    `text_2`: for towers after the first (None: the same). `clip_skip`: the layer read, counted from the end as A1111
    does; 1 is the family's own, 2 the one before the last (where the family's own is earlier, its own). `negative`:
    what to keep away from; an empty one may be all zeros. `framing`: None is an uncropped picture of the model's size.
    `objects`: what a model that reads objects beside texts is told is there.
    """

    text: str
    text_2: str | None = None
    style: PromptStyle = "plain"
    clip_skip: int = 1
    negative: bool = False
    framing: Framing | None = None
    objects: tuple[PlacedObject, ...] = ()

    def texts(self, count: int) -> tuple[str, ...]:
        """The text of each of `count` towers."""
        return (self.text, *[self.text if self.text_2 is None else self.text_2] * (count - 1))

    @property
    def empty(self) -> bool:
        return not (self.text or self.text_2)


def as_prompt(prompt: "str | Prompt") -> Prompt:
    """A bare sentence is read literally."""
    return Prompt(text=prompt) if isinstance(prompt, str) else prompt
