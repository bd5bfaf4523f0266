"""The recipes' finished runs in miniature, made once."""

from pathlib import Path

import pytest
from miniature import small

from tintype.recipes import run


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("classifier")
    run(small("scene_classifier"), out, progress=False)
    return out


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory: pytest.TempPathFactory, classifier: Path) -> Path:
    out = tmp_path_factory.mktemp("autoencoder")
    run(small("default_autoencoder", f"features={classifier / 'classifier.safetensors'}"), out, progress=False)
    return out


@pytest.fixture(scope="session")
def text2img(tmp_path_factory: pytest.TempPathFactory, autoencoder: Path) -> Path:
    out = tmp_path_factory.mktemp("text2img")
    run(small("default_text2img", f"autoencoder={autoencoder / 'autoencoder.safetensors'}"), out, progress=False)
    return out
