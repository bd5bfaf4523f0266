"""The recipes' finished runs in miniature, made once."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from miniature import SMALL, needed, small

from tintype.recipes import run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a recipe's finished run."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            out = tmp_path_factory.mktemp(name)
            run(small(name, *needed(name, folder)), out, progress=False)
            made[name] = out
        return made[name]

    return folder


@pytest.fixture
def more(finished: Callable[[str], Path]) -> Mapping[str, Sequence[str]]:
    """What each recipe must be told beside its own numbers."""

    class Needed(dict[str, Sequence[str]]):
        def __missing__(self, name: str) -> Sequence[str]:
            assert name in SMALL
            return needed(name, finished)

    return Needed()


@pytest.fixture
def classifier(finished: Callable[[str], Path]) -> Path:
    return finished("scene_classifier")


@pytest.fixture
def autoencoder(finished: Callable[[str], Path]) -> Path:
    return finished("default_autoencoder")


@pytest.fixture
def text2img(finished: Callable[[str], Path]) -> Path:
    return finished("default_text2img")
