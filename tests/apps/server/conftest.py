from collections.abc import Iterator

import pytest
from running import running


@pytest.fixture(scope="module")
def clients_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that the tests of one file share."""
    with running(tmp_path_factory.mktemp("clients") / "data") as address:
        yield address
