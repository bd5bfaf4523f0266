"""What is told of a mistake: the field, what was got, what is expected; never of the command line."""

import base64
import io

import httpx
import pytest
from PIL import Image
from proofs import SMALL

from tintype.apps.server.asked import FIELDS, field_of
from tintype.apps.server.openai_stream import fault_of
from tintype.apps.server.schema import over_http
from tintype.serving.jobs import Job


def picture(width: int = 64, height: int = 64) -> str:
    held = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(held, "PNG")
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"


def error(answer: httpx.Response) -> tuple[int, str | None, str]:
    """Status, field and sentence; what any refusal is made of."""
    told = answer.json()["error"]
    assert set(told) == {"message", "type", "param", "code"}
    for spoken in ("Value error", "--", "FILE", "`tintype"):
        assert spoken not in answer.text
    return answer.status_code, told["param"], told["message"]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/tokens", "/sdapi/v1/txt2img", "/v1/images/generations"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [("", "body: it is empty; expected a JSON object"), ('{"prompt": "a", "prompt": NaM}', "body: no JSON ("),
     ("[]", "body: Input should be a valid dictionary or object to extract fields from")],
)  # fmt: skip
def test_a_body_that_is_none_is_told_as_the_body(client: httpx.Client, path: str, content: str, sentence: str) -> None:
    answer = client.post(path, content=content.encode(), headers={"Content-Type": "application/json"})
    status, field, told = error(answer)
    assert status == (400 if "images" in path else 422)
    assert field == "body"
    assert told.startswith(sentence)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"width": 65}, "width"),
        ({"sampler": "no such"}, "sampler"),
        ({"scheduler": "no such"}, "scheduler"),
        ({"model": "no such"}, "model"),
        ({"model": "upscaler", "task": "upscale", "image": picture(), "prompt": "a"}, None),
        ({"task": "upscale", "image": picture(), "model": "default"}, "model"),
        ({"task": "outpaint", "image": picture()}, None),
        ({"task": "layout2img", "boxes": ["apple"]}, "boxes"),
        ({"task": "class2img", "label": "no such"}, "label"),
        ({"task": "img2img", "image": "/etc/passwd"}, "image"),
        ({"task": "img2img"}, "image"),
        ({"lora": ["no such"]}, "lora"),
        ({"lora": ["a" * 201]}, "lora"),
        ({"branch": "0123456789abcdef:1"}, "branch"),
        ({"strength": 0.5}, "strength"),
        ({"cfg_start": 0.5, "cfg_end": 0.2}, "cfg_start"),
        ({"eta": 0.5, "sampler": "dpmpp_2m"}, "sampler"),
        ({"timeout": -1}, "timeout"),
        ({"hires_steps": 3}, "hires_steps"),
    ],
)
def test_the_field_of_our_own_refusals_is_told(
    client: httpx.Client, asked: dict[str, object], field: str | None
) -> None:
    answer = client.post("/v1/jobs", json={name: value for name, value in SMALL.items() if "task" not in asked} | asked)
    if answer.status_code == 202:  # its model is not open: it is told by the job
        return
    status, told, sentence = error(answer)
    assert status == (404 if asked.get("model") == "no such" else 422)
    if field is not None:
        assert told == field, sentence
    assert (
        "expected" in sentence or "leave" in sentence or "use" in sentence or "should" in sentence or field == "branch"
    )


@pytest.mark.parametrize(
    ("path", "asked", "status", "field"),
    [
        ("/sdapi/v1/txt2img", {"steps": 100_000}, 422, "steps"),
        ("/sdapi/v1/txt2img", {"sampler_name": "no such"}, 400, "sampler_name"),
        ("/sdapi/v1/txt2img", {"subseed_strength": 2}, 422, "subseed_strength"),
        ("/sdapi/v1/txt2img", {"s_churn": 1}, 422, "s_churn"),
        ("/sdapi/v1/txt2img", {"override_settings": {"sd_model_checkpoint": "x"}}, 404, "sd_model_checkpoint"),
        ("/sdapi/v1/img2img", {"init_images": ["x"]}, 422, "init_images"),
        ("/sdapi/v1/img2img", {}, 404, "init_images"),
        ("/v1/images/generations", {"prompt": "a", "width": 65}, 400, "width"),
        ("/v1/images/generations", {"prompt": "a", "sampler": "no such"}, 400, "sampler"),
        ("/v1/tokens", {"prompt": "(a:1.2.3)"}, 422, "prompt"),
    ],
)
def test_the_field_is_called_as_the_client_calls_it(
    client: httpx.Client, path: str, asked: dict[str, object], status: int, field: str
) -> None:
    assert error(client.post(path, json=asked))[:2] == (status, field)


def test_what_is_not_there_is_told_in_the_same_shape(client: httpx.Client) -> None:
    assert error(client.get("/no/such"))[:2] == (404, None)
    assert error(client.put("/v1/jobs"))[:2] == (405, None)
    assert error(client.get("/v1/jobs", params={"count": 0}))[:2] == (422, "count")
    assert error(client.get("/v1/jobs/no"))[:2] == (422, "id")


@pytest.mark.parametrize(
    ("spoken", "said", "field"),
    [
        ("img2img begins with a picture; expected one: --image FILE", "expected one: image", None),
        ("mask: the picture is not stored in it; give it: --mask FILE", "give it: mask", "mask"),
        ("the model x is shown no small picture; expected an upscaler, by --model", "by model", "model"),
        ("nothing to add; expected pixels on a side or more, such as --left 32", "such as left 32", None),
        ("no boxes: layout2img draws; expected some, as --box NAME:a,b,c,d, or --layout", "as boxes NAME:a", "boxes"),
        ("box 'x': expected NAME:left", "box 'x'", "boxes"),
        ("unknown sampler 'x'; expected one of a, b", "unknown sampler", "sampler"),
        ("names for the sampler; see `tintype samplers`", "its options are in /v1/capabilities", None),
        ("a picture at once takes 9 GiB; expected work in tiles, --tile 64, or", "in tiles, tile 64, or", None),
    ],
)
def test_flags_of_the_command_line_are_fields(spoken: str, said: str, field: str | None) -> None:
    told = over_http(spoken)
    assert said in told
    assert "--" not in told
    assert "FILE" not in told
    assert field_of(told) == field


def test_a_stream_tells_a_failed_job_in_the_same_words() -> None:
    sentence = "mask: inpaint needs a mask; expected one: --mask FILE"
    job = Job(
        owner="", id="", number=1, state="failed", request={}, digest="", created=0.0, error=sentence, fault="invalid"
    )
    told = fault_of(job)
    assert told["message"] == "mask: inpaint needs a mask; expected one: mask"
    assert (told["param"], told["type"], told["code"]) == ("mask", "invalid_request_error", "invalid")


def test_every_field_can_be_told(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()["components"]["schemas"]["Job"]["properties"]
    assert set(described) == FIELDS
