r"""A1111's prompt language: text to data, before any tokenizer. Imports nothing heavy.

Three layers, taken apart in this order:

1. `a AND b :1.2` is two prompts, each with a weight (`parts`);
2. `[a:b:0.5]`, `[a:b:12]`, `[a::0.5]`, `[:b:0.5]` and `[a|b|c]` change with the step (`schedule`);
3. `(a)` is 1.1 times as strong, `[a]` 1.1 times weaker, `(a:1.3)` as strong as it says, BREAK ends a chunk, and
   `\(`, `\)`, `\[`, `\]`, `\\` are signs (`spans`).

What the language does not understand is text. The results are those of A1111's `modules/prompt_parser.py` (version
1.10); the parser of schedules is our own, since one pass with a stack does what there takes an Earley parser.
"""

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache

BRACKET = 1.1  # what one pair of round brackets is worth


@dataclass(frozen=True, slots=True)
class Part:
    """One side of an AND."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Phase:
    """A text that holds up to step `until`, where the next one begins."""

    until: int
    text: str


@dataclass(frozen=True, slots=True)
class Span:
    """Text of one weight. `breaks`: it is a BREAK, the end of a chunk, and has no text."""

    text: str
    weight: float
    breaks: bool = False


# AND

AND = re.compile(r"\bAND\b")
TRAILING_WEIGHT = re.compile(r"(?<!\s)(?:\s*:\s*([-+]?(?:[0-9]+\.?|[0-9]*\.[0-9]+)))?\s*\Z")


def parts(prompt: str) -> tuple[Part, ...]:
    """The prompts that AND joins. A number after the last colon of a part is its weight, with or without an AND."""
    found: list[Part] = []
    for text in AND.split(prompt):
        tail = TRAILING_WEIGHT.search(text)
        assert tail is not None  # it matches the end
        found.append(Part(text[: tail.start()], float(tail[1] or 1)))
    return tuple(found)


# Schedules

PIECE = re.compile(r"\\.|[^\\\[\]():|]+|[\[\]():|]")
WHEN = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")


@dataclass(slots=True)
class _Open:
    """A bracket whose end is not found yet: its sides, and what parts them. `bare`: the side holds no bracket."""

    bracket: str
    sides: list[str] = field(default_factory=lambda: [""])
    bare: list[bool] = field(default_factory=lambda: [True])
    marks: list[str] = field(default_factory=list[str])

    def append(self, text: str, *, bare: bool) -> None:
        self.sides[-1] += text
        self.bare[-1] = self.bare[-1] and bare

    def part(self, mark: str) -> None:
        self.sides.append("")
        self.bare.append(True)
        self.marks.append(mark)

    def text(self) -> str:
        marks = [*self.marks, ""]
        return self.bracket + "".join(side + mark for side, mark in zip(self.sides, marks, strict=True))


class _Unreadable(Exception):
    """The prompt holds a `|` or a `\\` outside all that the language knows: A1111 leaves such a prompt as it is."""


@lru_cache(maxsize=64)
def schedule(text: str, steps: int) -> tuple[Phase, ...]:
    """The texts a prompt stands for and the steps up to which they hold; the last one's is `steps`.

    A number with a point is a share of the steps, one without is a step. `[a|b]` has a phase for each step.
    """
    try:
        _, ends = _at(text, steps, steps)
        return tuple(Phase(end, _at(text, end, steps)[0]) for end in sorted(ends))
    except _Unreadable:
        return (Phase(steps, text),)


def at_call(phases: tuple[Phase, ...], call: int) -> str:
    """The text of the `call`-th time that the network is asked, from 0.

    A1111 compares this number with steps counted from 1, so a first phase of n steps holds for n + 1 of them.
    """
    return next((phase.text for phase in phases if call <= phase.until), phases[0].text)


def _at(text: str, step: int, steps: int) -> tuple[str, set[int]]:
    """The text at one step, and the ends of all phases."""
    done, stack, ends, position = _Open(""), list[_Open](), {steps}, 0
    while position < len(text):
        piece = PIECE.match(text, position)
        if piece is None:
            raise _Unreadable
        position, sign, top = piece.end(), piece[0], stack[-1] if stack else done
        if sign in "([":
            stack.append(_Open(sign))
        elif sign in ":|" and stack:
            top.part(sign)
        elif sign in ")]" and stack:
            closed = _closed(stack.pop(), sign, step, steps, ends)
            if closed is None:  # a stray bracket makes all brackets around it stray ones
                done.append(_literal([*stack, top]) + sign, bare=True)
                stack.clear()
            else:
                (stack[-1] if stack else done).append(closed, bare=False)
        elif sign == "|":
            raise _Unreadable
        else:
            top.append(sign, bare=True)
    return done.text() + _literal(stack), ends


def _literal(stack: list[_Open]) -> str:
    if any("|" in one.marks for one in stack):
        raise _Unreadable
    return "".join(one.text() for one in stack)


def _closed(one: _Open, sign: str, step: int, steps: int, ends: set[int]) -> str | None:
    """What a pair of brackets says at a step, or None where they are no pair."""
    marks = "".join(one.marks)
    if one.bracket == "(":
        return one.text() + ")" if sign == ")" and marks in ("", ":") else None
    if sign != "]":
        return None
    if not marks:
        return one.text() + "]"
    if set(marks) == {"|"}:
        ends.update(range(1, steps + 1))
        return one.sides[(step - 1) % len(one.sides)]
    number = WHEN.fullmatch(one.sides[-1]) if one.bare[-1] and marks in (":", "::") else None
    if number is None:
        return None
    when = float(number[1]) * (steps if "." in number[1] else 1)
    end = int(min(max(when, 0), steps))
    ends.update({end} - {0})
    before = one.sides[0] if marks == "::" else ""
    return before if step <= end else one.sides[-2]


# Weights

SIGN = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:\s*([+-]?[.0-9]+)\s*\)|\)|]|[^\\()\[\]:]+|:")
BREAK = re.compile(r"(?:(?<!\s)\s+)?\bBREAK\b\s*")  # not from each of many blanks anew


def spans(text: str) -> tuple[Span, ...]:
    """Text with its weights; neighbours of equal weight are one span. At least one span.

    Raises `ValueError` for a weight that is no number, or larger than numbers can be.
    """
    found: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(first: int, factor: float) -> None:
        found[first:] = [(one, weight * factor) for one, weight in found[first:]]

    for match in SIGN.finditer(text):
        sign = match[0]
        if sign.startswith("\\"):
            found.append((sign[1:], 1.0))
        elif sign in opened:
            opened[sign].append(len(found))
        elif match[1] is not None and opened["("]:
            weigh(opened["("].pop(), _weight(match[1], text))
        elif sign == ")" and opened["("]:
            weigh(opened["("].pop(), BRACKET)
        elif sign == "]" and opened["["]:
            weigh(opened["["].pop(), 1 / BRACKET)
        else:
            first, *rest = BREAK.split(sign)
            found.append((first, 1.0))
            for one in rest:
                found += [("BREAK", -1.0), (one, 1.0)]
    for bracket, factor in (("(", BRACKET), ("[", 1 / BRACKET)):
        for first in opened[bracket]:
            weigh(first, factor)
    return _merged(found or [("", 1.0)])


def _weight(number: str, text: str) -> float:
    try:
        return float(number)
    except ValueError as error:
        raise ValueError(f"{text!r}: weight {number!r}; expected a number, such as (word:1.2)") from error


def _merged(found: list[tuple[str, float]]) -> tuple[Span, ...]:
    merged: list[tuple[str, float]] = []
    for text, weight in found:
        if not math.isfinite(weight):
            raise ValueError(f"the weight of {text!r} is too large; expected fewer brackets or a smaller number")
        if merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + text, weight)
        else:
            merged.append((text, weight))
    # BREAK is one by its weight, as there: within brackets that weigh it is a word
    breaks = ("BREAK", -1.0)
    return tuple(Span("" if one == breaks else one[0], one[1], one == breaks) for one in merged)
