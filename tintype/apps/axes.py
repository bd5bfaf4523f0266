"""What a sheet is: a request, and the fields that change along its axes."""

import csv
import dataclasses
import itertools
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tintype.common.config import nearest
from tintype.tasks.request import NAMED, Request

Side = Literal["x", "y", "z"]
Value = bool | int | float | str | None

LARGEST_SHEET = 1024
REPLACED = "prompt S/R"  # A1111's name: search for the first value in the prompts, replace it by each
OFF = ("task", "batch_size", "boxes", "lora", *NAMED)  # what is told by digests is no value to type
FIELDS = tuple(field.name for field in dataclasses.fields(Request) if field.name not in OFF)
HINTS: dict[str, object] = typing.get_type_hints(Request)


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A field and its values: x from left to right, y from above, z block by block."""

    side: Side
    field: str
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        where = f"--{self.side} {self.field}"
        if self.field not in (*FIELDS, REPLACED):
            raise ValueError(f"{where}: no axis has this name; expected {nearest(self.field, [*FIELDS, REPLACED])}")
        if not self.values:
            raise ValueError(f"{where}: got no values; expected some with commas between, such as --x cfg_scale=1,3,6")
        if self.field == REPLACED and not (self.values[0] and all(isinstance(value, str) for value in self.values)):
            raise ValueError(f"{where}: got {self.values[0]!r} to search for; expected a part of the prompt")

    @property
    def labels(self) -> list[str]:
        texts = [_shown(value) for value in self.values]
        return texts if self.field == REPLACED else [f"{self.field}: {text}" for text in texts]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """Without axes: the pictures of one request. Raises `ValueError` for axes that do not go together."""

    axes: tuple[Axis, ...]
    request: Request

    def __post_init__(self) -> None:
        for one, other in itertools.combinations(self.axes, 2):
            if one.side == other.side:
                raise ValueError(f"--{one.side} is given twice; expected one of each of --x, --y and --z")
            if one.field == other.field and (one.field != REPLACED or one.values[0] == other.values[0]):
                raise ValueError(f"{one.field} is given twice, by --{one.side} and --{other.side}; leave one out")
        if self.axes and self.request.batch_size > 1:
            raise ValueError(
                f"batch_size {self.request.batch_size}: a cell has one picture; use an axis, as seed=1,2,3"
            )
        count = self.request.batch_size * math.prod(len(axis.values) for axis in self.axes)
        if count > LARGEST_SHEET:
            raise ValueError(f"the axes make {count} cells; expected {LARGEST_SHEET} or fewer")

    def on(self, side: Side) -> Axis | None:
        return next((axis for axis in self.axes if axis.side == side), None)

    def with_seeds(self) -> "Sheet":
        """The same sheet with seeds drawn where they were left open: one for all cells, one for each -1 of an axis."""
        axes = tuple(_drawn(axis) for axis in self.axes)
        varied = next((axis.values for axis in axes if axis.field == "variation_strength"), ())
        varying = [self.request.variation_strength, *(value for value in varied if isinstance(value, float))]
        seeded = dataclasses.replace(self.request, variation_strength=max(varying)).with_seed()
        return Sheet(
            axes=axes,
            request=dataclasses.replace(self.request, seed=seeded.seed, variation_seed=seeded.variation_seed),
        )

    def cells(self) -> list[Request]:
        """A request for each picture of a sheet with its seeds drawn: block by block, in each row by row."""
        if not self.axes:
            return self.request.alone()
        inner_first = sorted(self.axes, key=lambda axis: axis.side)
        each = itertools.product(*(axis.values for axis in reversed(inner_first)))
        return [_cell(self.request, list(zip(inner_first, reversed(values), strict=True))) for values in each]


def read_axis(side: Side, text: str) -> Axis:
    """`field=value,value`, as CSV has it: values with commas in them are quoted. Fields are told as flags are, or with
    spaces; what is no value of the field is left to `Request` to refuse."""
    name, equals, listed = text.partition("=")
    if not equals:
        raise ValueError(f"--{side} {text}: expected a field and its values, such as cfg_scale=1,3,6")
    try:
        texts = next(csv.reader([listed], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise ValueError(
            f"--{side} {text}: {error}; expected values with commas between, quotes around each"
        ) from error
    told = name.strip().lower().replace("-", "_").replace(" ", "_")
    field = {REPLACED.lower().replace(" ", "_"): REPLACED}.get(told, told)
    return Axis(side=side, field=field, values=tuple(_typed(field, one) for one in texts))


def _typed(field: str, text: str) -> Value:
    hint = HINTS.get(field, str)
    kinds: Sequence[object] = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = text.strip().lower()
    if types.NoneType in kinds and plain == "none":
        return None
    if bool in kinds:
        return {"true": True, "false": False}.get(plain, text)
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(plain)
            except ValueError:
                return text
    return text


def _shown(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _drawn(axis: Axis) -> Axis:
    if axis.field not in ("seed", "variation_seed"):
        return axis
    values = tuple(Request(seed=-1).with_seed().seed if value == -1 else value for value in axis.values)
    return dataclasses.replace(axis, values=values)


def _cell(request: Request, at: Sequence[tuple[Axis, Value]]) -> Request:
    changes = {axis.field: value for axis, value in at if axis.field != REPLACED}
    cell = dataclasses.replace(request, **changes)
    for axis, value in at:
        if axis.field == REPLACED:
            cell = _replaced(cell, str(axis.values[0]), str(value))
    return cell


def _replaced(request: Request, word: str, by: str) -> Request:
    """Wherever it stands in either prompt, as in A1111."""
    said = {name: getattr(request, name) for name in ("prompt", "negative_prompt")}
    if not any(word in text for text in said.values()):
        raise ValueError(f"{REPLACED}: {word!r} is not in the prompt {request.prompt!r}; expected a part of it first")
    return dataclasses.replace(request, **{name: text.replace(word, by) for name, text in said.items()})
