"""Finds what a package offers by walking its modules: adding a file is adding an entry."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

from tintype.common.config import nearest

T = TypeVar("T")


def functions_of(package: ModuleType, *, named_as_file: bool = False) -> dict[str, Callable[..., object]]:
    """The public functions that the modules of a package define, by name; or of each only the one named as its file.
    Raises `ValueError` for a name that two files define."""
    found: dict[str, Callable[..., object]] = {}
    for entry in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{entry.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            wanted = name == entry.name if named_as_file else not name.startswith("_")
            if function.__module__ != module.__name__ or not wanted:
                continue
            if name in found:
                raise ValueError(f"{name} is defined twice: in {found[name].__module__} and in {module.__name__}")
            found[name] = function
    return dict(sorted(found.items()))


def pick(kind: str, name: str, entries: dict[str, T]) -> T:
    """The entry of this name. Raises `ValueError` with the nearest names."""
    if name not in entries:
        raise ValueError(f"unknown {kind} {name!r}; expected {nearest(name, list(entries))}")
    return entries[name]
