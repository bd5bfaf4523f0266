"""Prompts to conditioning by BERT's words: WordPiece and the transformer that latent-diffusion trained on it.

BERT's vocabulary is not part of this package: it is read from the user's `vocab.txt`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn

from tintype.conditioning.chunks import Reading, Token
from tintype.conditioning.language import Span, spans
from tintype.conditioning.prompt import Prompt, as_prompt
from tintype.conditioning.text import emphasised, one_clip_skip
from tintype.diffusion.denoiser import Conditioning
from tintype.models.token_transformer import TokenTransformer, TokenTransformerConfig

VOCABULARY = Path("~/.cache/tintype/bert-base-uncased/vocab.txt")
SOURCE = "https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt"
UNKNOWN, PADDING, START, END = "[UNK]", "[PAD]", "[CLS]", "[SEP]"


@dataclass(frozen=True, kw_only=True, slots=True)
class BertConfig:
    """`lowercase`: as in bert-base-uncased, accents are removed as well."""

    encoder: TokenTransformerConfig
    lowercase: bool = True


class BertConditioner(nn.Module):
    """prompts -> Conditioning(context: B L D). `vocabulary`: BERT's `vocab.txt`, read when a prompt is."""

    def __init__(self, config: BertConfig, *, vocabulary: Path = VOCABULARY) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.encoder = TokenTransformer(config.encoder)

    def read(self, prompt: str | Prompt) -> Reading:
        """Token ids without those that frame a text, words that are not in the vocabulary, words that did not fit. The
        encoder reads one chunk: as for a model that was taught words, what follows a BREAK does not fit."""
        asked, room = as_prompt(prompt), self.config.encoder.context_length - 2
        said = spans(asked.text) if asked.style == "a1111" else (Span(asked.text, 1.0),)
        first = list(takewhile(lambda span: not span.breaks, said))
        tokens = [token for span in first for token in self._pieces(span)]
        rest = tokens[room:] + [token for span in said[len(first) :] for token in self._pieces(span)]
        unknown = [token.word for token, _ in tokens if token.id == self._tokenizer().token_to_id(UNKNOWN)]
        cut = [token.word for place, (token, goes_on) in enumerate(rest) if not (goes_on and place)]
        chunk = tuple(token for token, _ in tokens[:room])
        return Reading((chunk,), tuple(dict.fromkeys(unknown)), tuple(cut), room)

    def _pieces(self, span: Span) -> list[tuple[Token, bool]]:
        """Each with the whole word it belongs to, and whether it goes on with one."""
        pieces = self._tokenizer().encode(span.text, add_special_tokens=False)
        found: list[tuple[Token, bool]] = []
        for place, (token, number) in enumerate(zip(pieces.ids, pieces.word_ids, strict=True)):
            chars = pieces.token_to_chars(place) if number is None else pieces.word_to_chars(number)
            found.append((Token(token, span.text[slice(*chars)], span.weight), pieces.tokens[place].startswith("##")))
        return found

    def readings(self, prompt: Prompt) -> tuple[Reading, ...]:
        """How the encoder reads it."""
        return (self.read(prompt),)

    def tokens(self, prompts: Sequence[str | Prompt]) -> Tensor:
        """B L int64, framed, cut and padded to the encoder's length."""
        return self._framed([self.read(prompt) for prompt in prompts])

    def _framed(self, readings: Sequence[Reading]) -> Tensor:
        start, end, padding = (self._tokenizer().token_to_id(token) for token in (START, END, PADDING))
        rows = [(start, *reading.ids, end) for reading in readings]
        length = self.config.encoder.context_length
        return torch.tensor([row + (padding,) * (length - len(row)) for row in rows])

    def encode(self, ids: Tensor) -> Conditioning:
        """ids: B L. Padding is read like words, as in training."""
        return Conditioning(context=self.encoder(ids))

    def forward(self, prompts: Sequence[str | Prompt]) -> Conditioning:
        """Raises `ValueError` when the vocabulary is absent or another, and for a `clip_skip`."""
        asked = [as_prompt(prompt) for prompt in prompts]
        if (skip := one_clip_skip(asked)) != 1:
            raise ValueError(f"clip_skip {skip}: this model's encoder is not CLIP; expected 1")
        readings = [self.read(prompt) for prompt in asked]
        context = self.encoder(self._framed(readings).to(self.encoder.position_embedding.weight.device))
        if any(token.weight != 1 for reading in readings for token in reading.chunks[0]):
            context = emphasised(context, self._weights(readings).to(context.device))
        return Conditioning(context=context)

    def _weights(self, readings: Sequence[Reading]) -> Tensor:
        """One for each place, 1 for the frame and what follows it: B L."""
        weights = torch.ones(len(readings), self.config.encoder.context_length)
        for row, reading in zip(weights, readings, strict=True):
            row[1 : 1 + len(reading.ids)] = torch.tensor([token.weight for token in reading.chunks[0]])
        return weights

    def empty(self, count: int) -> Conditioning:
        """The conditioning of the empty prompt, `count` times."""
        return self([""] * count)

    def _tokenizer(self) -> BertWordPieceTokenizer:
        return _word_pieces(
            self.vocabulary.expanduser(), size=self.config.encoder.vocabulary_size, lowercase=self.config.lowercase
        )


@lru_cache(maxsize=4)
def _word_pieces(path: Path, *, size: int, lowercase: bool) -> BertWordPieceTokenizer:
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: this model's text encoder reads BERT's vocabulary, which tintype does not ship; "
            f"fetch {SOURCE} and put it there"
        )
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}); expected BERT's vocabulary; fetch {SOURCE}") from error
    words = {word: number for number, word in enumerate(lines)}
    absent = [token for token in (UNKNOWN, PADDING, START, END) if token not in words]
    if absent or len(words) != size:
        lacking = f" and no {', '.join(absent)}" if absent else ""
        raise ValueError(
            f"{path} has {len(words)} words{lacking}; expected BERT's vocabulary of {size}, as many as the encoder has "
            f"vectors for; fetch {SOURCE}"
        )
    return BertWordPieceTokenizer(words, lowercase=lowercase)
