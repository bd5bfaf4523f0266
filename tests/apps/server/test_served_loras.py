"""LoRA files below the models folder, by their names, through all three interfaces."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import webuiapi
from proofs import ended
from running import running
from safetensors.torch import save_file
from small_lora import small_lora

import tintype

ASKED: dict[str, object] = {"prompt": "a red apple", "seed": 7, "steps": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of models, with a LoRA for the embedded one, and the same where nobody may ask for it."""
    made = tmp_path_factory.mktemp("loras")
    (made / "models" / "loras" / "of mine").mkdir(parents=True)
    for path in ("models/loras/style", "models/loras/of mine/bold", "models/beside", "outside"):
        save_file(small_lora(), made / f"{path}.safetensors")
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with running(folder / "data", "--models", str(folder / "models")) as made:
        yield made


def expected(folder: Path, strength: float, tmp_path: Path, **change: object) -> bytes:
    """The file that Python writes."""
    lora = (f"{folder / 'models' / 'loras' / 'style.safetensors'}:{strength:g}",)
    request = tintype.Request(**ASKED | {"lora": lora} | change)  # pyright: ignore
    [made] = tintype.generate(tintype.load("default", device="cpu"), request)
    tintype.save(made, tmp_path / "made.png")
    return (tmp_path / "made.png").read_bytes()


def test_one_in_a_prompt_of_a1111s_draws_what_python_draws(address: str, folder: Path, tmp_path: Path) -> None:
    client = webuiapi.WebUIApi(baseurl=f"{address}/sdapi/v1")
    names = [one["name"] for one in client.get_loras()]
    assert names == ["of mine/bold", "style"]
    plain = client.txt2img(**ASKED).image.tobytes()
    for prompt, strength in (("a red apple<lora:style:0.8>", 0.8), ("a red apple<lora:style>", 1.0)):
        told = client.txt2img(**ASKED | {"prompt": prompt})
        made = expected(folder, strength, tmp_path, cfg_scale=7.0, sampler="Euler a", eta=1.0)
        assert told.image.tobytes() != plain
        assert base64.b64decode(told.json["images"][0]) == made
        assert re.search(rf'LoRA: "style@[0-9a-f]{{10}}:{strength:g}"', told.info["infotexts"][0])
    assert client.txt2img(**ASKED | {"prompt": "a red apple<lora:of mine/bold:0>"}).image.tobytes() == plain


def test_one_of_a_job_draws_what_python_draws(address: str, folder: Path, tmp_path: Path) -> None:
    with httpx.Client(base_url=address, timeout=90) as client:
        job = client.post("/v1/jobs", json=ASKED | {"lora": ["style:0.5"], "exact": True}).json()
        assert ended(client, job["id"])["state"] == "done"
        made = client.get(f"/v1/jobs/{job['id']}/pictures/0").content
        assert made == expected(folder, 0.5, tmp_path, exact=True)
        assert set(client.get("/v1/capabilities").json()["loras"]) == {"style", "of mine/bold"}


def test_one_beside_openais_fields_draws_what_python_draws(address: str, folder: Path, tmp_path: Path) -> None:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    knobs = {"seed": 7, "steps": 3, "width": 64, "height": 64}
    told = client.images.generate(prompt="a red apple", extra_body=knobs | {"lora": ["style:0.5"]})
    assert told.data is not None
    assert told.data[0].b64_json is not None
    assert base64.b64decode(told.data[0].b64_json) == expected(folder, 0.5, tmp_path)
    held = base64.b64decode(told.data[0].b64_json)
    edits = [
        client.images.edit(
            image=("a.png", held), prompt="a red apple", extra_body={"seed": 7, "steps": 4, "lora": lora}
        )
        for lora in ([], ["style"], ["style", "of mine/bold"])
    ]
    assert len({str(one.data) for one in edits}) == 3


PATHS = (
    "../outside", "../beside", "../../outside.safetensors", "/etc/passwd", "style.safetensors", "loras/style", "..",
    "no", "style@0123456789", "of mine\\bold", "%2e%2e/beside",
)  # fmt: skip


@pytest.mark.parametrize("name", [*PATHS, "{}/outside.safetensors"])
def test_nothing_else_is_a_name(address: str, folder: Path, name: str) -> None:
    name = name.format(folder)
    for path, asked, field in (
        ("/v1/jobs", {"lora": [f"{name}:0.5"]}, "lora"),
        ("/v1/jobs", {"lora": [name]}, "lora"),
        ("/v1/images/generations", {"lora": [name]}, "lora"),
        ("/sdapi/v1/txt2img", {"prompt": f"a <lora:{name}:1>"}, "lora"),
    ):
        answer = httpx.post(f"{address}{path}", json=ASKED | asked, timeout=90)
        assert answer.status_code in (400, 422), answer.text
        error = answer.json()["error"]
        assert error["param"] == field
        assert "expected" in error["message"]
        assert str(folder / "models") not in answer.text
        if "@" not in name:
            assert repr(name) in error["message"]


@pytest.mark.parametrize(
    "prompt", ["a <lora:style:0.5:0.7>", "a <lora:style:te=1>", "a <lora::1>", "a <lora:style:11>", "a <hypernet:x:1>"]
)
def test_what_a1111_knows_beyond_that_is_refused_by_name(address: str, prompt: str) -> None:
    answer = httpx.post(f"{address}/sdapi/v1/txt2img", json=ASKED | {"prompt": prompt}, timeout=90)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["param"] in ("prompt", "lora")
    assert prompt[3:8].rstrip(":") in answer.text
