"""How a prompt is read, for who types it: tokens, chunks, words that the model never saw."""

import itertools
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException
from fastapi import Request as Call
from pydantic import BaseModel, ConfigDict, Field

from tintype.apps.server.schema import LONGEST_PROMPT
from tintype.apps.server.waiting import engine_of
from tintype.apps.tokens import ShownPhase, as_clip, phases

LONGEST = 20  # phases that are told: an alternation has one a step


class Typed(BaseModel):
    """`model`: whose words count (default: the embedded one's)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Annotated[str, Field(max_length=LONGEST_PROMPT)]
    model: Annotated[str, Field(max_length=500)] = "default"
    prompt_style: Literal["a1111", "plain"] = "a1111"
    steps: Annotated[int, Field(ge=1, le=1000)] = 20


class Read(BaseModel):
    """`by`: the model that read it, where it is open; else it was read with CLIP's vocabulary."""

    by: str | None
    phases: list[ShownPhase]


def reading_routes() -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["prompts"])

    @router.post("/tokens")
    def tokens(call: Call, typed: Typed) -> Read:
        """The texts that a prompt is made of, and each one's tokens as every text tower takes them."""
        current = engine_of(call).models.current
        model = current[1] if current is not None and current[0] == typed.model else None
        by = typed.model if model is not None and model.reads_prompts else None
        reads, of_clip = (as_clip, True) if model is None or by is None else (model.reads.readings, bool(model.towers))
        try:
            found = phases(typed.prompt, typed.prompt_style, typed.steps, reads, of_clip=of_clip)
            return Read(by=by, phases=list(itertools.islice(found, LONGEST)))
        except ValueError as error:
            raise HTTPException(422, str(error)) from error

    return router
