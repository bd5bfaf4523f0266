"""The files of the page: what is vendored is what npm has, and nothing but the listing is served, under the policy."""

import hashlib
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tintype.apps.server.page import FOLDER, KINDS, POLICY, files, page_routes
from tintype.apps.server.settings import Settings

VENDOR = FOLDER / "vendor"
CHANGED = {"hooks.mjs": (b'from"./preact.mjs"', b'from"preact"')}  # ours, npm's


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.state.settings = Settings()
    app.include_router(page_routes())
    return TestClient(app)


def told() -> dict[str, tuple[str, str]]:
    """Of each vendored file its hash and package."""
    lines = [line.split() for line in (VENDOR / "HASHES").read_text().splitlines() if not line.startswith("#")]
    return {name: (digest, package) for digest, package, _, name in lines}


def test_vendored_files_are_those_of_npm():
    there = {path.name for path in VENDOR.iterdir()} - {"HASHES"}
    assert there == set(told())
    for name, (digest, package) in told().items():
        assert re.fullmatch(r"(preact|htm)@\d+\.\d+\.\d+", package)
        content = (VENDOR / name).read_bytes()
        if name in CHANGED:
            ours, theirs = CHANGED[name]
            assert content.count(ours) == 1
            content = content.replace(ours, theirs)
        assert hashlib.sha256(content).hexdigest() == digest, name


def test_each_file_is_served_with_the_policy_and_its_kind(client: TestClient):
    assert {"index.html", "main.js", "style.css", "vendor/preact.mjs", "vendor/LICENSE-htm"} <= set(files())
    for name, path in files().items():
        answer = client.get("/" if name == "index.html" else f"/page/{name}")
        assert answer.status_code == 200
        assert answer.content == path.read_bytes()
        assert answer.headers["content-type"] == KINDS[path.suffix]
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["cache-control"] == "no-cache"


def test_known_content_is_not_sent_again(client: TestClient):
    first = client.get("/page/style.css")
    again = client.get("/page/style.css", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/page/style.css", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/nothing.js",
        "/page/../server/page.py",
        "/page/%2e%2e/server/page.py",
        "/page/..%2fserver%2fpage.py",
        "/page/vendor/../../server/page.py",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/vendor%5cpreact.mjs",
        "/page/index.html%00",
        "/page/__init__.py",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str):
    assert client.get(path).status_code == 404


def test_the_policy_has_no_holes():
    assert "unsafe" not in POLICY
    assert "*" not in POLICY
    assert POLICY.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.html")), ids=lambda path: path.name)
def test_no_script_or_style_is_inline(path: Path):
    text = path.read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


@pytest.mark.parametrize(
    "path", [path for path in files().values() if path.parent == FOLDER], ids=lambda path: path.name
)
def test_nothing_names_another_host(path: Path):
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|[\"'(]//", text)


def test_all_modules_are_there():
    for path in FOLDER.glob("*.js"):
        for name in re.findall(r"from '(\./[^']+)'", path.read_text()):
            assert (FOLDER / name).is_file(), f"{path.name} imports {name}"


def test_the_package_carries_the_files():
    import tomllib

    project = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text())
    globs = project["tool"]["setuptools"]["package-data"]["*"]
    assert [name for name, path in files().items() if not any(path.match(glob) for glob in globs)] == []
