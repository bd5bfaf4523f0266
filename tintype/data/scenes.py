"""Captioned scenes of one to four emoji. A scene is a pure function of (config, index).

`plan` decides what is where and says it in words; `render` draws it. What is held out of training is decided by a
hash of names, so that every reader of this file has the same split.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tintype.data.emoji import Emoji, VocabularySize, synonyms, vocabulary
from tintype.data.glyphs import Glyphs

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (16, 16, 16),
    "gray": (136, 136, 140),
    "red": (226, 49, 49),
    "orange": (245, 140, 30),
    "yellow": (255, 219, 70),
    "green": (56, 166, 80),
    "blue": (36, 98, 226),
    "purple": (130, 64, 190),
    "pink": (255, 158, 204),
    "brown": (120, 76, 48),
    "beige": (240, 226, 192),
    "navy": (20, 30, 90),
    "teal": (20, 134, 134),
    "mint": (170, 236, 206),
    "sky blue": (136, 206, 244),
}
POSITIONS: dict[str, tuple[float, float]] = {  # where the free space goes: 0 = all of it right of / below the object
    "in the top left corner": (0, 0),
    "at the top": (0.5, 0),
    "in the top right corner": (1, 0),
    "on the left": (0, 0.5),
    "in the center": (0.5, 0.5),
    "on the right": (1, 0.5),
    "in the bottom left corner": (0, 1),
    "at the bottom": (0.5, 1),
    "in the bottom right corner": (1, 1),
}
RELATIONS = ("to the left of", "to the right of", "above", "below")
SIZES: dict[str, float] = {"small": 0.47, "": 0.72, "large": 0.875}  # longer side as a fraction of the picture
ONE_OF_SEVERAL = 0.47  # the same where two or more share the picture
NEAR = 0.125  # how far an object stands from its place when no word says where exactly
MASS_NOUNS = {"bread", "bacon", "popcorn", "spaghetti", "sushi", "broccoli", "garlic", "fire", "jeans", "ice"}
CONSONANT_SOUNDS = ("eu", "ewe", "one-", "uni", "use")  # said like "you" and "won"

Fill = Literal["solid", "horizontal", "vertical"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneConfig:
    """What scenes look like. `split` "train" never shows a held-out combination; "all" shows everything."""

    size: int = 64  # pixels
    vocabulary: VocabularySize = 256
    objects: tuple[float, ...] = (0.6, 0.4)  # share of scenes with 1, 2, 3, 4 objects
    sizes: tuple[float, float, float] = (0.2, 0.6, 0.2)  # share of single objects called small, nothing, large
    gradients: float = 0.2
    grid: int = 1  # places are multiples of so many pixels and sides exact; 1: anywhere, sides vary by 6 %
    plain_captions: bool = False  # True: the full sentence with emoji names only
    split: Literal["train", "all"] = "train"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.objects) <= 4 or min(self.objects) < 0 or abs(sum(self.objects) - 1) > 1e-6:
            raise ValueError(f"objects {self.objects}: expected one to four shares that sum to 1")
        if min(self.sizes) < 0 or abs(sum(self.sizes) - 1) > 1e-6:
            raise ValueError(f"sizes {self.sizes}: expected three shares that sum to 1")
        if self.vocabulary not in (256, 984):
            raise ValueError(f"vocabulary {self.vocabulary}: expected 256 or 984")
        if self.grid < 1 or self.seed < 0:
            raise ValueError(f"grid {self.grid}, seed {self.seed}: expected a grid of 1 or more, a seed of 0 or more")
        if not 0 <= self.gradients <= 1:
            raise ValueError(f"gradients {self.gradients}: expected a share from 0 to 1")
        if self.size < 32:
            raise ValueError(f"scene size {self.size}: emoji need 32 pixels or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """One object: its longer side in pixels and the centre of its tight box as a fraction of the picture."""

    emoji: Emoji
    side: int
    centre: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A scene before it is drawn. `colours` holds one name (solid) or two (gradient: from, to)."""

    size: int
    caption: str
    colours: tuple[str, ...]
    fill: Fill
    placements: tuple[Placement, ...]
    relation: str = ""
    position: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """picture: H W 3 uint8; boxes: N 4 float32, (x0, y0, x1, y1) as fractions, tight around visible pixels;
    classes: N int64, index into the vocabulary; masks: N H W bool, what is seen of each object."""

    plan: Plan
    picture: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: NDArray[np.bool_]

    @property
    def caption(self) -> str:
        return self.plan.caption


@lru_cache(maxsize=200_000)
def held_out(kind: Literal["colour", "pair", "position"], first: str, second: str) -> bool:
    """True for the 10 % of (emoji, colour), of unordered emoji pairs, of (emoji, position) never seen in training."""
    names = sorted((first, second)) if kind == "pair" else (first, second)
    digest = hashlib.sha256(":".join((kind, *names)).encode()).digest()
    return int.from_bytes(digest[:4]) % 10 == 0


def with_article(noun: str) -> str:
    """ "apple" -> "an apple"; plurals and mass nouns stay bare."""
    plural = noun.endswith("s") and not noun.endswith(("ss", "us", "is", "-s"))
    if plural or noun in MASS_NOUNS:
        return noun
    vowel = noun[0] in "aeiou" and not noun.startswith(CONSONANT_SOUNDS)
    return f"an {noun}" if vowel else f"a {noun}"


def background_phrase(colours: tuple[str, ...], fill: Fill) -> str:
    match fill:
        case "solid":
            return f"{with_article(colours[0])} background"
        case "horizontal":
            return f"{with_article(colours[0])} to {colours[1]} gradient background"
        case "vertical":
            return f"{with_article(colours[0])} over {colours[1]} gradient background"


class Scenes:
    """`scenes[index]` is a `Scene`; every index from 0 is valid."""

    def __init__(self, config: SceneConfig, *, font: str | None = None) -> None:
        self.config = config
        self.emoji = vocabulary(config.vocabulary)
        self.glyphs = Glyphs(font)
        self._number = {emoji.name: number for number, emoji in enumerate(self.emoji)}
        self._synonyms = synonyms(config.vocabulary)

    def __getitem__(self, index: int) -> Scene:
        return self.render(self.plan(index))

    # What is where, and how it is said

    def plan(self, index: int) -> Plan:
        """The scene of this index, undrawn."""
        if index < 0:
            raise IndexError(f"scene {index}: indices start at 0")
        generator = np.random.default_rng((self.config.seed, index))
        while True:
            plan = self._draw_plan(generator)
            if self.config.split == "all" or not any(is_held_out(plan)):
                return plan

    def _draw_plan(self, generator: np.random.Generator) -> Plan:
        count = 1 + int(generator.choice(len(self.config.objects), p=_shares(self.config.objects)))
        emoji = tuple(self.emoji[i] for i in generator.choice(len(self.emoji), count, replace=False))
        gradient = generator.random() < self.config.gradients
        colours = tuple(str(name) for name in generator.choice(list(COLOURS), 1 + gradient, replace=False))
        fill: Fill = ("horizontal", "vertical")[generator.integers(2)] if gradient else "solid"
        if count == 1:
            size_word = list(SIZES)[generator.choice(3, p=_shares(self.config.sizes))]
            position = ""
            if size_word != "large" and generator.random() < (0.6 if size_word else 0.35):
                position = str(generator.choice(list(POSITIONS)))
            return self.one(emoji[0], colours, fill=fill, size_word=size_word, position=position, generator=generator)
        if count == 2:
            relation = RELATIONS[generator.integers(4)]
            return self.two((emoji[0], emoji[1]), relation, colours, fill=fill, generator=generator)
        return self._several(emoji, colours, fill, generator)

    def one(
        self,
        emoji: Emoji,
        colours: tuple[str, ...],
        *,
        fill: Fill = "solid",
        size_word: str = "",
        position: str = "",
        generator: np.random.Generator,
    ) -> Plan:
        """One object; without a position word it stands near the centre."""
        side = self._side(SIZES[size_word], generator)
        across, down = POSITIONS[position or "in the center"]
        near = 0.0 if position else NEAR
        centre = (self._centre(across, side, near, generator), self._centre(down, side, near, generator))
        noun = self._noun(emoji, generator)
        described = f"{size_word} {noun}" if size_word else noun
        return Plan(
            size=self.config.size,
            caption=self._sentence((described,), position, colours, fill, generator),
            colours=colours,
            fill=fill,
            placements=(Placement(emoji=emoji, side=side, centre=centre),),
            position=position,
        )

    def two(
        self,
        emoji: tuple[Emoji, Emoji],
        relation: str,
        colours: tuple[str, ...],
        *,
        fill: Fill = "solid",
        generator: np.random.Generator,
    ) -> Plan:
        """The first stands in `relation` to the second, each within its own half of the picture."""
        along = 0 if relation.startswith("to the") else 1
        first_half = 0 if relation in ("to the left of", "above") else 1
        placements: list[Placement] = []
        for order, one in enumerate(emoji):
            half = first_half if order == 0 else 1 - first_half
            centre = [0.0, 0.0]
            centre[along] = 0.25 + 0.5 * half
            side = self._side(ONE_OF_SEVERAL, generator)
            centre[1 - along] = self._centre(0.5, side, NEAR, generator)
            placements.append(Placement(emoji=one, side=side, centre=(centre[0], centre[1])))
        nouns = (self._noun(emoji[0], generator), self._noun(emoji[1], generator))
        return Plan(
            size=self.config.size,
            caption=self._sentence(nouns, relation, colours, fill, generator),
            colours=colours,
            fill=fill,
            placements=tuple(placements),
            relation=relation,
        )

    def _several(
        self, emoji: tuple[Emoji, ...], colours: tuple[str, ...], fill: Fill, generator: np.random.Generator
    ) -> Plan:
        quarters = [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]
        generator.shuffle(quarters)
        placements = tuple(
            Placement(emoji=one, side=self._side(ONE_OF_SEVERAL, generator), centre=quarter)
            for one, quarter in zip(emoji, quarters, strict=False)
        )
        nouns = tuple(self._noun(one, generator) for one in emoji)
        caption = self._sentence(nouns, "", colours, fill, generator)
        return Plan(size=self.config.size, caption=caption, colours=colours, fill=fill, placements=placements)

    def _side(self, fraction: float, generator: np.random.Generator) -> int:
        size = self.config.size
        return round(size * fraction * (1.0 if self.config.grid > 1 else generator.uniform(0.94, 1.06)))

    def _centre(self, anchor: float, side: int, near: float, generator: np.random.Generator) -> float:
        """Along one axis, as a fraction: `anchor` 0 to 1 says where the free space goes, give or take `near`."""
        size, grid = self.config.size, self.config.grid
        cell = -(-side // grid) * grid  # the object stands in the middle of whole cells
        free = size - cell
        low, high = max(anchor * free - near * size, 0), min(anchor * free + near * size, free)
        if grid == 1:
            return float(generator.uniform(low, high) + side / 2) / size
        places = [place for place in range(0, free + 1, grid) if low <= place <= high]
        return float((generator.choice(places) if places else round(anchor * free / grid) * grid) + cell / 2) / size

    def _noun(self, emoji: Emoji, generator: np.random.Generator) -> str:
        other = self._synonyms[emoji.name]
        if self.config.plain_captions or not other or generator.random() > 0.12:
            return emoji.name
        return str(generator.choice(other))

    def _sentence(
        self,
        nouns: tuple[str, ...],
        where: str,
        colours: tuple[str, ...],
        fill: Fill,
        generator: np.random.Generator,
    ) -> str:
        """`where`: the position of a single object, or the relation of the first of two to the second."""
        style = 0.0 if self.config.plain_captions else generator.random()
        terse = 0.7 < style < 0.8
        phrases = nouns if terse else tuple(with_article(noun) for noun in nouns)
        match phrases:
            case (one,):
                subject = f"{one} {where}".strip()
            case (first, second) if where:
                subject = f"{first} {where} {second}"
            case _:
                subject = f"{', '.join(phrases[:-1])} and {phrases[-1]}"
        if style >= 0.9:
            return subject
        if terse:
            return f"{subject} on {colours[0]}" if fill == "solid" else subject
        opening = "a picture of " if style >= 0.8 else ""
        return f"{opening}{subject} on {background_phrase(colours, fill)}"

    # How it looks

    def render(self, plan: Plan) -> Scene:
        """Draw a plan; pure."""
        canvas = background(plan)
        boxes, masks = [], np.zeros((len(plan.placements), plan.size, plan.size), np.bool_)
        for number, placement in enumerate(plan.placements):
            glyph = self.glyphs.draw(placement.emoji.character, placement.side)
            height, width = glyph.shape[:2]
            left = min(max(round(placement.centre[0] * plan.size - width / 2), 0), plan.size - width)
            top = min(max(round(placement.centre[1] * plan.size - height / 2), 0), plan.size - height)
            window = canvas[top : top + height, left : left + width]
            window *= 1 - glyph[..., 3:].astype(np.float32) / 255
            window += glyph[..., :3]
            masks[:, top : top + height, left : left + width] &= glyph[..., 3] < 128  # later objects cover earlier ones
            masks[number, top : top + height, left : left + width] = glyph[..., 3] >= 128
            boxes.append((left, top, left + width, top + height))
        return Scene(
            plan=plan,
            picture=np.clip(canvas + 0.5, 0, 255).astype(np.uint8),
            boxes=(np.asarray(boxes) / plan.size).astype(np.float32),
            classes=np.asarray([self._number[one.emoji.name] for one in plan.placements], np.int64),
            masks=masks,
        )


def background(plan: Plan) -> NDArray[np.float32]:
    """H W 3, 0 to 255: one colour, or a linear blend from left to right or from top to bottom."""
    first = np.asarray(COLOURS[plan.colours[0]], np.float32)
    if plan.fill == "solid":
        return np.broadcast_to(first, (plan.size, plan.size, 3)).copy()
    last = np.asarray(COLOURS[plan.colours[1]], np.float32)
    ramp = np.linspace(0, 1, plan.size)[:, None]
    line = ((1 - ramp) * first + ramp * last).astype(np.float32)
    across = line[None] if plan.fill == "horizontal" else line[:, None]
    return np.broadcast_to(across, (plan.size, plan.size, 3)).copy()


def _shares(given: Sequence[float]) -> NDArray[np.float64]:
    """numpy wants a sum of 1 to the eighth digit."""
    return np.divide(given, sum(given))


def is_held_out(plan: Plan) -> Iterator[bool]:
    """One answer for each combination the plan shows: (emoji, colour), (emoji, position), emoji pairs."""
    names = [placement.emoji.name for placement in plan.placements]
    for number, name in enumerate(names):
        for colour in plan.colours:
            yield held_out("colour", name, colour)
        if plan.position:
            yield held_out("position", name, plan.position)
        for other in names[:number]:
            yield held_out("pair", name, other)
