"""What `tintype prepare` finds and does not use: each thing by name, with a reason, and the sums that must agree."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, get_args

from tintype.common.config import Json, to_json

Kind = Literal["picture", "caption", "record", "class", "row", "box", "mask", "file"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Reason: what kind of thing it is said of, and what is meant. These things are not used.
LEFT_OUT: dict[str, tuple[Kind, str]] = {
    "empty": ("picture", "zero bytes"),
    "not a picture": ("picture", "named like one, but of no known format"),
    "damaged": ("picture", "does not decode"),
    "cut short": ("picture", "the end is missing"),
    "too many pixels": ("picture", "refused by what its header says, before decoding"),
    "too many bytes": ("picture", "refused before reading"),
    "too small": ("picture", "smaller than --min-size"),
    "too long": ("picture", "longer than --max-aspect allows, or too long for --size or --format"),
    "unknown colours": ("picture", "32-bit numbers or Lab, whose range is not told"),
    "cannot be read": ("picture", "the system refuses to read it"),
    "caption required": ("picture", "has none (--require-caption)"),
    "duplicate key": ("picture", "another picture of the same shard has this key"),
    "caption not UTF-8": ("caption", "its bytes are no text"),
    "empty caption": ("caption", "nothing but white space"),
    "caption too large": ("caption", "more than a megabyte of text"),
    "caption without picture": ("caption", "no picture has this name"),
    "caption of picture left out": ("caption", "its picture is not used"),
    "duplicate caption": ("caption", "another caption of the same shard has this key"),
    "caption cut short": ("caption", "its shard ends within it, or it cannot be read"),
    "record cut short": ("record", "its shard ends within it, or it cannot be read"),
    "broken class": ("class", "no number, or none of the classes"),
    "class without picture": ("class", "no picture has this name"),
    "class of picture left out": ("class", "its picture is not used"),
    "duplicate class": ("class", "another class of the same shard has this key"),
    "broken record": ("record", "not a JSON object"),
    "record too large": ("record", "more than a megabyte of text"),
    "record without picture": ("record", "no picture has this name"),
    "record of picture left out": ("record", "its picture is not used"),
    "duplicate record": ("record", "another record of the same shard has this key"),
    "broken row": ("row", "not as many fields as the header, unclosed quotes, not JSON, not UTF-8, no file name"),
    "row outside": ("row", "names a file outside SOURCE"),
    "absent file": ("row", "names a picture that is not there"),
    "row without caption": ("row", "its caption is empty"),
    "duplicate row": ("row", "says again what another row said"),
    "broken box": ("box", "no numbers, no area, no known class, or of a picture whose size is not told"),
    "box of absent file": ("box", "its picture is not there"),
    "box outside": ("box", "nothing of it is within the picture"),
    "broken mask": ("mask", "does not decode"),
    "not a class map": ("mask", "several numbers at each pixel"),
    "mask of another size": ("mask", "not as large as its picture"),
    "mask of picture left out": ("mask", "its picture is not used"),
    "mask without picture": ("mask", "no picture has this name"),
    "duplicate mask": ("mask", "another mask of the same shard or folder has this name"),
    "not used": ("file", "nothing says what it would be for"),
    "link": ("file", "leads out of SOURCE, to a folder, or nowhere; not followed"),
    "broken table": ("file", "a table or annotation file that does not open"),
    "broken shard": ("file", "a tar file that does not open"),
}

# What is said of pictures and files that are used.
NOTED: dict[str, tuple[Kind, str]] = {
    "no caption": ("picture", "kept without"),
    "caption from file name": ("picture", "there was no other"),
    "no class": ("picture", "kept without, for it is in none of the folders"),
    "no row": ("picture", "no row of the table names it"),
    "no mask": ("picture", "kept without"),
    "first frame": ("picture", "an animation, of which only the first frame is seen"),
    "enlarged": ("picture", "smaller than --size"),
    "box out of crop": ("box", "not in the part of the picture that is kept"),
    "shard cut short": ("file", "all that is before the cut is used"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing with a reason of `LEFT_OUT` or `NOTED`; `item` says where it is."""

    item: str
    reason: str
    detail: str = ""

    def __post_init__(self) -> None:
        assert (self.reason in LEFT_OUT) != (self.reason in NOTED), self.reason

    def line(self) -> str:
        """As JSON, without line end."""
        told = {"item": shown(self.item), "reason": self.reason, "left_out": self.reason in LEFT_OUT}
        return json.dumps(told | ({"detail": shown(self.detail)} if self.detail else {}), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Used:
    """So many more things of a kind were used."""

    kind: Kind
    count: int = 1


@dataclass(slots=True)
class Tally:
    """Sums: of each kind used, of each reason."""

    used: Counter[str] = field(default_factory=Counter[str])
    reasons: Counter[str] = field(default_factory=Counter[str])

    @classmethod
    def of(cls, used: dict[str, int], reasons: dict[str, int]) -> "Tally":
        return cls(used=Counter(used), reasons=Counter(reasons))

    def add(self, said: Finding | Used) -> None:
        if isinstance(said, Used):
            self.used[said.kind] += said.count
        else:
            self.reasons[said.reason] += 1

    def merge(self, other: "Tally") -> None:
        self.used.update(other.used)
        self.reasons.update(other.reasons)

    def to_json(self) -> dict[str, Json]:
        """{"counts": {kind: {"found", "used", "left_out"}}, "left_out": {reason: count}, "noted": {reason: count}}."""
        counts: dict[str, Json] = {}
        for kind in KINDS:
            without = sum(self.reasons[reason] for reason, (of, _) in LEFT_OUT.items() if of == kind)
            if self.used[kind] or without:
                counts[kind] = {"found": self.used[kind] + without, "used": self.used[kind], "left_out": without}
        left_out, noted = (
            to_json({reason: self.reasons[reason] for reason in table if self.reasons[reason]})
            for table in (LEFT_OUT, NOTED)
        )
        return {"counts": counts, "left_out": left_out, "noted": noted}


def shown(text: str) -> str:
    """Text that can be written: file names may hold bytes that are no UTF-8."""
    return text.encode(errors="backslashreplace").decode()
