"""What of a prepared data set is trained on, and a report of what each filter removed.

Filters are applied in the order of `FilterConfig`'s fields, each to what the former left: first what costs nothing,
then CLIP's opinion, duplicates last, so that of two copies one with a good caption is kept. The recipe is LAION's and
Stable Diffusion's: a cosine of 0.28 and more by CLIP ViT-B/32 (LAION-5B's English part), no watermark (p_watermark
below 0.8 for 1.x), p_unsafe below 0.1 for 2.x, sides of 512 and more.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tintype.common.config import Json
from tintype.data.columns import column
from tintype.data.duplicates import FURTHEST, SIGNATURE, copies, signatures
from tintype.data.prepared import Prepared
from tintype.data.samples import Sample

EXAMPLES = 10
WATERMARK, UNSAFE = ("p_watermark", "pwatermark"), ("p_unsafe", "punsafe")  # LAION's tables have both spellings

Numbers = NDArray[np.int64]
# The cosine of each picture and its caption: B
Likeness = Callable[[Sequence[NDArray[np.uint8]], Sequence[str]], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """None: no such filter. Sizes in pixels, captions in characters.

    duplicates: bits that perceptual hashes of copies may differ by; 0 is the same hash. Of copies the largest picture
    is kept, of equal ones the first. A sample of which the table does not tell what it should (watermark, unsafe)
    stays; one without a caption has a caption of length 0, and no likeness.
    """

    min_size: int | None = None
    max_aspect: float | None = None
    min_caption: int | None = None
    max_caption: int | None = None
    with_mask: bool = False
    max_watermark: float | None = None
    max_unsafe: float | None = None
    min_clip_score: float | None = None
    same_bytes: bool = False
    duplicates: int | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` for what would remove nothing or all, whatever the data."""
        for name, least, most in (
            ("min_size", 1, None),
            ("max_aspect", 1, None),
            ("min_caption", 0, None),
            ("max_caption", 0, None),
            ("max_watermark", 0, 1),
            ("max_unsafe", 0, 1),
            ("min_clip_score", -1, 1),
            ("duplicates", 0, FURTHEST),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= (math.inf if most is None else most):
                expected = f"{least} or more" if most is None else f"{least} to {most}"
                raise ValueError(f"{name} {value:g}: expected {expected}")


class Clip(NamedTuple):
    """A CLIP, and a name for it that no other weights have."""

    likeness: Likeness
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """By one filter: of `seen` samples. `unknown`: those it was told nothing of, which stay. Examples: number, key and
    value of the first ones (of a copy, which sample is kept)."""

    filter: str
    seen: int
    removed: int
    unknown: int
    examples: tuple[dict[str, Json], ...]

    @property
    def share(self) -> float:
        return self.removed / self.seen if self.seen else 0.0


class Filtered(NamedTuple):
    """`kept`: ascending numbers of samples."""

    kept: Numbers
    report: tuple[Removed, ...]


class _Judged(NamedTuple):
    """keep: which of the samples; values: why, NaN where nothing is known."""

    keep: NDArray[np.bool_]
    values: NDArray[np.float64]


def filtered(prepared: Prepared, config: FilterConfig, *, clip: Clip | None = None, progress: bool = True) -> Filtered:
    """Apply the filters. Raises `ValueError` for a CLIP score without a CLIP, and for probabilities no record tells."""
    if config.min_clip_score is not None and clip is None:
        raise ValueError("a CLIP score needs a CLIP: --clip FILE")
    kept = np.arange(len(prepared))
    report: list[Removed] = []
    for name, judge in _filters(prepared, config, clip, progress):
        judged = judge(kept)
        gone = np.flatnonzero(~judged.keep)
        examples = [
            {
                "number": int(kept[place]),
                "key": prepared.record(int(kept[place])).get("key"),
                "value": None if np.isnan(judged.values[place]) else round(float(judged.values[place]), 6),
            }
            for place in gone[:EXAMPLES]
        ]
        unknown = int((np.isnan(judged.values) & judged.keep).sum())
        report.append(
            Removed(filter=name, seen=len(kept), removed=len(gone), unknown=unknown, examples=tuple(examples))
        )
        kept = kept[judged.keep]
    return Filtered(kept, tuple(report))


def _filters(
    prepared: Prepared, config: FilterConfig, clip: Clip | None, progress: bool
) -> Iterator[tuple[str, Callable[[Numbers], _Judged]]]:
    sizes = prepared.sizes.astype(np.float64)
    if (smallest := config.min_size) is not None:
        yield f"min_size {smallest}", lambda kept: _least(sizes[kept].min(axis=1), smallest)
    if (longest := config.max_aspect) is not None:
        yield f"max_aspect {longest:g}", lambda kept: _most(sizes[kept].max(axis=1) / sizes[kept].min(axis=1), longest)
    if (fewest := config.min_caption) is not None:
        yield f"min_caption {fewest}", lambda kept: _least(_lengths(prepared, kept), fewest)
    if (most := config.max_caption) is not None:
        yield f"max_caption {most}", lambda kept: _most(_lengths(prepared, kept), most)
    if config.with_mask:
        yield "with_mask", lambda kept: _least(prepared.masked[kept].astype(np.float64), 1)
    for name, limit, keys in (
        ("max_watermark", config.max_watermark, WATERMARK),
        ("max_unsafe", config.max_unsafe, UNSAFE),
    ):
        if limit is not None:
            yield f"{name} {limit:g}", lambda kept, limit=limit, keys=keys: _most(_told(prepared, kept, keys), limit)
    if (score := config.min_clip_score) is not None and clip is not None:
        yield f"min_clip_score {score:g}", lambda kept: _liked(prepared, kept, clip, score, progress=progress)
    if config.same_bytes:
        yield "same_bytes", lambda kept: _same_bytes(prepared, kept)
    if (distance := config.duplicates) is not None:
        yield f"duplicates {distance}", lambda kept: _copies(prepared, kept, distance, progress=progress)


def _least(values: NDArray[np.float64], limit: float) -> _Judged:
    return _Judged(~(values < limit), values)


def _most(values: NDArray[np.float64], limit: float) -> _Judged:
    return _Judged(~(values > limit), values)


def _captions(prepared: Prepared, number: int) -> list[str]:
    return cast("list[str]", prepared.record(number).get("captions", []))


def _lengths(prepared: Prepared, kept: Numbers) -> NDArray[np.float64]:
    return np.array([len(next(iter(_captions(prepared, int(one))), "")) for one in kept], dtype=np.float64)


def _told(prepared: Prepared, kept: Numbers, keys: Sequence[str]) -> NDArray[np.float64]:
    """A number that the source's table gave."""
    found = np.full(len(kept), np.nan)
    for place, number in enumerate(kept.tolist()):
        given = cast("dict[str, Json]", prepared.record(number).get("given", {}))
        found[place] = _number(next((given[key] for key in keys if key in given), None))
    if len(kept) and np.isnan(found).all():
        raise ValueError(
            f"no record of {prepared.folder} tells {keys[0]}; expected it as a column of the source's table: leave the "
            "filter out, or prepare with that table"
        )
    return found


def _number(value: Json) -> float:
    """NaN for what is none. Tables of text (CSV) have numbers as words."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return np.nan
    try:
        return float(value)
    except ValueError:
        return np.nan


def _liked(prepared: Prepared, kept: Numbers, clip: Clip, score: float, *, progress: bool) -> _Judged:
    """A caption is the first of its picture's. Without one there is no score, and the sample goes."""

    def compute(samples: Sequence[Sample]) -> NDArray[np.float32]:
        values = np.full(len(samples), np.nan, np.float32)
        said = [(place, one.picture, one.caption) for place, one in enumerate(samples) if one.caption]
        if said:
            places, pictures, captions = zip(*said, strict=True)
            values[list(places)] = clip.likeness(pictures, captions).numpy()
        return values

    values = column(
        prepared, kept, f"clip-{clip.name}", compute, empty=np.zeros((), np.float32), progress=progress
    ).astype(np.float64)
    return _Judged(values >= score, values)


def _largest_first(prepared: Prepared, kept: Numbers) -> Numbers:
    return np.argsort(-prepared.sizes[kept].astype(np.int64).prod(axis=1), kind="stable")


def _same_bytes(prepared: Prepared, kept: Numbers) -> _Judged:
    _, first, which = np.unique(prepared.picture_sha256[kept], axis=0, return_index=True, return_inverse=True)
    stays = first[which.reshape(-1)]
    return _Judged(stays == np.arange(len(kept)), kept[stays].astype(np.float64))


def _copies(prepared: Prepared, kept: Numbers, distance: int, *, progress: bool) -> _Judged:
    signed = column(prepared, kept, "phash-1", signatures, empty=SIGNATURE, progress=progress)
    instead = copies(signed.astype(np.uint8), _largest_first(prepared, kept), distance=distance)
    return _Judged(instead < 0, kept[instead].astype(np.float64))
