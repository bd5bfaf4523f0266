"""Frozen dataclasses as configuration: to and from JSON, and `--set a.b=value` with the field's own type."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Literal, TypeVar, cast

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
D = TypeVar("D")
ADDED = "added"
FEW = 8  # choices that an error names all of


MANY = 60  # names that are too many for a sentence


def nearest(word: str, names: Sequence[str]) -> str:
    """«a, b or c»: the names most like `word`; when none is like it all of them, or of very many the first. For error
    messages."""
    if not names:
        return "nothing, for there is none"
    lower = {name.lower(): name for name in names}
    close = [lower[match] for match in get_close_matches(word.lower(), list(lower), n=3, cutoff=0.5)]
    if not close and len(names) > MANY:
        return f"one of {len(names)}, such as {', '.join(names[:5])}"
    return any_of(close or names)


def any_of(names: Sequence[str]) -> str:
    """«a, b or c»."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def counted(count: int, one: str, several: str | None = None) -> str:
    """«1 shard», «2 shards»."""
    return f"{count} {one if count == 1 else several or one + 's'}"


def added(default: D) -> D:
    """A field that came after files were published: `to_json` leaves it out at its default, so that those files, and
    digests of them, stay what they are."""
    return dataclasses.field(default=default, metadata={ADDED: True})


def to_json(config: object) -> Json:
    """A (nested) dataclass as plain JSON values; tuples become lists."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        values = [(field, getattr(config, field.name)) for field in dataclasses.fields(config)]
        written = [(field, value) for field, value in values if ADDED not in field.metadata or value != field.default]
        return {field.name: to_json(value) for field, value in written}
    if isinstance(config, list | tuple):
        return [to_json(item) for item in cast("Sequence[object]", config)]
    if isinstance(config, Mapping):
        return {str(key): to_json(item) for key, item in cast("Mapping[object, object]", config).items()}
    if config is None or isinstance(config, bool | int | float | str):
        return config
    raise TypeError(f"{type(config).__name__} has no place in a configuration")


def from_json(cls: type[D], value: object) -> D:
    """The inverse of `to_json`. Raises `ValueError` naming the field for anything missing, unknown or ill-typed."""
    return cast("D", _convert(cls, value, cls.__name__))


def override(config: D, assignments: Sequence[str]) -> D:
    """A copy of the dataclass with each `key.path=value` applied; values are JSON, or bare words for strings."""
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment}: expected key=value, such as train.steps=100")
        config = cast("D", _assign(config, path.strip().split("."), text.strip(), path.strip()))
    return config


def _assign(config: object, keys: list[str], text: str, path: str) -> object:
    assert dataclasses.is_dataclass(config)
    assert not isinstance(config, type)
    hints = _hints(type(config))
    if keys[0] not in hints:
        raise ValueError(
            f"--set {path}: {type(config).__name__} has no {keys[0]!r}; expected {nearest(keys[0], [*hints])}"
        )
    if keys[1:]:
        inner = getattr(config, keys[0])
        if not dataclasses.is_dataclass(inner):
            raise ValueError(f"--set {path}: {keys[0]} is a single value; write {keys[0]}=…")
        value = _assign(inner, keys[1:], text, path)
    else:
        value = _parse(hints[keys[0]], text, f"--set {path}")
    return dataclasses.replace(config, **{keys[0]: value})


def _parse(kind: object, text: str, where: str) -> object:
    try:
        raw: object = json.loads(text)
    except json.JSONDecodeError as broken:
        try:
            return _convert(kind, text, where)
        except ValueError as error:
            if not text.startswith(("[", "{")):
                raise
            raise ValueError(
                f"{where}: {text} is not JSON ({broken}); words in a list or an object need double quotes, such as "
                """'["a","b"]'"""
            ) from error
    try:
        return _convert(kind, raw, where)
    except ValueError:
        if _takes_words(kind) and isinstance(raw, bool | int | float):  # 12, 1e3 and true are words as well
            return _convert(kind, text, where)
        raise


def _takes_words(kind: object) -> bool:
    return kind is str or any(_takes_words(one) for one in typing.get_args(kind))


def _hints(cls: type) -> dict[str, object]:
    if not dataclasses.is_dataclass(cls):
        return {}
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _convert(kind: object, value: object, where: str) -> object:
    """`value` (JSON) as `kind`, which is a dataclass, scalar, Literal, tuple, union or dict of those."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _convert_dataclass(kind, value, where)
    if origin is Literal:
        return _convert_literal(arguments, value, where)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(arguments, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        items = cast("Sequence[object]", value)
        kinds = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else list(arguments)
        if len(items) == len(kinds):
            return tuple(
                _convert(one, item, f"{where}[{i}]") for i, (one, item) in enumerate(zip(kinds, items, strict=True))
            )
    if origin is dict and isinstance(value, dict):
        entries = cast("dict[object, object]", value)
        return {str(key): _convert(arguments[1], item, f"{where}.{key}") for key, item in entries.items()}
    return _convert_scalar(kind, value, where)


def _convert_literal(choices: tuple[object, ...], value: object, where: str) -> object:
    for choice in choices:
        if choice == value and type(choice) is type(value):  # 1, 1.0 and True are equal
            return choice
    names = [str(choice) for choice in choices]
    expected = any_of(names) if len(names) <= FEW else nearest(str(value), names)
    raise ValueError(f"{where}: got {value!r}; expected {expected}")


def _convert_scalar(kind: object, value: object, where: str) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    if kind in (None, types.NoneType) and value is None:
        return None
    raise ValueError(f"{where}: got {value!r}; expected {_named(kind)}")


def _convert_dataclass(kind: type, value: object, where: str) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: got {value!r}; expected the fields of {kind.__name__}")
    entries = cast("dict[str, object]", value)
    hints = _hints(kind)
    for key in entries:
        if key not in hints:
            raise ValueError(f"{where}: {kind.__name__} has no {key!r}; expected {nearest(key, [*hints])}")
    fields = {key: _convert(hints[key], item, f"{where}.{key}") for key, item in entries.items()}
    try:
        return kind(**fields)
    except TypeError as error:  # a field without default that is absent
        raise ValueError(f"{where}: {error}") from error


def _convert_union(kinds: tuple[object, ...], value: object, where: str) -> object:
    for kind in kinds:
        try:
            return _convert(kind, value, where)
        except ValueError:
            continue
    raise ValueError(f"{where}: got {value!r}; expected {' or '.join(map(_named, kinds))}")


def _named(kind: object) -> str:
    if kind in (None, types.NoneType):
        return "null"
    return kind.__name__ if isinstance(kind, type) else str(kind)
