"""Prompts to conditioning: CLIP's text tower over CLIP's vocabulary, or over the words a small model was taught."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tintype.conditioning.prompt import Prompt, as_prompt
from tintype.conditioning.tokenizer import END, START, tokenize
from tintype.diffusion.denoiser import Conditioning
from tintype.models.clip import CLIPText, CLIPTextConfig


class Tokens(NamedTuple):
    """ids: B L int64, padded; end: B, where the first end-of-text stands."""

    ids: Tensor
    end: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """`words`: those the model was taught; its token ids are the sorted CLIP ids of these words, renumbered, and
    `clip.vocabulary_size` is their number. Empty: all of CLIP's vocabulary. `pooled`: also fill the vector slot.

    `layer`: whose hidden states are the context, counted from the end: 0 is the last, 1 the one before; `final_norm`:
    normed by the tower's final norm (SD 1.x and 2.x; not SDXL). `pad`: what follows the first end-of-text, more of it
    or token 0 (SD 2.x and the second tower of SDXL).
    """

    clip: CLIPTextConfig
    words: tuple[str, ...] = ()
    pooled: bool = False
    layer: int = 0
    final_norm: bool = True
    pad: Literal["end", "zero"] = "end"

    def __post_init__(self) -> None:
        if not 0 <= self.layer <= self.clip.num_layers:
            raise ValueError(f"layer {self.layer}: expected 0 to {self.clip.num_layers}, the tower's layers")
        if self.pad == "zero" and self.words:
            raise ValueError("pad 'zero' is token 0 of CLIP's whole vocabulary; expected 'end' for a model with words")


class Conditioner(Protocol):
    """Prompts to conditioning, a row a prompt; a bare string is a prompt read literally."""

    def __call__(self, prompts: Sequence[str | Prompt], /) -> Conditioning: ...

    def empty(self, count: int) -> Conditioning:
        """The conditioning of no words, `count` times."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """How a prompt was understood: its token ids, the words left out because the model never saw them, and the words
    that did not fit."""

    ids: tuple[int, ...]
    unknown: tuple[str, ...]
    cut: tuple[str, ...]


def word_ids(words: Iterable[str]) -> tuple[int, ...]:
    """The CLIP ids these words are made of, and the two that frame a text; sorted."""
    found = {token for word in words for _, ids in tokenize(word) for token in ids}
    return tuple(sorted(found | {START, END}))


def words_of(texts: Iterable[str]) -> tuple[str, ...]:
    """All words (as the tokenizer cuts them) of some texts; sorted."""
    return tuple(sorted({word for text in texts for word, _ in tokenize(text)}))


class TextConditioner(nn.Module):
    """prompts -> Conditioning(context: B L D, vector: B D when `pooled`)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CLIPText(config.clip)
        self._words = frozenset(config.words)
        ids = word_ids(config.words) if config.words else range(config.clip.vocabulary_size)
        self._number = {token: number for number, token in enumerate(ids)}
        if len(self._number) != config.clip.vocabulary_size:
            raise ValueError(
                f"vocabulary_size {config.clip.vocabulary_size}: the {len(config.words)} words make "
                f"{len(self._number)} tokens; use that number"
            )

    def read(self, prompt: str) -> Reading:
        """Token ids of a prompt as this model counts them."""
        room = self.config.clip.context_length - 2
        ids: list[int] = []
        unknown: list[str] = []
        cut: list[str] = []
        for word, tokens in tokenize(prompt):
            if self._words and word not in self._words:
                unknown.append(word)
            elif cut or len(ids) + len(tokens) > room:
                cut.append(word)
            else:
                ids.extend(self._number[token] for token in tokens)
        return Reading(tuple(ids), tuple(dict.fromkeys(unknown)), tuple(cut))

    def tokens(self, prompts: Sequence[str]) -> Tokens:
        """Framed and padded to the context length."""
        length = self.config.clip.context_length
        start, end = self._number[START], self._number[END]
        pad = 0 if self.config.pad == "zero" else end
        rows = [(start, *self.read(prompt).ids, end) for prompt in prompts]
        padded = [row + (pad,) * (length - len(row)) for row in rows]
        return Tokens(torch.tensor(padded), torch.tensor([len(row) - 1 for row in rows]))

    def encode(self, tokens: Tokens, *, clip_skip: int = 1) -> Conditioning:
        """The chosen layer, and the pooled text of the last one. `clip_skip`: see `Prompt`."""
        if not 1 <= clip_skip <= self.config.clip.num_layers:
            raise ValueError(f"clip_skip {clip_skip}: expected 1 to {self.config.clip.num_layers}, the tower's layers")
        out = self.encoder(tokens.ids, tokens.end)
        layer = max(self.config.layer, clip_skip - 1)
        context = out.hidden[-1 - layer]
        if self.config.final_norm:
            context = self.encoder.norm(context) if layer else out.last
        return Conditioning(context=context, vector=out.pooled if self.config.pooled else None)

    def forward(self, prompts: Sequence[str | Prompt]) -> Conditioning:
        device = self.encoder.position_embedding.weight.device
        asked = [as_prompt(prompt) for prompt in prompts]
        tokens = self.tokens([prompt.text for prompt in asked])
        return self.encode(Tokens(tokens.ids.to(device), tokens.end.to(device)), clip_skip=_one_clip_skip(asked))

    def empty(self, count: int) -> Conditioning:
        """The conditioning of the empty prompt, `count` times."""
        return self([""] * count)


def _one_clip_skip(prompts: Sequence[Prompt]) -> int:
    found = {prompt.clip_skip for prompt in prompts}
    if len(found) > 1:
        raise ValueError(f"prompts of one batch ask for clip_skip {sorted(found)}; expected the same for all")
    return found.pop()


def dropped(tokens: Tokens, empty: Tokens, *, rate: float, noise: torch.Generator) -> Tokens:
    """Each row replaced by the empty prompt with probability `rate`, so that the model also learns to do without
    (Ho & Salimans 2022, algorithm 1). `empty` is one row."""
    gone = (torch.rand(len(tokens.end), generator=noise) < rate).to(tokens.ids.device)
    return Tokens(
        torch.where(gone[:, None], empty.ids.to(tokens.ids.device), tokens.ids),
        torch.where(gone, empty.end.to(tokens.end.device), tokens.end),
    )
