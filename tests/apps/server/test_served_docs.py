"""The page that describes the interfaces: whole, without a script, without any other site."""

from collections.abc import Iterator
from html.parser import HTMLParser

import httpx
import pytest
from proofs import serving

from tintype.apps.server.docs import page


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serving(tmp_path_factory.mktemp("docs")) as made, made.client() as client:
        yield client


class Reader(HTMLParser):
    """What a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.addresses, self.ids = "", set[str](), list[str](), list[str]()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        told = dict(attrs)
        assert not any(name.startswith("on") or name == "style" for name in told)
        self.addresses += [value for name in ("href", "src") if (value := told.get(name)) is not None]
        self.ids += [value for value in [told.get("id")] if value is not None]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_call_and_field_is_there_and_nothing_comes_from_elsewhere(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert policy == client.get("/").headers["content-security-policy"]
    read = Reader(answer.text)
    assert read.open == []
    assert not read.tags & {"script", "style", "img", "iframe", "form"}
    assert len(read.ids) == len(set(read.ids))
    for address in read.addresses:
        assert address in ("docs.css", "openapi.json") or address[1:] in read.ids, address
    described = client.get("/openapi.json").json()
    for path, calls in described["paths"].items():
        for method in calls:
            assert f"{method.upper()} {path}" in read.text
    for shape in described["components"]["schemas"].values():
        for name, field in shape.get("properties", {}).items():
            assert name in read.text
            assert field.get("description", "") in read.text
    for words in ("from 8", "to 2048", "20000 signs at most", "Idempotency-Key", "429", "needed"):
        assert words.lower() in read.text.lower(), words
    assert client.get("/docs.css").headers["content-type"].startswith("text/css")


@pytest.mark.parametrize("path", ["/redoc", "/docs/oauth2-redirect"])
def test_no_page_of_the_framework_is_left(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_what_is_told_is_text_and_no_page() -> None:
    told = "<script>alert(1)</script>"
    schema = {"type": "object", "properties": {told: {"type": "string", "description": told, "default": told}}}
    call = {"description": told, "responses": {"200": {"description": told}}, "tags": [told]}
    made = page({
        "info": {"title": told, "version": told, "description": told},
        "paths": {f"/{told}": {"get": call}},
        "components": {"schemas": {told: schema}},
    })  # fmt: skip
    assert "script" not in Reader(made).tags
