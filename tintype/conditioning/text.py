"""Prompts to conditioning: CLIP's text tower over CLIP's vocabulary, or over the words a small model was taught."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.common.config import added
from tintype.conditioning.chunks import Reading, Token, read
from tintype.conditioning.objects import Objects, ObjectsConfig, ObjectsEncoder
from tintype.conditioning.prompt import Prompt, as_prompt
from tintype.conditioning.tokenizer import END, START, tokenize
from tintype.diffusion.denoiser import Conditioning
from tintype.models.clip import CLIPText, CLIPTextConfig, CLIPTextOutput


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
    or token 0 (SD 2.x and the second tower of SDXL). `objects`: those read beside the text, as tokens after it.
    """

    clip: CLIPTextConfig
    words: tuple[str, ...] = ()
    pooled: bool = False
    layer: int = added(0)
    final_norm: bool = added(True)
    pad: Literal["end", "zero"] = added("end")
    objects: ObjectsConfig | None = added(None)

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

    def readings(self, prompt: Prompt) -> tuple[Reading, ...]:
        """How each text tower reads a prompt."""
        ...


def word_ids(words: Iterable[str]) -> tuple[int, ...]:
    """The CLIP ids these words are made of, and the two that frame a text; sorted."""
    found = {token for word in words for _, ids in tokenize(word) for token in ids}
    return tuple(sorted(found | {START, END}))


def words_of(texts: Iterable[str]) -> tuple[str, ...]:
    """All words (as the tokenizer cuts them) of some texts; sorted."""
    return tuple(sorted({word for text in texts for word, _ in tokenize(text)}))


class TextReader:
    """Texts to token ids, as a tower of this configuration reads them."""

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        self._words = frozenset(config.words)
        ids = word_ids(config.words) if config.words else range(config.clip.vocabulary_size)
        self._number = {token: number for number, token in enumerate(ids)}
        if len(self._number) != config.clip.vocabulary_size:
            raise ValueError(
                f"vocabulary_size {config.clip.vocabulary_size}: the {len(config.words)} words make "
                f"{len(self._number)} tokens; use that number"
            )

    def read(self, prompt: str | Prompt) -> Reading:
        """The tokens of a prompt (its first text), and the words this model does not take."""
        return read(as_prompt(prompt), room=self.config.clip.context_length - 2, words=self._words)

    def tokens(self, prompts: Sequence[str]) -> Tokens:
        """Plain texts, framed and padded to the context length."""
        return self.framed([self.read(prompt).chunks[0] for prompt in prompts])

    def framed(self, chunks: Sequence[Sequence[Token]]) -> Tokens:
        length = self.config.clip.context_length
        start, end = self._number[START], self._number[END]
        pad = 0 if self.config.pad == "zero" else end
        rows = [(start, *(self._number[token.id] for token in chunk), end) for chunk in chunks]
        padded = [row + (pad,) * (length - len(row)) for row in rows]
        return Tokens(torch.tensor(padded), torch.tensor([len(row) - 1 for row in rows]))


class TextConditioner(nn.Module):
    """prompts -> Conditioning(context: B L D, vector: B D when `pooled`)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CLIPText(config.clip)
        self.objects = None if config.objects is None else ObjectsEncoder(config.objects)
        self._reader = TextReader(config)

    def read(self, prompt: str | Prompt) -> Reading:
        """See `TextReader`."""
        return self._reader.read(prompt)

    def readings(self, prompt: Prompt) -> tuple[Reading, ...]:
        """How each tower reads it: here is one."""
        return (self.read(prompt),)

    def tokens(self, prompts: Sequence[str]) -> Tokens:
        """See `TextReader`."""
        return self._reader.tokens(prompts)

    def encode(self, tokens: Tokens, *, clip_skip: int = 1, objects: Objects | None = None) -> Conditioning:
        """The chosen layer, and the pooled text of the last one; then the objects. `clip_skip`: see `Prompt`."""
        return self._with_objects(self._chosen(self.encoder(tokens.ids, tokens.end), clip_skip), objects)

    def encode_embeddings(self, embeddings: Tensor, end: Tensor, *, clip_skip: int = 1) -> Conditioning:
        """`encode` from token embeddings that the caller made, B L D (L at most the context length, positions not yet
        added); end: B, where each text's end-of-text stands. `tintype.inspect` gives those of a prompt."""
        length, width = self.config.clip.context_length, self.config.clip.width
        if embeddings.ndim != 3 or embeddings.shape[1] > length or embeddings.shape[2] != width:
            raise ValueError(f"embeddings {tuple(embeddings.shape)}: expected (batch, up to {length}, {width})")
        if end.shape != embeddings.shape[:1] or not ((end >= 0) & (end < embeddings.shape[1])).all():
            raise ValueError(f"end {end.tolist()}: expected one place below {embeddings.shape[1]} for each text")
        return self._with_objects(self._chosen(self.encoder.transform(embeddings, end), clip_skip), None)

    @torch.no_grad()
    def name_objects(self, names: Sequence[str]) -> None:
        """Let objects begin as the words for them: each class's label as what the tower makes of its name, and no
        object as the end of an empty text."""
        assert self.objects is not None
        assert len(names) == self.objects.config.num_classes
        tokens = self.tokens([*names, ""])
        hidden = self.encoder(tokens.ids, tokens.end).hidden[-1]
        for row, end in enumerate(tokens.end.tolist()):
            said = hidden[row, 1:end] if end > 1 else hidden[row, end : end + 1]
            self.objects.label.weight[row] = F.layer_norm(said.mean(dim=0), said.shape[1:])  # of a place's magnitude
        self.objects.norm.load_state_dict(self.encoder.norm.state_dict())

    def _with_objects(self, cond: Conditioning, objects: Objects | None) -> Conditioning:
        """The tokens of the objects, or of none, after those of the text."""
        if self.objects is None:
            return cond
        assert cond.context is not None
        given = self.objects.rows([()] * len(cond.context)) if objects is None else objects
        return dataclasses.replace(cond, context=torch.cat((cond.context, self.objects(given)), dim=1))

    def _chosen(self, out: CLIPTextOutput, clip_skip: int) -> Conditioning:
        if not 1 <= clip_skip <= self.config.clip.num_layers:
            raise ValueError(f"clip_skip {clip_skip}: expected 1 to {self.config.clip.num_layers}, the tower's layers")
        layer = max(self.config.layer, clip_skip - 1)
        context = out.hidden[-1 - layer]
        if self.config.final_norm:
            context = self.encoder.norm(context) if layer else out.last
        return Conditioning(context=context, vector=out.pooled if self.config.pooled else None)

    def forward(self, prompts: Sequence[str | Prompt]) -> Conditioning:
        """Texts of several chunks have their contexts one after the other; shorter ones get chunks without words. The
        vector is the first chunk's. (A1111's `sd_hijack_clip.py`.)"""
        asked = [as_prompt(prompt) for prompt in prompts]
        cond = self.encode_readings([self.read(prompt) for prompt in asked], clip_skip=one_clip_skip(asked))
        told = [prompt.objects for prompt in asked]
        if self.objects is None and any(told):
            raise ValueError("this model reads no objects beside its text; expected one that does, or no boxes")
        return self._with_objects(cond, None if self.objects is None else self.objects.rows(told))

    def encode_readings(self, readings: Sequence[Reading], *, clip_skip: int, chunks: int = 1) -> Conditioning:
        """A row a reading, as long as the longest or `chunks` chunks."""
        count = max(chunks, *(len(reading.chunks) for reading in readings))
        rows = [chunk for one in readings for chunk in (*one.chunks, *[()] * (count - len(one.chunks)))]
        device = self.encoder.position_embedding.weight.device
        tokens = self._reader.framed(rows)
        cond = self._chosen(self.encoder(tokens.ids.to(device), tokens.end.to(device)), clip_skip)
        assert cond.context is not None
        context = cond.context
        if any(token.weight != 1 for chunk in rows for token in chunk):
            context = emphasised(context, self._weights(rows).to(device))
        context = context.unflatten(0, (len(readings), count)).flatten(1, 2)
        return Conditioning(context=context, vector=None if cond.vector is None else cond.vector[::count])

    def _weights(self, chunks: Sequence[Sequence[Token]]) -> Tensor:
        """One for each place, 1 for the frame and what follows it: B L."""
        weights = torch.ones(len(chunks), self.config.clip.context_length)
        for row, chunk in zip(weights, chunks, strict=True):
            row[1 : 1 + len(chunk)] = torch.tensor([token.weight for token in chunk])
        return weights

    def empty(self, count: int) -> Conditioning:
        """The conditioning of the empty prompt, `count` times."""
        return self([""] * count)


def emphasised(context: Tensor, weights: Tensor) -> Tensor:
    """context: B L D times weights: B L, scaled so that each row keeps its mean (A1111's `EmphasisOriginal`)."""
    weighed = context.float() * weights[..., None]
    mean, changed = (one.mean(dim=(1, 2), keepdim=True) for one in (context.float(), weighed))
    return (weighed * (mean / changed)).to(context)


def one_clip_skip(prompts: Sequence[Prompt]) -> int:
    """That of all prompts of a batch. Raises `ValueError` where they differ."""
    found = {prompt.clip_skip for prompt in prompts}
    if len(found) > 1:
        raise ValueError(f"prompts of one batch ask for clip_skip {sorted(found)}; expected the same for all")
    return found.pop()
