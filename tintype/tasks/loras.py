"""The LoRA files that a request names, each with its strength."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from tintype.common.hashes import digest

STRONGEST = 10.0
TOLD = re.compile(r"(.+)@([0-9a-f]{10})")  # by a picture: a file's name and digest


def read_lora(text: str) -> tuple[str, float]:
    """«FILE» or «FILE:STRENGTH» as the file and its strength, usually 1. Raises `ValueError` for a strength that is
    none."""
    name, colon, last = text.rpartition(":")
    try:
        strength = float(last) if colon and name else None
    except ValueError:  # a colon of the name's
        strength = None
    if strength is None:
        return text, 1.0
    if not -STRONGEST <= strength <= STRONGEST:
        raise ValueError(f"lora {text!r}: expected a strength from {-STRONGEST:g} to {STRONGEST:g}")
    return name, strength


def written(file: str | Path, strength: float) -> str:
    return f"{file}:{strength:g}"


def told_loras(texts: Iterable[str]) -> tuple[str, ...]:
    """As a picture tells them: the file's name without its folder, and which file it is."""
    files = [(Path(file), strength) for file, strength in map(read_lora, texts)]
    return tuple(written(f"{file.stem}@{_digest(file)}", strength) for file, strength in files)


def given_again(told: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    """The files that a picture tells of, at its strengths. Raises `ValueError` where others are given."""
    if len(told) != len(given):
        names = ", ".join(told) or "none"
        raise ValueError(f"lora: the picture was made with {names}, which it does not hold; give them: --lora FILE")
    again: list[str] = []
    for expected, text in zip(told, given, strict=True):
        (name, strength), file = read_lora(expected), read_lora(text)[0]
        if (found := _digest(Path(file))) != name.rpartition("@")[2]:
            raise ValueError(f"lora {file} is another file ({found}); expected {name}")
        again.append(written(file, strength))
    return tuple(again)


def located(texts: Iterable[str], there: Mapping[str, Path]) -> tuple[str, ...]:
    """The files of LoRAs that are asked for by name, or as a picture tells them. Raises `ValueError` where there is no
    such, or another file of that name."""
    found: list[str] = []
    for text in texts:
        name, strength = read_lora(text)
        told = None if name in there else TOLD.fullmatch(name)
        file = there.get(told[1] if told else name)
        if file is None:
            raise ValueError(f"lora {name!r}: no such here; expected {', '.join(there) or 'none: there are none'}")
        if told and _digest(file) != told[2]:
            raise ValueError(f"lora {told[1]} is another file here ({_digest(file)}); expected {told[2]}")
        found.append(written(file, strength))
    return tuple(found)


def _digest(file: Path) -> str:
    try:
        found = file.stat()
    except OSError as error:
        raise ValueError(f"lora {file}: {error.strerror}; expected a .safetensors file") from error
    return _hashed(file, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=64)
def _hashed(file: Path, size: int, changed: int) -> str:
    return digest([file])
