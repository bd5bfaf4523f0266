"""The emoji a scene may show: Unicode's names and keywords (`emoji.tsv`), and two vocabularies of them."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

VocabularySize = Literal[256, 984]


@dataclass(frozen=True, kw_only=True, slots=True)
class Emoji:
    """One drawable emoji. `keywords` are CLDR's English synonyms; many are shared between emoji."""

    character: str
    name: str
    group: str
    subgroup: str
    version: float
    keywords: tuple[str, ...]


def _lines(file: str) -> list[str]:
    return (resources.files("tintype.data") / file).read_text(encoding="utf-8").splitlines()


@cache
def emoji_table() -> tuple[Emoji, ...]:
    """All 984 drawable emoji, in Unicode's order."""
    rows = (line.split("\t") for line in _lines("emoji.tsv"))
    return tuple(
        Emoji(
            character=character,
            name=name,
            group=group,
            subgroup=subgroup,
            version=float(version),
            keywords=tuple(keyword for keyword in keywords.split("|") if keyword),
        )
        for character, name, group, subgroup, version, keywords in rows
    )


@cache
def vocabulary(size: VocabularySize) -> tuple[Emoji, ...]:
    """The whole table (984), or the 256 of `emoji_256.txt`: short names, old and well known, no two alike."""
    if size == len(emoji_table()):
        return emoji_table()
    chosen = set(_lines("emoji_256.txt"))
    return tuple(emoji for emoji in emoji_table() if emoji.name in chosen)


@cache
def synonyms(size: VocabularySize) -> dict[str, tuple[str, ...]]:
    """Emoji name -> the keywords (plain words, at most two) that no other emoji of the vocabulary shares."""
    owners: dict[str, list[str]] = {}
    for emoji in vocabulary(size):
        for word in {emoji.name, *emoji.keywords}:
            owners.setdefault(word, []).append(emoji.name)
    return {
        emoji.name: tuple(
            word
            for word in dict.fromkeys(emoji.keywords)
            if owners[word] == [emoji.name]
            and word.replace(" ", "").isalpha()
            and word.count(" ") < 2
            and word not in emoji.name.split()
        )
        for emoji in vocabulary(size)
    }
