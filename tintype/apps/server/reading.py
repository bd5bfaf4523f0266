"""How a prompt is read, for who types it: tokens, chunks, words that the model never saw."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter
from fastapi import Request as Call
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tintype.apps.server.asked import Refusal
from tintype.apps.server.capabilities import config_of
from tintype.apps.server.schema import LONGEST_PROMPT, MARKS, MOST_CHANGES, Body, check_prompt
from tintype.apps.server.waiting import engine_of
from tintype.apps.tokens import ShownPhase, ShownTower, as_clip, phases
from tintype.conditioning.chunks import Reading
from tintype.conditioning.prompt import Prompt
from tintype.serving.models import Models, Unknown
from tintype.tasks.request import LARGEST_STEPS

if TYPE_CHECKING:
    from tintype.families.base import ConditionerConfig

Reads = Callable[[Prompt], tuple[Reading, ...]]

LONGEST = 20  # phases that are told: an alternation has one a step
MOST_TOKENS = 20_000  # of all phases, after which no further one is told
LONGEST_WORD = 100  # signs of one that are told
MOST_WORK = 300_000  # signs of the prompt language, each as often as the prompt is read
TOGETHER = 2  # prompts that are read at once, so that pictures are drawn meanwhile
STEPS = 20  # where the model's own are not known


class Typed(Body):
    """`model`: whose words count (default: the embedded one's). `steps`: default: that model's own."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Annotated[str, Field(max_length=LONGEST_PROMPT)]
    model: Annotated[str, Field(max_length=500)] = "default"
    prompt_style: Literal["a1111", "plain"] = "a1111"
    steps: Annotated[int, Field(ge=1, le=LARGEST_STEPS)] | None = None


class Read(BaseModel):
    """`by`: the model whose words and room these are; null where they are CLIP's instead: because the model reads no
    prompts, or, where it is not `known`, was never open here and does not tell without being opened."""

    by: str | None
    known: bool
    steps: int
    phases: list[ShownPhase]


def reading_routes() -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["prompts"])
    few = CapacityLimiter(TOGETHER)

    @router.post("/tokens", response_model=Read, responses={404: {"description": "No such model."}})
    async def tokens(call: Call, typed: Typed) -> Response:
        """The texts that a prompt is made of, and each one's tokens as every text tower takes them; the first of them
        where there are many."""
        models = engine_of(call).models
        content = await to_thread.run_sync(lambda: _read(models, typed), limiter=few)
        return Response(content, media_type="application/json")

    return router


def _read(models: Models, typed: Typed) -> bytes:
    name = typed.model or "default"
    try:
        config = config_of(models, name)
    except Unknown as error:
        raise Refusal(404, str(error), "model") from error
    steps = typed.steps or (STEPS if config is None else config.steps)
    own, of_clip, known = None, True, config is not None
    if config is not None and config.conditioner is not None:
        try:
            own, of_clip = reads_of(config.conditioner)
        except ValueError:  # BERT's vocabulary is not on this machine
            known = False
    by = None if own is None else name
    try:
        if typed.prompt_style == "a1111":
            _bound(typed.prompt, steps)
        found = phases(typed.prompt, typed.prompt_style, steps, own or as_clip, of_clip=of_clip)
        read = Read(by=by, known=known, steps=steps, phases=list(_first(found)))
    except ValueError as error:
        sentence = str(error)
        raise Refusal(422, sentence if sentence.startswith("prompt") else f"prompt: {sentence}", "prompt") from error
    return TypeAdapter(Read).dump_json(read)


@functools.lru_cache(maxsize=8)
def reads_of(config: "ConditionerConfig") -> tuple[Reads | None, bool]:
    """How a model of this configuration reads prompts, which takes none of its weights, and whether as CLIP does.
    Raises `ValueError` where its vocabulary is not here."""
    from tintype.conditioning.bert import BertConditioner, BertConfig
    from tintype.conditioning.text import TextConfig, TextReader
    from tintype.conditioning.towers import TextTowersConfig

    match config:
        case TextConfig():
            towers = (TextReader(config),)
        case TextTowersConfig():
            towers = tuple(map(TextReader, config.towers))
        case BertConfig():
            import torch

            with torch.device("meta"):
                bert = BertConditioner(config)
            bert.read("")
            return bert.readings, False
        case _:
            return None, True

    def readings(prompt: Prompt) -> tuple[Reading, ...]:
        texts = prompt.texts(len(towers))
        return tuple(
            tower.read(dataclasses.replace(prompt, text=text)) for tower, text in zip(towers, texts, strict=True)
        )

    return readings, True


def _bound(prompt: str, steps: int) -> None:
    """Raises `ValueError` for a prompt that takes long to be taken apart: all of it, for each step where it changes."""
    check_prompt("prompt", prompt)
    signs, often = len(MARKS.findall(prompt)), steps if "|" in prompt else min(steps, MOST_CHANGES)
    if signs * often > MOST_WORK:
        raise ValueError(f"prompt: got {signs} brackets and marks over {steps} steps; expected fewer of either")


def _first(found: Iterable[ShownPhase]) -> Iterable[ShownPhase]:
    told = 0
    for number, phase in enumerate(found, 1):
        yield dataclasses.replace(phase, towers=tuple(map(_short, phase.towers)))
        told += sum(len(chunk) for tower in phase.towers for chunk in tower.chunks)
        if number == LONGEST or told > MOST_TOKENS:
            return


def _short(tower: ShownTower) -> ShownTower:
    """With the beginnings of long words: each of a word's tokens tells all of it, and a row of signs is one word."""
    chunks = tuple(
        tuple(dataclasses.replace(token, word=token.word[:LONGEST_WORD]) for token in chunk) for chunk in tower.chunks
    )
    return dataclasses.replace(tower, chunks=chunks)
