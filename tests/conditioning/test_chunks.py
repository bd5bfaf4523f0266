"""Where A1111's chunks end, and what a model of one chunk cuts. Numbers of tokens are counted by hand: "apple" is one
token, a comma is one."""

import subprocess
import sys

import pytest

from tintype.conditioning.chunks import COMMA, ROOM, Reading, read
from tintype.conditioning.prompt import Prompt
from tintype.conditioning.tokenizer import tokenize

APPLE = tokenize("apple")[0][1][0]


def reading(text: str, *, style: str = "a1111", words: tuple[str, ...] = (), room: int = ROOM) -> Reading:
    return read(Prompt(text=text, style=style), room=room, words=frozenset(words))


def lengths(text: str) -> list[int]:
    found = reading(text)
    assert found.cut == ()
    assert found.unknown == ()
    return [len(chunk) for chunk in found.chunks]


def apples(count: int) -> str:
    return "apple " * count


def test_the_comma_is_the_comma() -> None:
    assert tokenize(",") == [(",", (COMMA,))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0]),
        (apples(75), [75]),
        (apples(76), [75, 1]),
        (apples(151), [75, 75, 1]),
        # a comma takes up to twenty tokens along, itself staying
        (apples(70) + ", " + apples(4), [75]),
        (apples(70) + ", " + apples(5), [71, 5]),
        (apples(55) + ", " + apples(20), [56, 20]),  # 20 tokens back from the end
        (apples(54) + ", " + apples(21), [75, 1]),  # 21: too far
        (apples(74) + ", " + apples(3), [75, 3]),
        (apples(75) + ", " + apples(3), [75, 4]),  # a comma that does not fit moves alone
        (apples(60) + ", " + apples(14) + ", " + apples(2), [75, 3]),
        (apples(70) + ", " + apples(80), [71, 75, 5]),  # a comma left behind is forgotten
        # BREAK
        ("apple BREAK apple apple", [1, 2]),
        ("apple BREAK", [1]),
        ("BREAK apple", [0, 1]),
        ("BREAK BREAK", [0, 0]),
        (apples(75) + "BREAK apple", [75, 1]),
        (apples(70) + ", BREAK " + apples(80), [71, 75, 5]),
        ("break apple", [2]),
    ],
)
def test_chunks(text: str, expected: list[int]) -> None:
    assert lengths(text) == expected


def test_nothing_is_lost_between_chunks() -> None:
    text = " ".join(f"word{number}," for number in range(100))
    expected = tuple(token for _, ids in tokenize(text) for token in ids)
    assert reading(text).ids == expected
    assert len(reading(text).chunks) > 4


def test_a_word_may_be_parted_by_the_end_of_a_chunk() -> None:
    pieces = tokenize("axolotl")[0][1]
    found = reading(apples(74) + "axolotl")
    assert [token.id for token in found.chunks[0][74:]] == [pieces[0]]
    assert [token.id for token in found.chunks[1]] == list(pieces[1:])


def test_every_token_has_the_weight_of_its_span() -> None:
    (chunk,) = reading("a (red axolotl:1.5), [apple]").chunks
    by_word = {token.word: token.weight for token in chunk}
    assert by_word == {"a": 1.0, "red": 1.5, "axolotl": 1.5, ",": 1.0, "apple": 1 / 1.1}


def test_weighted_text_is_read_on_its_own() -> None:
    """A1111 hands each span to the tokenizer by itself."""
    (chunk,) = reading("foot(ball:1.2)").chunks
    assert [token.word for token in chunk] == ["foot", "ball"]


def test_plain_text_is_literal_and_cut() -> None:
    (chunk,) = reading("(apple:1.2) BREAK", style="plain").chunks
    assert [token.word for token in chunk] == ["(", "apple", ":", "1", ".", "2", ")", "break"]
    assert {token.weight for token in chunk} == {1.0}
    found = reading(apples(74) + "axolotl apple", style="plain")
    pieces = tokenize("axolotl")[0][1]
    assert found.ids == (APPLE,) * 74 + pieces[:1]  # as diffusers cuts, within a word
    assert found.cut == ("axolotl", "apple")


@pytest.mark.parametrize("style", ["a1111", "plain"])
def test_a_model_of_some_words_reads_one_chunk(style: str) -> None:
    words = ("apple", "red")
    found = reading("red apple zebra red", style=style, words=words, room=2)
    assert len(found.chunks) == 1
    assert [token.word for token in found.chunks[0]] == ["red", "apple"]
    assert (found.cut, found.unknown, found.room) == (("red",), ("zebra",), 2)


def test_what_follows_a_break_is_cut_for_a_model_of_one_chunk() -> None:
    found = reading("red BREAK apple", words=("apple", "red"))
    assert [token.word for token in found.chunks[0]] == ["red"]
    assert found.cut == ("apple",)


def test_no_torch_is_needed() -> None:
    code = "import sys; import tintype.conditioning.chunks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
