"""What a source of `tintype prepare` yields: pictures to be, each with all that is known of it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tintype.common.config import Json
from tintype.conditioning.layout import Box
from tintype.data.preparation.findings import Finding, Kind, Used
from tintype.data.shards import read_at

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif")
LONGEST_WORD = 1 << 16
LARGEST_TEXT = 1 << 20  # bytes of a caption or record


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Bytes of a file."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Raises `OSError` where they cannot be read, and `EOFError` where there are fewer."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            return read_at(descriptor, self.offset, self.size)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A file that should be a picture. `origin`: where it is, for people; `given`: what else its source said of it,
    kept in its record; `notes`: what the report is to say if it is kept; `texts`: names and kinds of the files that
    were read for it, used if it is kept."""

    origin: str
    place: Place
    captions: tuple[str, ...] = ()
    label: int | None = None
    boxes: tuple[Box, ...] = ()
    mask: Place | None = None
    given: dict[str, Json] = field(default_factory=dict[str, Json])
    notes: tuple[Finding, ...] = ()
    texts: tuple[tuple[str, Kind], ...] = ()


Event = Item | Finding | Used


@dataclass(slots=True)
class Said:
    """What tables, sidecars and annotations say of one picture."""

    captions: list[str] = field(default_factory=list[str])
    boxes: list[Box] = field(default_factory=list[Box])
    given: dict[str, Json] = field(default_factory=dict[str, Json])

    def add(self, captions: Iterable[str], given: dict[str, Json] | None = None) -> bool:
        """False when nothing of it is new."""
        new = [one for one in dict.fromkeys(captions) if one not in self.captions]
        more = {name: value for name, value in (given or {}).items() if name not in self.given}
        self.captions += new
        self.given |= more
        return bool(new or more)


def clean(text: str) -> str:
    """A caption on one line. Raises `UnicodeError` for what no text holds (halves of surrogate pairs)."""
    line = " ".join(text.split())
    line.encode()
    return line


def scalars(entries: dict[str, Json], *, without: Iterable[str] = ()) -> dict[str, Json]:
    """The entries that a record keeps as they are: numbers, words, yes and no; no pictures written as text."""
    left_out = set(without)
    return {
        name: value
        for name, value in entries.items()
        if name not in left_out
        and (isinstance(value, int | float) or (isinstance(value, str) and len(value) <= LONGEST_WORD))
    }


def sentences(value: object) -> tuple[str, ...]:
    """A caption or a list of captions; white space alone is none. Raises `UnicodeError`."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        return ()
    return tuple(line for one in value if isinstance(one, str) and (line := clean(one)))
