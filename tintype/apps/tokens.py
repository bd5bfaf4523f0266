"""`tintype tokens`: how a prompt is understood. Without a model no torch is loaded."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tintype.common.config import to_json
from tintype.conditioning.chunks import Reading, read
from tintype.conditioning.language import Part, Phase, parts, schedule
from tintype.conditioning.prompt import Prompt, PromptStyle
from tintype.conditioning.tokenizer import entry
from tintype.tasks.request import LARGEST_STEPS


@dataclass(frozen=True, slots=True)
class ShownToken:
    """`token`: what the vocabulary has under `id`."""

    id: int
    token: str
    word: str
    weight: float


@dataclass(frozen=True, slots=True)
class ShownTower:
    """What one text tower reads: chunks of at most `room` tokens, and the words it leaves out."""

    room: int
    chunks: tuple[tuple[ShownToken, ...], ...]
    unknown: tuple[str, ...]
    cut: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShownPhase:
    """One text of a prompt: its weight in an AND, the step up to which it holds, what each tower reads."""

    weight: float
    until: int
    text: str
    towers: tuple[ShownTower, ...]


def tokens(arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.steps <= LARGEST_STEPS:
        raise ValueError(f"--steps {arguments.steps}: expected 1 to {LARGEST_STEPS}")
    style: PromptStyle = arguments.prompt_style
    shown = tuple(_phases(arguments.prompt, style, arguments.steps, arguments.model))
    if arguments.json:
        print(json.dumps({"prompt": arguments.prompt, "steps": arguments.steps, "phases": to_json(shown)}))
        return 0
    seen: set[str] = set()
    for phase in shown:  # an alternation has the same texts again and again
        print(f"{phase.text!r}  (weight {phase.weight:g}, until step {phase.until} of {arguments.steps})")
        for line in () if phase.text in seen else _lines(phase):
            print(line)
        seen.add(phase.text)
    return 0


def _phases(text: str, style: PromptStyle, steps: int, model: str | None) -> Iterator[ShownPhase]:
    if model is None:
        return phases(text, style, steps, as_clip, of_clip=True)
    from tintype.checkpoints import load

    loaded = load(model, device="cpu")
    return phases(text, style, steps, loaded.reads.readings, of_clip=bool(loaded.towers))


def as_clip(prompt: Prompt) -> tuple[Reading, ...]:
    """CLIP's own vocabulary, where no model is known."""
    return (read(prompt),)


def phases(
    text: str, style: PromptStyle, steps: int, reads: Callable[[Prompt], Sequence[Reading]], *, of_clip: bool
) -> Iterator[ShownPhase]:
    """The texts of a prompt, each as `reads` understands it; `of_clip`: its ids are CLIP's."""
    sides = parts(text) if style == "a1111" else (Part(text, 1.0),)
    for side in sides:
        for phase in schedule(side.text, steps) if style == "a1111" else (Phase(steps, text),):
            prompt = Prompt(text=phase.text, style=style)
            towers = tuple(_tower(reading, of_clip=of_clip) for reading in reads(prompt))
            yield ShownPhase(side.weight, phase.until, phase.text, towers)


def _tower(reading: Reading, *, of_clip: bool) -> ShownTower:
    chunks = tuple(
        tuple(ShownToken(one.id, entry(one.id) if of_clip else one.word, one.word, one.weight) for one in chunk)
        for chunk in reading.chunks
    )
    return ShownTower(reading.room, chunks, reading.unknown, reading.cut)


def _lines(phase: ShownPhase) -> Iterator[str]:
    for number, tower in enumerate(phase.towers, 1):
        named = f"  tower {number}" if len(phase.towers) > 1 else ""
        for place, chunk in enumerate(tower.chunks, 1):
            yield f"{named}  chunk {place}: {len(chunk)} of {tower.room} tokens"
            for token in chunk:
                yield f"    {token.id:6}  {token.token:20} {token.weight:.4g}"
        for title, words in (("the model never saw", tower.unknown), ("does not fit", tower.cut)):
            if words:
                yield f"{named}  {title}: {', '.join(map(repr, words))}"
