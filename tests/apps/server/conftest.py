import shutil
from collections.abc import Iterator
from importlib import resources

import httpx
import pytest
from proofs import Server, serving
from running import running


@pytest.fixture(scope="module")
def clients_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that the tests of one file share."""
    with running(tmp_path_factory.mktemp("clients") / "data") as address:
        yield address


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of a file's own, ready; files that need another say so."""
    with serving(tmp_path_factory.mktemp("served")) as made:
        yield made.ready()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a model in its folder, `mine`, and a file that is none, `other.safetensors`."""
    folder, weights = tmp_path_factory.mktemp("stocked"), resources.files("tintype.weights")
    shutil.copytree(str(weights / "default"), folder / "models" / "mine")
    shutil.copy(str(weights / "judge.safetensors"), folder / "models" / "other.safetensors")
    with serving(folder / "data", "--models", str(folder / "models")) as made:
        yield made.ready()
