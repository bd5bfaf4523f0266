"""Prompts to conditioning by BERT's words: WordPiece and the transformer that latent-diffusion trained on it.

BERT's vocabulary is not part of this package: it is read from the user's `vocab.txt`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn

from tintype.conditioning.chunks import Reading, Token
from tintype.conditioning.prompt import Prompt, as_prompt
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
        """A prompt's text, taken literally: its tokens, words that are not in the vocabulary, words that did not
        fit."""
        text = as_prompt(prompt).text
        pieces = self._tokenizer().encode(text, add_special_tokens=False)
        room = self.config.encoder.context_length - 2
        words = [text[slice(*pieces.token_to_chars(place))] for place in range(len(pieces))]
        unknown = [word for word, token in zip(words, pieces.tokens, strict=True) if token == UNKNOWN]
        cut = dict.fromkeys(number for number in pieces.word_ids[room:] if number is not None)
        return Reading(
            (tuple(Token(token, word) for token, word in zip(pieces.ids[:room], words, strict=False)),),
            tuple(dict.fromkeys(unknown)),
            tuple(text[slice(*pieces.word_to_chars(number))] for number in cut),
            room,
        )

    def readings(self, prompt: Prompt) -> tuple[Reading, ...]:
        """How each tower reads it: here is one."""
        return (self.read(prompt),)

    def tokens(self, prompts: Sequence[str | Prompt]) -> Tensor:
        """B L int64, framed, cut and padded to the encoder's length."""
        start, end, padding = (self._tokenizer().token_to_id(token) for token in (START, END, PADDING))
        rows = [(start, *self.read(prompt).ids, end) for prompt in prompts]
        length = self.config.encoder.context_length
        return torch.tensor([row + (padding,) * (length - len(row)) for row in rows])

    def encode(self, ids: Tensor) -> Conditioning:
        """ids: B L. Padding is read like words, as in training."""
        return Conditioning(context=self.encoder(ids))

    def forward(self, prompts: Sequence[str | Prompt]) -> Conditioning:
        """Raises `ValueError` when the vocabulary is absent or another."""
        return self.encode(self.tokens(prompts).to(self.encoder.position_embedding.weight.device))

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
