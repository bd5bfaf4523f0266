"""How a prompt is read, told while it is typed."""

from collections.abc import Iterator

import pytest
from proofs import Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("reading")) as made:
        yield made.ready()


def test_the_open_model_tells_its_tokens_and_what_it_never_saw(server: Server) -> None:
    with server.client() as client:
        told = client.post("/v1/tokens", json={"prompt": "a red zeppelin (apple:1.3)"}).json()
        assert told["by"] == "default"
        [phase] = told["phases"]
        [tower] = phase["towers"]
        assert tower["unknown"] == ["zeppelin"]
        assert tower["room"] == 30
        [chunk] = tower["chunks"]
        assert [(one["word"], one["weight"]) for one in chunk] == [("a", 1.0), ("red", 1.0), ("apple", 1.3)]


def test_a_model_that_is_not_open_is_read_with_clips_vocabulary(server: Server) -> None:
    with server.client() as client:
        told = client.post("/v1/tokens", json={"prompt": "zeppelin, " * 60, "model": "upscaler"}).json()
        assert told["by"] is None
        [tower] = told["phases"][0]["towers"]
        assert tower["unknown"] == []
        assert len(tower["chunks"]) > 1
        assert all(len(chunk) <= 75 for chunk in tower["chunks"])


def test_texts_of_a_schedule_are_told_apart_and_are_not_without_end(server: Server) -> None:
    with server.client() as client:
        told = client.post("/v1/tokens", json={"prompt": "a [frog:panda:0.5]"}).json()
        assert [(one["text"], one["until"]) for one in told["phases"]] == [("a frog", 10), ("a panda", 20)]
        many = client.post("/v1/tokens", json={"prompt": "[frog|panda]", "steps": 1000}).json()
        assert len(many["phases"]) == 20


@pytest.mark.parametrize(
    ("body", "field"),
    [({"prompt": 3}, "prompt"), ({}, "prompt"), ({"prompt": "a" * 20_001}, "prompt"),
     ({"prompt": "a", "steps": 0}, "steps"), ({"prompt": "a", "prompt_style": "b"}, "prompt_style"),
     ({"prompt": "a", "else": 1}, "else")],
    ids=["number", "none", "long", "steps", "style", "else"],
)  # fmt: skip
def test_what_is_no_prompt_is_refused_by_name(server: Server, body: dict[str, object], field: str) -> None:
    with server.client() as client:
        answer = client.post("/v1/tokens", json=body)
        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == field
