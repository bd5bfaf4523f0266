"""Who may ask, from where, and what becomes of those who may not."""

import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from proofs import SMALL, Server, ended, serving, submit

from tintype.apps.server.settings import Settings

ADA, BOB = "adas-token-1", "bobs-token-2"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For anyone on this machine."""
    with serving(tmp_path_factory.mktemp("open")) as made:
        yield made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For two who have a token each."""
    with serving(
        tmp_path_factory.mktemp("guarded"), "--token", f"ada={ADA}", "--token", f"bob={BOB}", "--allow-host", "MyBox"
    ) as made:
        yield made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


def raw(server: Server, text: bytes) -> bytes:
    """What a client gets that writes its own bytes."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as line:
        line.sendall(text)
        if b"Connection: close" not in text:  # else it would be taken for one that has left, and may get no answer
            line.shutdown(socket.SHUT_WR)
        found = b""
        while part := line.recv(65536):
            found += part
    return found


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1",
             "[", "a b", "@", "1.2.3.4", "MyBox", "localhost@evil.example"],
)  # fmt: skip
def test_a_host_that_is_not_this_server_is_refused(server: Server, host: str) -> None:
    answer = raw(server, f"GET /v1/jobs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b"\r\n")[0].split()[1] in (b"403", b"400"), answer[:200]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:80"])
def test_its_own_names_are_taken(server: Server, host: str) -> None:
    with server.client(Host=host) as client:
        assert client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize("host", ["mybox", "MYBOX:80"])
def test_so_are_names_it_was_told(guarded: Server, host: str) -> None:
    with guarded.client(Host=host, **bearer(ADA)) as client:
        assert client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "http://[::1", "", "file://"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_other_sites_may_not_ask(server: Server, origin: str, method: str) -> None:
    with server.client(Origin=origin) as client:
        assert client.request(method, "/v1/jobs", json=SMALL).status_code == 403


def test_its_own_page_may(server: Server) -> None:
    with server.client(Origin=server.url, **{"Sec-Fetch-Site": "same-origin"}) as client:
        assert client.post("/v1/jobs", json=SMALL).status_code == 202


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_browser_that_says_where_the_request_comes_from_is_heard(server: Server, site: str) -> None:
    with server.client(**{"Sec-Fetch-Site": site}) as client:
        for path in ("/v1/jobs", "/v1/jobs/0123456789abcdef/cancel"):
            assert client.post(path, json=SMALL).status_code == 403
        assert client.delete("/v1/jobs/0123456789abcdef").status_code == 403


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", None]
)
def test_bodies_that_pages_can_send_without_asking_are_not_read(server: Server, kind: str | None) -> None:
    with server.client() as client:
        headers = {} if kind is None else {"Content-Type": kind}
        before = len(client.get("/v1/jobs", params={"count": 500}).json())
        answer = client.post("/v1/jobs", content=b'{"prompt": "a red apple", "steps": 1}', headers=headers)
        assert answer.status_code in (415, 422)
        assert len(client.get("/v1/jobs", params={"count": 500}).json()) == before


def test_no_page_may_read_or_frame_what_it_answers(server: Server) -> None:
    with server.client() as client:
        for path in ("/healthz", "/v1/jobs", "/nothing"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "headers", [bearer(ADA), basic("", ADA), basic("whoever", ADA), {"authorization": f"bearer {ADA}"}]
)
def test_a_token_opens(guarded: Server, headers: dict[str, str]) -> None:
    with guarded.client(**headers) as client:
        assert client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong-token"),
        bearer(ADA + "x"),
        bearer(ADA[:-1]),
        basic(ADA, ""),
        basic("ada", "wrong"),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()},
        {"Authorization": f"Digest {ADA}x"},
        {"Authorization": ADA},
        {"Cookie": f"token={ADA}"},
    ],
    ids=str,
)  # fmt: skip
def test_nothing_else_does(guarded: Server, headers: dict[str, str]) -> None:
    with guarded.client(**headers) as client:
        for method, path in (
            ("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/v1/pictures"), ("GET", "/v1/capabilities"),
            ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/docs"),
            ("GET", "/v1/jobs/0123456789abcdef/events"), ("GET", "/nothing"),
            ("POST", "/v1/jobs/0123456789abcdef/cancel"),
        ):  # fmt: skip
            answer = client.request(method, path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Basic")
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code in (200, 503)


@pytest.mark.parametrize(
    "path", ["//v1/jobs", "/v1/../v1/jobs", "/page/../v1/jobs", "/page/%2e%2e/v1/jobs", "/healthz/../v1/jobs"]
)
def test_no_spelling_of_a_path_goes_round_the_token(guarded: Server, path: str) -> None:
    answer = raw(guarded, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b"\r\n")[0].split()[1] in (b"401", b"404"), answer[:300]


def test_users_do_not_see_each_others_jobs_pictures_and_events(guarded: Server) -> None:
    guarded.ready()
    with guarded.client(**bearer(ADA)) as ada, guarded.client(**bearer(BOB)) as bob:
        id = submit(ada, prompt="a secret apple")
        assert ended(ada, id)["state"] == "done"
        assert ada.get(f"/v1/jobs/{id}/pictures/0").status_code == 200
        nobody = "0123456789abcdef"
        for method, path in (
            ("GET", ""), ("POST", "/cancel"), ("DELETE", ""), ("GET", "/events"), ("GET", "/pictures/0"),
        ):  # fmt: skip
            hers, none = (bob.request(method, f"/v1/jobs/{one}{path}") for one in (id, nobody))
            assert hers.status_code == none.status_code == 404
            assert hers.text.replace(id, nobody) == none.text  # nor that there is such a job
        assert ada.get(f"/v1/images/{id}/0?format=webp").status_code == 200
        assert bob.get(f"/v1/images/{id}/0?format=webp").status_code == 404
        assert "secret" not in bob.get("/v1/jobs").text + bob.get("/v1/pictures").text
        assert bob.get("/v1/pictures").json() == []
        key = {"Idempotency-Key": "k"}
        hers = ada.post("/v1/jobs", json=SMALL, headers=key).json()["id"]
        assert bob.post("/v1/jobs", json=SMALL, headers=key).json()["id"] != hers
        assert ada.post("/v1/jobs", json=SMALL, headers=key).json()["id"] == hers
        empty = {"Idempotency-Key": ""}
        assert len({ada.post("/v1/jobs", json=SMALL, headers=empty).json()["id"] for _ in range(2)}) == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "mybox"])
def test_others_can_reach_it_only_with_a_token(host: str) -> None:
    with pytest.raises(ValueError, match="expected a token"):
        Settings(host=host)
    assert Settings(host=host, tokens={"user": "long enough"}).host == host


def test_the_command_says_so(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="expected a token"), serving(tmp_path, "--host", "0.0.0.0"):
        pass


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokens": {"ada": "short"}}, "8 or more"),
        ({"queue": 0}, "--queue 0"),
        ({"largest": 63}, "--largest 63"),
        ({"largest": 8193}, "--largest 8193"),
        ({"port": 70000}, "--port"),
        ({"grace": float("nan")}, "--grace"),
        ({"grace": float("inf")}, "--grace"),
        ({"grace": -1.0}, "--grace"),
        ({"models": Path("/nowhere")}, "no such folder"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings(**settings)  # pyright: ignore


def test_invented_methods_do_not_fill_the_metrics(server: Server) -> None:
    for number in range(20):
        raw(server, f"X{number} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    with server.client() as client:
        told = client.get("/metrics").text
    assert "X1" not in told
    assert 'method="other"' in told
