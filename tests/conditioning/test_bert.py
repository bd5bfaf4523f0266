"""BERT's words against transformers, over a vocabulary made here."""

from pathlib import Path

import pytest
import torch
from transformers import BertTokenizer

from tintype.conditioning.bert import BertConditioner, BertConfig
from tintype.conditioning.prompt import Prompt
from tintype.models.token_transformer import TokenTransformerConfig

SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WHOLE = ["!", ",", ".", "'", "-", "a", "the", "red", "apple", "app", "on", "in", "cafe", "na", "猫", "犬", "100", "un"]
WORDS = [*SPECIAL, *WHOLE, "##le", "##s", "##ive", "##want", "##ed", "##runn", "##ing", "##i", "straße", "##e"]
PROMPTS = [
    "A red apple, on the café!",
    "",
    "apples unwanted running",
    "naïve   NAIVE\tred\nred's",
    "猫犬 on 100 zebra apple-zebras",
    "the " * 30,
    "red [SEP] apple [UNK]",
    "a " + "x" * 200 + " apple",
    "a red apple on the apples in a cafe",
]


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return path


def conditioner(vocabulary: Path, *, size: int = len(WORDS), lowercase: bool = True) -> BertConditioner:
    torch.manual_seed(0)
    encoder = TokenTransformerConfig(vocabulary_size=size, context_length=12, width=16, num_layers=1)
    return BertConditioner(BertConfig(encoder=encoder, lowercase=lowercase), vocabulary=vocabulary).eval()


@pytest.mark.parametrize("lowercase", [True, False])
def test_tokens_equal_transformers(vocabulary: Path, lowercase: bool) -> None:
    theirs = BertTokenizer(str(vocabulary), do_lower_case=lowercase)
    expected = theirs(PROMPTS, truncation=True, max_length=12, padding="max_length", return_tensors="pt")
    ids = conditioner(vocabulary, lowercase=lowercase).tokens(PROMPTS)
    assert ids.dtype == torch.int64
    assert ids.tolist() == expected["input_ids"].tolist()


def test_what_was_not_understood_is_named(vocabulary: Path) -> None:
    reading = conditioner(vocabulary).read("A zebra, a Café on ZEBRA in the red apple apples")
    assert reading.unknown == ("zebra", "ZEBRA")
    assert len(reading.ids) == 10
    assert reading.cut == ("apple", "apples")
    assert conditioner(vocabulary).read("a red apple").cut == ()


def test_a_word_cut_through_is_named_whole(vocabulary: Path) -> None:
    reading = conditioner(vocabulary).read("a a a a a a a a a unwanted apple")
    assert reading.cut == ("unwanted", "apple")
    assert reading.ids[-1] == WORDS.index("un")


@torch.inference_mode()
def test_prompts_to_context(vocabulary: Path) -> None:
    reader = conditioner(vocabulary)
    context = reader(["a red apple", ""]).context
    assert context is not None
    assert context.shape == (2, 12, 16)
    assert torch.equal(context, reader.encoder(reader.tokens(["a red apple", ""])))
    empty = reader.empty(2).context
    assert empty is not None
    torch.testing.assert_close(empty, context[[1, 1]])


@torch.inference_mode()
def test_prompts_with_settings(vocabulary: Path) -> None:
    reader = conditioner(vocabulary)
    plain, asked = reader(["a red apple"]).context, reader([Prompt(text="a red apple")]).context
    assert plain is not None
    assert asked is not None
    assert torch.equal(plain, asked)
    with pytest.raises(ValueError, match="clip_skip 2: this model's encoder is not CLIP; expected 1"):
        reader([Prompt(text="a", clip_skip=2)])


@torch.inference_mode()
def test_weights_multiply_the_context(vocabulary: Path) -> None:
    reader = conditioner(vocabulary)
    plain = reader(["a red apples on a"]).context
    weighed = reader([Prompt(text="a (red apples:1.5) on a", style="a1111")]).context
    assert plain is not None
    assert weighed is not None
    weights = torch.ones(12)
    weights[2:5] = 1.5  # [CLS] a | red apple ##s | on a [SEP] ...
    scaled = plain * weights[:, None]
    torch.testing.assert_close(weighed, scaled * plain.mean() / scaled.mean())
    literal = reader.read(Prompt(text="a (red apples:1.5)"))
    assert "(" in literal.unknown


def test_what_follows_a_break_does_not_fit(vocabulary: Path) -> None:
    reading = conditioner(vocabulary).read(Prompt(text="red apples BREAK the unwanted cafe", style="a1111"))
    assert reading.ids == tuple(WORDS.index(word) for word in ("red", "apple", "##s"))
    assert reading.cut == ("the", "unwanted", "cafe")


def test_an_absent_vocabulary_says_what_to_fetch_and_where_to_put_it(tmp_path: Path) -> None:
    reader = conditioner(tmp_path / "vocab.txt")  # is made all the same: a model opens without reading prompts
    with pytest.raises(
        ValueError, match=r"vocab\.txt is missing.*fetch https://\S+vocab\.txt and put it there"
    ) as error:
        reader(["a"])
    assert str(tmp_path / "vocab.txt") in str(error.value)


def test_a_home_folder_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    encoder = TokenTransformerConfig(vocabulary_size=3, context_length=3, width=8, num_layers=1)
    with pytest.raises(ValueError, match="is missing") as error:
        BertConditioner(BertConfig(encoder=encoder)).read("a")
    assert str(tmp_path / ".cache/tintype/bert-base-uncased/vocab.txt") in str(error.value)


def test_another_vocabulary_is_refused(vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"has {len(WORDS)} words; expected BERT's vocabulary of 40"):
        conditioner(vocabulary, size=40).read("a")
    other = tmp_path / "other.txt"
    other.write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"has 2 words and no \[UNK\], \[PAD\], \[CLS\], \[SEP\]"):
        conditioner(other, size=2).read("a")
    other.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"other\.txt is no text"):
        conditioner(other, size=3).read("a")
