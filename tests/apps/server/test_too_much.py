"""Requests for more than is drawn, and bodies that are dear to refuse: told before anything is made of them."""

import base64
import io
import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import httpx
import pytest
from PIL import Image
from proofs import SMALL, Server

from tintype.apps.server.schema import picture_size
from tintype.apps.server.sdapi_extras import parameters

AT_ONCE = 1.0  # second


def picture(width: int, height: int, kind: str = "png", **given: object) -> str:
    held = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(held, kind, **given)  # pyright: ignore
    return f"data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode()}"


def jobs(client: httpx.Client) -> int:
    return len(client.get("/v1/jobs", params={"count": 500}).json())


def refused(client: httpx.Client, path: str, asked: dict[str, object], field: str, status: int = 422) -> str:
    """The sentence of an answer that comes at once; nothing is queued."""
    before, began = jobs(client), time.monotonic()
    answer = client.post(path, json=asked)
    took = time.monotonic() - began
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == field, error
    assert took < AT_ONCE
    assert jobs(client) == before
    return error["message"]


# What a picture tells


@pytest.mark.parametrize(
    "line",
    ["a" * 40_000, "a" * 9_999, ': "' * 3_333, "a:" + " " * 9_990, '\\"' * 4_999, ("a" * 100 + " ") * 99, ',"' * 4_999],
)
def test_a_line_of_settings_is_read_in_no_time_whatever_it_holds(line: str) -> None:
    began = time.monotonic()
    assert parameters(f"a cat\n{line}")["Prompt"].startswith("a cat")
    assert time.monotonic() - began < 0.5


def test_commas_in_quotes_part_nothing() -> None:
    told = parameters('a cat\nSteps: 2, Prompt 2: "b, c: \\"d\\"", Seed: 1, Open: "e, Version: v1')
    assert {name: told[name] for name in ("Steps", "Prompt 2", "Seed", "Open", "Version")} == {
        "Steps": "2", "Prompt 2": 'b, c: "d"', "Seed": "1", "Open": '"e', "Version": "v1",
    }  # fmt: skip


# Bodies


@contextmanager
def watched(server: Server) -> Generator[list[float]]:
    """How long /healthz took, again and again."""
    took, over = [0.0], threading.Event()

    def look() -> None:
        with server.client() as other:
            while not over.is_set():
                began = time.monotonic()
                assert other.get("/healthz").status_code == 200
                took.append(time.monotonic() - began)
                time.sleep(0.005)

    beside = threading.Thread(target=look)
    beside.start()
    try:
        yield took
    finally:
        over.set()
        beside.join()


ZEROS = [0] * 90_000  # more are not even parsed, see below
UNKNOWN = {f"k{number}": 0 for number in range(90_000)}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/sdapi/v1/txt2img", {"styles": ZEROS}),
        ("/sdapi/v1/txt2img", {"styles": ["a"] * 90_000}),
        ("/sdapi/v1/txt2img", {"script_args": ZEROS}),
        ("/sdapi/v1/txt2img", UNKNOWN),
        ("/sdapi/v1/txt2img", dict.fromkeys(list(UNKNOWN)[:500], 0)),
        ("/sdapi/v1/img2img", {"init_images": ZEROS}),
        ("/sdapi/v1/img2img", {"init_images": [""] * 90_000}),
        ("/sdapi/v1/extra-batch-images", {"imageList": ZEROS}),
        ("/sdapi/v1/extra-batch-images", {"imageList": [{"data": 0}] * 90_000}),
        ("/v1/jobs", {"boxes": ZEROS}),
        ("/v1/jobs", {"lora": ZEROS}),
        ("/v1/jobs", {"lora": ["a"] * 90_000}),
        ("/v1/jobs", UNKNOWN),
        ("/v1/images/generations", {"prompt": "a"} | UNKNOWN),
        ("/v1/images/generations", {"prompt": ZEROS}),
        ("/v1/tokens", {"prompt": "a"} | UNKNOWN),
    ],
    ids=lambda value: value if isinstance(value, str) else next(reversed(value)),
)  # fmt: skip
def test_a_million_mistakes_are_refused_as_one(
    server: Server, client: httpx.Client, path: str, asked: dict[str, object]
) -> None:
    content = json.dumps(asked).encode()
    with watched(server) as took:
        answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text[:500]
    assert len(answer.json().get("detail", [""])) == 1
    assert len(answer.content) < 5_000
    assert max(took) < AT_ONCE


@pytest.mark.parametrize("value", ["0", "{}", '""', '"k":0'], ids=["zeros", "objects", "texts", "keys"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/sdapi/v1/txt2img"])
def test_a_body_of_millions_of_values_is_not_even_parsed(
    server: Server, client: httpx.Client, path: str, value: str
) -> None:
    many = ",".join([value] * (31 * 2**20 // (len(value) + 1)))
    content = f'{{"script_args": {{{many}}}}}' if ":" in value else f'{{"script_args": [{many}]}}'
    with watched(server) as took:
        answer = client.post(path, content=content.encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["param"] == "body"
    assert max(took) < AT_ONCE


def test_twenty_mistakes_are_told_and_no_more(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", json=SMALL | dict.fromkeys([f"k{number}" for number in range(150)], 0))
    assert answer.status_code == 422
    assert len(answer.json()["detail"]) == 20


# Pictures that are not given


@pytest.mark.parametrize(
    ("task", "given", "field"),
    [
        *((task, {}, "image") for task in ("img2img", "inpaint", "outpaint", "edit", "depth2img", "upscale")),
        ("img2img", {"image": ""}, "image"),
        ("upscale", {"image": ""}, "image"),
        ("inpaint", {"image": picture(64, 64)}, "mask"),
        ("inpaint", {"image": picture(64, 64), "mask": ""}, "mask"),
        ("depth2img", {"image": picture(64, 64), "depth": ""}, "depth"),
        ("map2img", {}, "map"),
        ("map2img", {"map": ""}, "map"),
        ("class2img", {"label": " "}, "label"),
        ("layout2img", {"boxes": []}, "boxes"),
    ],
)
def test_what_a_task_cannot_do_without_is_asked_for_by_name(
    client: httpx.Client, task: str, given: dict[str, object], field: str
) -> None:
    sentence = refused(client, "/v1/jobs", {"task": task, "steps": 1} | given, field)
    assert sentence.startswith(f"{field}: {task} ")
    assert "--" not in sentence


def test_an_empty_picture_is_none(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", json=SMALL | {"image": "", "mask": ""})
    assert answer.status_code == 202
    assert answer.json()["request"].get("image") is None
    refused(client, "/sdapi/v1/img2img", {"init_images": [""]}, "init_images", 404)
    refused(client, "/sdapi/v1/img2img", {"init_images": []}, "init_images", 404)
    refused(client, "/sdapi/v1/extra-single-image", {"image": ""}, "image")
    refused(client, "/sdapi/v1/png-info", {"image": ""}, "image")


def test_base64_may_be_broken_into_lines(client: httpx.Client) -> None:
    text = base64.encodebytes(base64.b64decode(picture(64, 64).partition(",")[2])).decode()
    assert "\n" in text
    asked = {"prompt": "a", "steps": 2, "init_images": [text.replace("\n", "\r\n")], "mask": text}
    assert client.post("/sdapi/v1/img2img", json=asked).status_code == 200
    assert client.post("/sdapi/v1/png-info", json={"image": text}).status_code == 200
    answer = client.post("/v1/jobs", json={"task": "img2img", "steps": 1, "image": text})
    assert answer.status_code == 202, answer.text


# Larger than is drawn


IMAGE = picture(64, 64)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"width": 1024, "height": 64, "hires_scale": 4}, "hires_scale"),
        ({"width": 64, "height": 1024, "hires_scale": 2.5}, "hires_scale"),
        ({"task": "outpaint", "image": IMAGE, "right": 2000}, "right"),
        ({"task": "outpaint", "image": IMAGE, "left": 8192}, "left"),
        ({"task": "outpaint", "image": IMAGE, "top": 1000, "bottom": 1001}, "bottom"),
        ({"task": "upscale", "image": picture(640, 8)}, "scale"),
        ({"task": "upscale", "image": picture(8, 1200), "scale": 2}, "scale"),
        ({"width": 2048, "height": 2048, "batch_size": 5}, "batch_size"),
        ({"width": 512, "height": 512, "hires_scale": 4, "batch_size": 16}, "batch_size"),
        ({"task": "img2img", "image": picture(2048, 2048), "batch_size": 16}, "batch_size"),
        ({"prompt": " AND ".join("abcdefghijklmnopq")}, "prompt"),
        ({"prompt": "[a:b:0.5]" * 65}, "prompt"),
        ({"prompt": "[a|b]" * 65}, "prompt"),
        ({"negative_prompt": "[a|b]" * 65}, "negative_prompt"),
        ({"prompt": "(a" * 65}, "prompt"),
        ({"prompt": "([a" * 65}, "prompt"),
        ({"prompt": "(a](a]" * 65}, "prompt"),
        ({"prompt": "a" + " " * 19_000 + "b"}, "prompt"),
        ({"negative_prompt": "a" + "\n" * 19_000 + "b"}, "negative_prompt"),
        ({"prompt": "[a:b:" + "1" * 19_000 + "x]"}, "prompt"),
        ({"prompt": "(a:1.2.3)"}, "prompt"),
        ({"prompt": "(a:99999999999)"}, "prompt"),
        ({"prompt": "((((a:99):99):99):99)"}, "prompt"),
        ({"prompt": "a AND b :99999999999"}, "prompt"),
    ],
)
def test_what_is_too_large_or_too_long_is_refused_by_name(
    client: httpx.Client, asked: dict[str, object], field: str
) -> None:
    sentence = refused(client, "/v1/jobs", {"steps": 1} | asked, field)
    assert sentence.startswith(field)
    assert "expected" in sentence


@pytest.mark.parametrize(
    ("path", "asked", "field", "status"),
    [
        ("/sdapi/v1/txt2img", {"width": 1024, "height": 1024, "enable_hr": True, "hr_scale": 4}, "hr_scale", 422),
        ("/sdapi/v1/txt2img", {"width": 2048, "height": 2048, "batch_size": 16}, "batch_size", 422),
        ("/sdapi/v1/txt2img", {"prompt": "a AND " * 20}, "prompt", 422),
        ("/sdapi/v1/txt2img", {"prompt": "a" * 20_001}, "prompt", 422),
        ("/sdapi/v1/img2img", {"init_images": [picture(2048, 2048)], "batch_size": 16}, "batch_size", 422),
        ("/v1/images/generations", {"prompt": "a", "n": 10, "width": 2048, "height": 2048}, "n", 400),
        ("/v1/images/generations", {"prompt": "[a|b]" * 65}, "prompt", 400),
    ],
)
def test_all_interfaces_keep_the_same_limits(
    client: httpx.Client, path: str, asked: dict[str, object], field: str, status: int
) -> None:
    assert refused(client, path, {"prompt": "a", "steps": 1} | asked, field, status).startswith(field)


@pytest.mark.parametrize(
    "asked",
    [
        {"width": 64, "height": 64, "hires_scale": 2, "steps": 2},
        {"task": "outpaint", "image": IMAGE, "right": 8},
        {"prompt": " AND ".join("abcdefghijklmnop")},
        {"prompt": "[a:b:0.5]" * 64},
        {"prompt": "a" + "(b:1.2), [c], " * 500},
        {"prompt": "a" + " " * 200 + "b 12345678 [c:(d:1.3):0.5] AND e :0.5"},
        {"prompt": "[a|b]" * 100, "prompt_style": "plain"},
        {"prompt": r"\[a|b\]" * 100},
    ],
)
def test_what_is_within_the_limits_is_taken(client: httpx.Client, asked: dict[str, object]) -> None:
    answer = client.post("/v1/jobs", json={"steps": 1} | asked)
    assert answer.status_code == 202, answer.text
    client.post(f"{answer.json()['url']}/cancel")


def test_size_is_the_upright_pictures() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("jpeg", "webp", "png"):
        assert picture_size(base64.b64decode(picture(40, 20, kind, exif=exif).partition(",")[2])) == (20, 40)
    assert picture_size(base64.b64decode(picture(40, 20).partition(",")[2])) == (40, 20)
