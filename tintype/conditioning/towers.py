"""SDXL's text conditioning: one or two CLIP towers side by side, and the numbers it was trained with."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from tintype.conditioning.chunks import Reading
from tintype.conditioning.prompt import Framing, Prompt, as_prompt
from tintype.conditioning.text import TextConditioner, TextConfig, one_clip_skip
from tintype.diffusion.denoiser import Conditioning
from tintype.nn.embedding import timestep_embedding

FramingNumber = Literal["original_size", "crop", "target_size", "aesthetic_score"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTowersConfig:
    """`towers`: their contexts stand side by side (features); the last one's pooled text is where the vector begins.
    `numbers`: what of a `Framing` follows there, in this order, each number as `number_dim` cosines and sines.
    `zeros_for_empty`: an empty negative prompt is zeros, not the towers' reading of no words (SDXL base). `size`: side
    of the picture that a prompt is for when it does not say."""

    towers: tuple[TextConfig, ...]
    numbers: tuple[FramingNumber, ...] = ("original_size", "crop", "target_size")
    number_dim: int = 256
    zeros_for_empty: bool = False
    size: int = 1024

    def __post_init__(self) -> None:
        if not self.towers or not self.towers[-1].pooled:
            raise ValueError("towers: expected one or more, the last with pooled=True; the vector begins with its text")


class TextTowers(nn.Module):
    """prompts -> Conditioning(context: B L D, vector: B V), V the last tower's pooled text and `number_dim` for each
    number (Podell et al. 2023, sections 2.1 and 2.2)."""

    def __init__(self, config: TextTowersConfig) -> None:
        super().__init__()
        self.config = config
        self.towers = nn.ModuleList(TextConditioner(tower) for tower in config.towers)

    @property
    def conditioners(self) -> tuple[TextConditioner, ...]:
        """The towers, each a conditioner of its own."""
        return tuple(cast("TextConditioner", tower) for tower in self.towers)

    def forward(self, prompts: Sequence[str | Prompt]) -> Conditioning:
        asked = [as_prompt(prompt) for prompt in prompts]
        readings = [self.readings(prompt) for prompt in asked]
        chunks = max(len(one.chunks) for reading in readings for one in reading)
        skip = one_clip_skip(asked)
        read = [
            tower.encode_readings(column, clip_skip=skip, chunks=chunks)
            for tower, column in zip(self.conditioners, zip(*readings, strict=True), strict=True)
        ]
        context = torch.cat([_given(one.context) for one in read], dim=-1)
        pooled = _given(read[-1].vector)
        if self.config.zeros_for_empty:
            kept = [0.0 if prompt.negative and prompt.empty else 1.0 for prompt in asked]
            keep = torch.tensor(kept, device=context.device, dtype=context.dtype)
            context, pooled = keep[:, None, None] * context, keep[:, None] * pooled
        return Conditioning(context=context, vector=torch.cat((pooled, self._numbers(asked).to(pooled)), dim=-1))

    def readings(self, prompt: Prompt) -> tuple[Reading, ...]:
        """How each tower reads its text of a prompt."""
        texts = prompt.texts(len(self.towers))
        return tuple(
            tower.read(dataclasses.replace(prompt, text=text))
            for tower, text in zip(self.conditioners, texts, strict=True)
        )

    def empty(self, count: int) -> Conditioning:
        """The conditioning of an empty negative prompt, `count` times."""
        return self([Prompt(text="", negative=True)] * count)

    def _numbers(self, prompts: Sequence[Prompt]) -> Tensor:
        """B numbers*number_dim."""
        side = self.config.size
        default = Framing(original_size=(side, side), target_size=(side, side))
        rows = [self._row(prompt.framing or default) for prompt in prompts]
        return timestep_embedding(torch.tensor(rows), self.config.number_dim).flatten(1)

    def _row(self, framing: Framing) -> list[float]:
        row: list[float] = []
        for name in self.config.numbers:
            value = getattr(framing, name)
            row += value if isinstance(value, tuple) else (value,)
        return row


def _given(slot: Tensor | None) -> Tensor:
    assert slot is not None
    return slot
