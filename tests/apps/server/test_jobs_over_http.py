"""What a job is asked for with and what is told of it: priorities, keys, warnings, steps, models that are there."""

import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import httpx
import pytest
import torch
from PIL import Image
from proofs import LONG, SMALL, ended, running, serving, submit

from tintype.apps.server.schema import data_url, png


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of models: one that is whole, one that is damaged, and some that are pickled."""
    made = tmp_path_factory.mktemp("over_http") / "models"
    shutil.copytree(str(resources.files("tintype.weights") / "default"), made / "mine")
    (made / "damaged.safetensors").write_bytes(b"\x40" + b"\0" * 7 + b"{" * 64)
    for name in ("old.ckpt", "older.pt", "oldest.PTH", "hers/unet/model.bin"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save({}, made / name)
    (made / "hers" / "model_index.json").write_text("{}")
    return made


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with serving(folder.parent / "data", "--models", str(folder)) as server, server.ready().client() as made:
        yield made


def test_jobs_of_higher_priority_come_first(client: httpx.Client) -> None:
    block = submit(client, **LONG)
    running(client, block)
    priorities = (0, 5, -5, 5)
    ids = [submit(client, priority=priority) for priority in priorities]
    told = [client.get(f"/v1/jobs/{id}").json() for id in ids]
    assert [one["priority"] for one in told] == list(priorities)
    assert [one["position"] for one in told] == [2, 0, 3, 1]
    for id in (*ids, block):
        assert client.post(f"/v1/jobs/{id}/cancel").status_code == 200


def test_a_key_is_of_one_request(client: httpx.Client) -> None:
    key = {"Idempotency-Key": "mine"}
    first = client.post("/v1/jobs", json=SMALL, headers=key)
    assert first.status_code == 202
    ended(client, first.json()["id"])
    again = client.post("/v1/jobs", json=SMALL, headers=key)
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (202, first.json()["id"], "done")
    for other in ({"seed": 2}, {"keep_steps": True}, {"model": "mine"}):
        answer = client.post("/v1/jobs", json=SMALL | other, headers=key)
        assert answer.status_code == 422
        assert "another request was asked for with it" in answer.json()["error"]["message"]


def test_what_the_model_did_not_take_is_told(client: httpx.Client) -> None:
    told = ended(client, submit(client, prompt="a zeppelin", negative_prompt="a red xylophone"))
    assert told["state"] == "done"
    assert told["warnings"] == [
        "prompt: the model never saw 'zeppelin'; left out", "negative_prompt: the model never saw 'xylophone'; left out"
    ]  # fmt: skip
    assert ended(client, submit(client))["warnings"] == []


@pytest.mark.parametrize("asked", [{"steps": 3}, {"steps": None}, {"steps": 3, "exact": True}], ids=str)
def test_what_is_done_has_done_all_its_steps(client: httpx.Client, asked: dict[str, object]) -> None:
    told = ended(client, submit(client, **asked))
    assert told["state"] == "done"
    assert told["step"] == told["steps"] == told["request"]["steps"]  # pyright: ignore
    assert told["steps"] == asked["steps"] or asked["steps"] is None
    assert next(one for one in client.get("/v1/jobs").json() if one["id"] == told["id"]) == told


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ({"task": "img2img", "steps": 10, "strength": 0.5}, 5),
        ({"task": "img2img", "steps": 10, "strength": 0.0}, 0),
        ({"steps": 4, "hires_scale": 2.0, "hires_strength": 0.5}, 6),
    ],
    ids=str,
)
def test_steps_that_were_done_are_told(client: httpx.Client, asked: dict[str, object], steps: int) -> None:
    picture = {"image": data_url(png(Image.new("RGB", (64, 64), "red")))} if asked.get("task") == "img2img" else {}
    told = ended(client, submit(client, **asked, **picture))
    assert (told["state"], told["step"], told["steps"]) == ("done", steps, steps)


def test_steps_that_are_too_many_to_be_kept_are_refused(client: httpx.Client) -> None:
    ended(client, submit(client))  # with its model open
    many: dict[str, object] = {"prompt": "a", "steps": 150, "width": 512, "height": 512, "batch_size": 4}
    answer = client.post("/v1/jobs", json=many | {"keep_steps": True})
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == (
        "keep_steps: they take 300 MiB, of which 256 are kept; ask for fewer steps"
    )


def test_pickled_models_are_neither_listed_nor_served(client: httpx.Client) -> None:
    listed = {
        "openai": [one["id"] for one in client.get("/v1/models").json()["data"]],
        "ours": [one["name"] for one in client.get("/v1/capabilities").json()["models"]],
        "a1111": [one["model_name"] for one in client.get("/sdapi/v1/sd-models").json()],
    }
    for names in listed.values():
        assert {"default", "mine"} <= {name.removesuffix(".safetensors") for name in names}
        assert not [name for name in names if "old" in name or "hers" in name]
    for name in ("old.ckpt", "hers"):
        answer = client.post("/v1/jobs", json=SMALL | {"model": name})
        assert answer.status_code == 404
        assert client.get(f"/v1/models/{name}").status_code == 404
    answer = client.post("/v1/jobs", json=SMALL | {"model": "nothing"})
    assert answer.status_code == 404
    assert "expected one of " in answer.text
    assert "old" not in answer.text


def test_no_folder_of_this_machine_is_told(client: httpx.Client, folder: Path) -> None:
    told = ended(client, submit(client, model="damaged.safetensors"))
    assert (told["state"], told["fault"]) == ("failed", "invalid")
    assert "damaged.safetensors" in str(told["error"])
    assert str(folder.parent) not in str(told) + client.get("/v1/capabilities").text + client.get("/v1/models").text
    assert ended(client, submit(client))["state"] == "done"
