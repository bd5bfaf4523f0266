"""What no client should send: it is refused with a sentence, quickly, without being allocated, opened or believed."""

import base64
import io
import json
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from proofs import SMALL, Server, serving

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hostile"), "--queue", "1000") as made:
        yield made.ready()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


def post(client: httpx.Client, text: str) -> httpx.Response:
    return client.post("/v1/jobs", content=text.encode(), headers={"Content-Type": "application/json"})


def jobs(client: httpx.Client) -> int:
    return len(client.get("/v1/jobs", params={"count": 500}).json())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", "1000000"), ("height", "1000000"), ("width", "0"), ("width", "-64"), ("width", "64.5"),
        ("width", '"64"'), ("width", "true"), ("width", "1e400"), ("width", "36"),
        ("steps", "1000000000"), ("steps", "0"), ("batch_size", "10000"), ("batch_size", "[]"),
        ("cfg_scale", "NaN"), ("cfg_scale", "Infinity"), ("cfg_scale", "-Infinity"), ("cfg_scale", "{}"),
        ("cfg_scale", "1e308"), ("strength", "NaN"), ("eta", "2"), ("seed", "4294967296"), ("seed", "1.5"),
        ("prompt", '"\\ud800"'), ("prompt", '"a\\u0000b"'), ("prompt", "7"), ("prompt", "null"),
        ("prompt", json.dumps("x" * 20_001)), ("negative_prompt", '"\\udfff"'), ("sampler", '"no such"'),
        ("sampler", '"\\ud800"'), ("scheduler", '["karras"]'), ("task", '"../../etc"'), ("task", '"no such"'),
        ("exact", '"yes"'), ("exact", "1"), ("boxes", '"a:0,0,1,1"'), ("boxes", json.dumps(["x" * 201])),
        ("priority", "1000"), ("priority", "1.5"), ("timeout", "0"), ("timeout", "-1"), ("timeout", "NaN"),
        ("timeout", "Infinity"), ("timeout", "1e300"), ("model", "7"), ("model", json.dumps("x" * 501)),
        ("no_such_field", "1"), ("prompt_style", '"python"'), ("variation_strength", "2"), ("clip_skip", "-1"),
        ("label", '"pizza"'), ("mask", '"AAAA"'), ("scale", "3"),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_a_bad_field_is_named_and_nothing_is_queued(client: httpx.Client, field: str, value: str) -> None:
    values = ", ".join(f'"{name}": {json.dumps(one)}' for name, one in SMALL.items() if name != field)
    before = jobs(client)
    answer = post(client, f'{{{values}, "{field}": {value}}}')
    assert answer.status_code == 422, answer.text
    told = answer.json()["error"]["message"]
    assert field in told or "JSON" in told, told
    assert len(answer.content) < 20_000
    assert jobs(client) == before


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "7", '"text"', "{", '{"prompt": "a"', "\x00", "[" * 100_000, '{"a":' * 100_000, "{}" * 2,
     '{"width": 1' + "0" * 5000 + "}",
     '{"prompt": "a", "prompt": NaN}'],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_is_no_request_is_refused(client: httpx.Client, text: str) -> None:
    before = jobs(client)
    assert post(client, text).status_code in (400, 422)
    assert jobs(client) == before


def test_bytes_that_are_no_text_are_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", content=b'{"prompt": "\xff\xfe"}', headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)


# Bodies


def stalled(server: Server, head: str, parts: Iterator[bytes]) -> tuple[bytes, int, float]:
    """What a client gets that sends as long as it is let: the answer, how much it sent, seconds to the answer."""
    address = urlsplit(server.url)
    began, sent = time.monotonic(), 0
    with socket.create_connection((address.hostname, address.port), timeout=30) as line:
        line.sendall(head.encode())
        try:
            for part in parts:
                line.sendall(part)
                sent += len(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = line.recv(4096)
        return answer, sent, time.monotonic() - began


HEAD = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_gigabyte_is_refused_while_others_are_served(server: Server, client: httpx.Client) -> None:
    before, slowest, going = server.rss(), [0.0], threading.Event()

    def others() -> None:
        with server.client() as other:
            while not going.is_set():
                began = time.monotonic()
                assert other.get("/healthz").status_code == 200
                slowest.append(time.monotonic() - began)

    beside = threading.Thread(target=others)
    beside.start()
    mebibyte = b" " * MEBIBYTE
    announced, sent, took = stalled(server, f"{HEAD}Content-Length: {2**30}\r\n\r\n", iter([]))
    assert announced.startswith(b"HTTP/1.1 413"), announced
    assert took < 5
    chunk = b"100000\r\n" + mebibyte + b"\r\n"
    counted, sent, took = stalled(server, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", (chunk for _ in range(1024)))
    assert counted.startswith(b"HTTP/1.1 413"), counted
    assert sent < 200 * MEBIBYTE
    assert took < 20
    for length in ("-1", "1e3", "9" * 19, "9" * 5000, "0x10", "²"):
        refused, _, _ = stalled(server, f"{HEAD}Content-Length: {length}\r\n\r\n", iter([]))
        assert refused.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413")), (length[:30], refused)
    going.set()
    beside.join()
    assert max(slowest) < 2
    assert server.rss() - before < 150 * MEBIBYTE


def test_a_client_that_sends_all_before_it_listens_is_told_as_well(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", content=b" " * (40 * MEBIBYTE), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert "smaller or fewer pictures" in answer.json()["error"]["message"]


def test_one_that_leaves_in_the_middle_of_a_body_harms_nobody(server: Server, client: httpx.Client) -> None:
    address = urlsplit(server.url)
    for _ in range(20):
        with socket.create_connection((address.hostname, address.port), timeout=30) as line:
            line.sendall(f"{HEAD}Content-Length: 1000\r\n\r\n{{".encode())
    assert client.get("/healthz").status_code == 200
    assert 'status="500"' not in client.get("/metrics").text


# Pictures


def png(width: int, height: int, rows: int | None = None) -> bytes:
    """A black grey-level PNG; with `rows` it holds only so many."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    body = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def url_of(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def noisy() -> bytes:
    held = io.BytesIO()
    Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3)).save(held, "PNG")
    return held.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
PICTURES = {
    "a bomb": url_of(png(20_000, 20_000)),
    "too wide": url_of(png(2049, 1)),
    "cut short": url_of(noisy()[:3000]),
    "an empty one": url_of(b""),
    "a header alone": url_of(png(64, 64, rows=0)),
    "text": url_of(b"not a picture"),
    "SVG": url_of(SVG, "svg+xml"),
    "SVG said to be PNG": url_of(SVG),
    "EPS": url_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "no base64": "data:image/png;base64,!!!!",
    "a page": "data:text/html;base64,PGI+",
    "a path": "/etc/passwd",
    "a path with dots": "../../../../etc/passwd",
    "a file address": "file:///etc/passwd",
    "an address": "http://127.0.0.1:1/picture.png",
    "metadata service": "http://169.254.169.254/latest/meta-data",
    "a digest": "sha256:0123456789abcdef",
    "nothing": "",
    "NUL": "\0",
    "half a sign": "\ud800",
}


@pytest.mark.parametrize("field", ["image", "mask"])
@pytest.mark.parametrize("name", PICTURES)
def test_what_is_no_picture_is_refused_before_it_is_opened(
    server: Server, client: httpx.Client, field: str, name: str
) -> None:
    before, rss = jobs(client), server.rss()
    pictures = {"image": url_of(noisy()), "mask": url_of(noisy())} | {field: PICTURES[name]}
    answer = post(client, json.dumps({"task": "inpaint", "prompt": "a red apple", "steps": 1} | pictures))
    assert 400 <= answer.status_code < 500, answer.text
    assert field in answer.json()["error"]["message"]
    assert len(answer.content) < 5000
    assert "root:" not in answer.text
    assert jobs(client) == before
    assert server.rss() - rss < 100 * MEBIBYTE


# Paths


@pytest.mark.parametrize(
    "name",
    ["..", "../..", "../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..%5cetc", "%00", "0123456789abcdef%00",
     "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef%0a", "C:%5c", "%ff", "*", "0123456789abcdef.png",
     "%252e%252e"],
)  # fmt: skip
def test_no_name_in_a_path_leads_anywhere(server: Server, client: httpx.Client, name: str) -> None:
    for method, path in (
        ("GET", "/v1/jobs/{}"), ("DELETE", "/v1/jobs/{}"), ("POST", "/v1/jobs/{}/cancel"),
        ("GET", "/v1/jobs/{}/events"), ("GET", "/v1/jobs/{}/pictures/0"),
        ("GET", "/v1/jobs/0123456789abcdef/pictures/{}"), ("GET", "/page/{}"), ("GET", "/v1/models/{}"),
    ):  # fmt: skip
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as line:
            target = path.format(name)
            line.sendall(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = line.recv(65536)
        assert answer.split(b" ")[1] in (b"400", b"404", b"405", b"422"), (target, answer[:200])
        assert b"root:" not in answer


@pytest.mark.parametrize("name", ["../default", "/etc/passwd", "a\0b", "..\\x", "no/such", "default/", "x" * 500])
def test_nor_does_the_name_of_a_model(client: httpx.Client, name: str) -> None:
    answer = client.post("/v1/jobs", json=SMALL | {"model": name})
    assert answer.status_code == 404
    assert "no such model here" in answer.json()["error"]["message"]


def test_texts_come_back_as_they_were_and_never_as_a_page(client: httpx.Client) -> None:
    prompt = '<script>alert(1)</script>\nSteps: 1, Seed: 2 "\u202e🦆\x07'
    answer = client.post("/v1/jobs", json=SMALL | {"prompt": prompt})
    assert answer.status_code == 202
    told = client.get(answer.json()["url"])
    assert told.headers["content-type"] == "application/json"
    assert told.json()["request"]["prompt"] == prompt


def test_the_queue_file_is_not_served(server: Server, client: httpx.Client) -> None:
    assert (server.data / "queue.sqlite").is_file()
    for path in ("/queue.sqlite", "/page/queue.sqlite", "/pictures/", "/v1/queue.sqlite"):
        assert client.get(path).status_code == 404


# Whatever the schema allows, and what it does not


@pytest.mark.parametrize("cases", [12, pytest.param(1000, marks=pytest.mark.slow)], ids=["few", "many"])
def test_no_request_that_can_be_made_from_the_schema_is_our_fault(server: Server, cases: int) -> None:
    """Some ten routes, so many cases each."""
    found, asked = fuzz(server.url, cases)
    assert not found, found[:5]
    assert asked > 5 * cases


def fuzz(url: str, cases: int) -> tuple[list[str], int]:
    """What schemathesis found, answers of 500 and above, where not a full queue or disk is told of; and how often it
    asked."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis import GenerationMode

    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found: list[str] = []
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith("/events"):  # an answer without end, for a job that waits
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(
                max_examples=max(1, cases // 2), deadline=None, database=None, derandomize=True,
                phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: "schemathesis.Case") -> None:
                nonlocal asked
                asked += 1
                answer = case.call(timeout=60)
                if answer.status_code >= 500 and answer.status_code not in (503, 507):
                    found.append(f"{answer.status_code} {case.as_curl_command()[:400]}")

            try:
                ask()
            except Exception as error:  # nothing of that mode can be made for this route
                if "Unsatisfiable" not in type(error).__name__ and "Invalid" not in type(error).__name__:
                    raise
    return found, asked
