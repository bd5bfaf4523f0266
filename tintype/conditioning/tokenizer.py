"""CLIP's byte-pair tokenizer, run by the `tokenizers` library from the merges shipped here."""

import gzip
from functools import cache
from importlib import resources

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

START, END = 49_406, 49_407
PIECE = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # a word, a digit, or a run of other signs


def _bytes() -> list[str]:
    """The 256 bytes as printable characters, in the order of GPT-2's table: printable ones first, as themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The ids of all pieces, and the merges that make them; what transformers calls vocab.json and merges.txt."""
    packed = (resources.files("tintype.conditioning") / "clip_merges.txt.gz").read_bytes()
    pairs = (line.split(" ") for line in gzip.decompress(packed).decode("utf-8").split("\n"))
    merges = [(first, second) for first, second in pairs]
    units = _bytes()
    entries = [*units, *(unit + "</w>" for unit in units), *(first + second for first, second in merges)]
    return {entry: number for number, entry in enumerate([*entries, "<|startoftext|>", "<|endoftext|>"])}, merges


@cache
def _tokenizer() -> Tokenizer:
    pieces, merges = vocabulary()
    tokenizer = Tokenizer(
        BPE(
            vocab=pieces,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def tokenize(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """The words of a text, composed (NFC) and lower-cased, each with its token ids (without start and end of text).

    The signs of "<|endoftext|>" in a text are signs like others. Raises `ValueError` for half a surrogate pair.

    "A picture of a puppy" -> [("a", (320,)), ("picture", (1674,)), ("of", (539,)), ("a", (320,)), ("puppy", (6829,))]
    """
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError(f"{text!r} holds half a surrogate pair; expected Unicode text")
    tokenizer = _tokenizer()
    text = tokenizer.normalizer.normalize_str(text)
    return [
        (text[begin:end], tuple(token.id for token in tokenizer.model.tokenize(piece)))
        for piece, (begin, end) in tokenizer.pre_tokenizer.pre_tokenize_str(text)
    ]


def entry(token: int) -> str:
    """What CLIP's vocabulary has under an id: bytes as printable characters, "</w>" at the end of a word."""
    found = _tokenizer().id_to_token(token)
    if found is None:
        raise ValueError(f"token {token}: expected 0 to {END}")
    return found
