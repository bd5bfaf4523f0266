"""Recipes: one typed function per run. Each module here adds its function of the same name to `RECIPES`."""

import importlib
from collections.abc import Callable
from typing import cast

from tintype.common.registry import functions_of
from tintype.recipes.base import Recipe, run

__all__ = ["RECIPES", "Recipe", "run"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    name: cast("Callable[[], Recipe]", function)
    for name, function in functions_of(importlib.import_module(__name__), named_as_file=True).items()
}
