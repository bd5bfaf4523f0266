import re

import pytest

from tintype.data.emoji import emoji_table, synonyms, vocabulary


def test_the_table_holds_984_drawable_things() -> None:
    table = emoji_table()
    assert len(table) == 984
    for one in ("character", "name"):
        assert len({getattr(emoji, one) for emoji in table}) == 984
    assert {emoji.group for emoji in table} == {
        "Smileys & Emotion",
        "Animals & Nature",
        "Food & Drink",
        "Travel & Places",
        "Activities",
        "Objects",
    }
    for emoji in table:
        assert emoji.name == emoji.name.lower().strip()
        assert emoji.subgroup != "time"
        assert 0.6 <= emoji.version <= 17


def test_no_flags_skin_tones_or_people() -> None:
    flags = re.compile("[\U0001f1e6-\U0001f1ff\U0001f3f4\U0001f3f3\U000e0020-\U000e007f]")
    skin = re.compile("[\U0001f3fb-\U0001f3ff]")
    people = re.compile("[\U0001f466-\U0001f469\U0001f9d1\u2640\u2642]")
    for emoji in emoji_table():
        for pattern in (flags, skin, people):
            assert not pattern.search(emoji.character), emoji


def test_an_entry_of_the_table() -> None:
    apple = next(emoji for emoji in emoji_table() if emoji.name == "red apple")
    assert (apple.character, apple.group, apple.subgroup, apple.version) == ("🍎", "Food & Drink", "food-fruit", 0.6)
    assert "apple" in apple.keywords


def test_the_small_vocabulary_is_256_of_them_in_the_same_order() -> None:
    names = [emoji.name for emoji in vocabulary(256)]
    assert len(names) == len(set(names)) == 256
    assert "red apple" in names
    all_names = [emoji.name for emoji in vocabulary(984)]
    assert len(all_names) == 984
    assert names == [name for name in all_names if name in names]


@pytest.mark.parametrize("size", [256, 984])
def test_a_synonym_means_one_emoji(size: int) -> None:
    found = synonyms(size)
    names = {emoji.name for emoji in vocabulary(size)}
    assert found.keys() == names
    words = [word for others in found.values() for word in others]
    assert len(words) == len(set(words)) > size // 2
    assert not names & set(words)
    for emoji in vocabulary(size):
        for word in found[emoji.name]:
            assert word in emoji.keywords
            assert re.fullmatch(r"[^\W\d_]+( [^\W\d_]+)?", word)
            assert all(word not in other.keywords for other in vocabulary(size) if other != emoji)
