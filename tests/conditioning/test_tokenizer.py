import unicodedata
from typing import Protocol

import pytest
from clip_oracles import shipped_merges, their_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tintype.conditioning.tokenizer import END, START, entry, tokenize


def framed(text: str) -> list[int]:
    return [START, *(token for _, ids in tokenize(text) for token in ids), END]


class Oracle(Protocol):
    def __call__(self, text: str) -> dict[str, list[int]]: ...


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return their_tokenizer()


def test_the_vocabulary_has_49408_entries() -> None:
    assert 2 * 256 + len(shipped_merges()) + 2 == 49_408
    assert shipped_merges()[0] == ("i", "n")  # the first merge of OpenAI's file
    assert (START, END) == (49_406, 49_407)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("A picture of a puppy", [49406, 320, 1674, 539, 320, 6829, 49407]),
        ("a photo of a cat", [49406, 320, 1125, 539, 320, 2368, 49407]),
        ("", [49406, 49407]),
    ],
)
def test_known_ids(text: str, ids: list[int]) -> None:
    assert framed(text) == ids


TEXTS = [
    "",
    " ",
    "\n\t a  red\u00a0apple\u3000on\r\n white ",
    "A RED Apple, on a (blue) background!!!",
    "it's we're I'll they'd you've I'M DON'T o'clock 'tis ''s 's's",
    "1234 3.14 1e-5 ½ ² ٣ Ⅷ 1st 2nd",
    "🍎 🍎🍎 apple🍎pie 👩‍🔬 ❤️‍🔥 🇫🇷 👍🏽",
    "café cafe\u0301 CAFE\u0301 Å \u212b ﬁ ① ẞ ß ŉ",
    "İstanbul ΟΔΟΣ Σ ǅ Ⓐ ᾈ",
    "日本語の文章 한국어 ภาษาไทย العربية עברית हिन्दी",
    "a\u0300\u0301b \u0307 \u200d \u200b \ufeff",
    "snake_case kebab-case CamelCase a/b\\c a.b@c.d #tag $5 50% <b>&amp;</b>",
    "--- *** ___ ... ,,, ''' \"\"\" ``` ~~~ ((( )))",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 300,
    "\x01\x7f\x80\x9f\xad",
]


@pytest.mark.parametrize("text", TEXTS)
def test_as_transformers_does(oracle: Oracle, text: str) -> None:
    assert framed(text) == oracle(text)["input_ids"]


PIECES = st.sampled_from(
    ["'s", "'LL", "’s", " ", "\t", "don't", "é", "e\u0301", "🍎", "\u200d", "12", "_", "-", "Ab", "İ"]
)


@given(st.text(max_size=40) | st.lists(PIECES, max_size=12).map("".join) | st.text("'stmdrelv !1a", max_size=20))
@settings(max_examples=300)
@example("a\x85b\x1cc")
@example("K\u212a ſ")
def test_as_transformers_does_with_any_text(oracle: Oracle, text: str) -> None:
    assert framed(text) == oracle(text)["input_ids"]


def test_special_signs_in_a_prompt_are_text() -> None:
    """Here we differ from transformers on purpose: a prompt cannot end itself."""
    for text in ("<|endoftext|>", "<|startoftext|> a cat"):
        assert not {START, END} & set(framed(text)[1:-1])


def test_entries_of_the_vocabulary() -> None:
    assert [entry(token) for token in (320, 6829, END)] == ["a</w>", "puppy</w>", "<|endoftext|>"]
    with pytest.raises(ValueError, match="token 49408: expected 0 to 49407"):
        entry(END + 1)


def test_words_with_their_ids() -> None:
    assert tokenize("A picture of a puppy") == [
        ("a", (320,)),
        ("picture", (1674,)),
        ("of", (539,)),
        ("a", (320,)),
        ("puppy", (6829,)),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A Red  APPLE, please!?", ["a", "red", "apple", ",", "please", "!?"]),
        ("don't we'll", ["don", "'t", "we", "'ll"]),
        ("room 101", ["room", "1", "0", "1"]),
        ("🍎 apple🍎", ["🍎", "apple", "🍎"]),
        ("ΟΔΟΣ ﬁ 日本", ["οδοσ", "ﬁ", "日本"]),  # several tokens a sign: each sign once
        ("CAFE\u0301 café", ["café", "café"]),  # composed, so that both spellings are one word
        ("supercalifragilistic", ["supercalifragilistic"]),
        (" \n ", []),
    ],
)
def test_words_are_whole(text: str, words: list[str]) -> None:
    assert [word for word, _ in tokenize(text)] == words


@given(st.text(max_size=30))
@settings(max_examples=200)
def test_words_are_the_text_without_its_spaces(text: str) -> None:
    words = tokenize(text)
    assert all(ids for _, ids in words)
    expected = "".join(one.lower() for one in unicodedata.normalize("NFC", text))
    assert "".join("".join(word for word, _ in words).split()) == "".join(expected.split())


@given(st.text(max_size=20).map(tokenize))
@settings(max_examples=100)
def test_a_word_alone_has_the_same_ids(words: list[tuple[str, tuple[int, ...]]]) -> None:
    for word, ids in words:
        assert [token for _, alone in tokenize(word) for token in alone] == list(ids)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="half a surrogate pair; expected Unicode text"):
        tokenize("a \ud83c")
