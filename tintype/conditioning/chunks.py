"""How a prompt becomes the tokens of a text tower: which words it takes, and where one chunk ends. Imports no torch."""

from collections.abc import Iterator
from dataclasses import dataclass

from tintype.conditioning.language import Span, spans
from tintype.conditioning.prompt import Prompt
from tintype.conditioning.tokenizer import tokenize

COMMA = 267  # CLIP's id of a comma
BACKTRACK = 20  # tokens after a comma that may move to the next chunk: A1111's setting of that name
ROOM = 75  # of CLIP's 77 places, without start and end of text


@dataclass(frozen=True, slots=True)
class Token:
    """`id`: in CLIP's vocabulary; `word`: the one it belongs to."""

    id: int
    word: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """How a prompt was understood: its tokens, in chunks of at most `room` (one chunk at least), the words left out
    because the model never saw them, and the words that did not fit."""

    chunks: tuple[tuple[Token, ...], ...]
    unknown: tuple[str, ...]
    cut: tuple[str, ...]
    room: int

    @property
    def ids(self) -> tuple[int, ...]:
        """All of its token ids."""
        return tuple(token.id for chunk in self.chunks for token in chunk)


def read(prompt: Prompt, *, room: int = ROOM, words: frozenset[str] = frozenset()) -> Reading:
    """The tokens of a prompt for a tower with room for so many.

    A model that was taught `words` saw texts of one chunk: what does not fit is cut, by whole words, and so is what
    follows a BREAK. Plain text is cut after `room` tokens. In A1111's style a text goes on in another chunk.
    """
    said = spans(prompt.text) if prompt.style == "a1111" else (Span(prompt.text, 1.0),)
    known: list[tuple[Token, ...]] = []  # () is a BREAK
    unknown: list[str] = []
    for span in said:
        if span.breaks:
            known.append(())
            continue
        for word, ids in tokenize(span.text):
            if words and word not in words:
                unknown.append(word)
            else:
                known.append(tuple(Token(one, word, span.weight) for one in ids))
    names = tuple(dict.fromkeys(unknown))
    if prompt.style == "a1111" and not words:
        return Reading(tuple(_flowing(known, room)), names, (), room)
    chunk, cut = _cut(known, room, whole_words=bool(words))
    return Reading((chunk,), names, cut, room)


def _cut(words: list[tuple[Token, ...]], room: int, *, whole_words: bool) -> tuple[tuple[Token, ...], tuple[str, ...]]:
    chunk: list[Token] = []
    cut: list[str] = []
    broken = False
    for word in words:
        broken = broken or (not word and bool(chunk))
        if not word:
            continue
        if broken or cut or len(chunk) + len(word) > room:
            if not whole_words and not cut:
                chunk += word[: room - len(chunk)]
            cut.append(word[0].word)
        else:
            chunk += word
    return tuple(chunk), tuple(cut)


def _flowing(words: list[tuple[Token, ...]], room: int) -> Iterator[tuple[Token, ...]]:
    """As A1111 fills them: a comma near the end takes what follows it along to the next chunk."""
    chunk: list[Token] = []
    comma, count = -1, 0
    for word in words:
        if not word:
            yield tuple(chunk)
            chunk, comma, count = [], -1, count + 1
        for token in word:
            if token.id == COMMA:
                comma = len(chunk)
            if len(chunk) == room:
                near = token.id != COMMA and comma != -1 and room - comma <= BACKTRACK
                end = comma + 1 if near else room
                yield tuple(chunk[:end])
                chunk, comma, count = chunk[end:], -1, count + 1
            chunk.append(token)
    if chunk or not count:
        yield tuple(chunk)
