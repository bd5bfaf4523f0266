"""What is told of tasks, fields and models: the page and other programs build on it."""

import base64
import dataclasses
import io
import shutil
from importlib import resources
from pathlib import Path

import pytest
import torch
from PIL import Image
from proofs import Server, wait_until

from tintype.apps.server.capabilities import config_of, known, tasks_of
from tintype.families import latent_diffusion, stable_diffusion
from tintype.families.base import FamilyConfig, LatentDiffusion, assemble, make_conditioner
from tintype.models.autoencoder import Autoencoder
from tintype.models.unet import UNet
from tintype.serving.models import Models, Unknown
from tintype.tasks.request import TASKS, Request, takes
from tintype.tasks.task import task_of
from tintype.weights import embedded

FAMILIES = (*stable_diffusion.FAMILIES, *latent_diffusion.FAMILIES)


def test_names_are_suggested_and_every_one_of_them_is_taken(stocked: Server) -> None:
    with stocked.client() as client:
        told = client.get("/v1/capabilities").json()
        fields = told["tasks"]["class2img"]["fields"]
        assert {"euler", "DPM++ 2M", "DDIMScheduler"} < set(fields["sampler"]["options"])
        assert {"karras", "leading", "SGM Uniform"} < set(fields["scheduler"]["options"])
        assert "apple" in " ".join(fields["label"]["options"])
        for field in ("sampler", "scheduler"):
            assert fields[field]["kind"] == "text"
            for name in fields[field]["options"]:
                answer = client.post("/v1/jobs", json={"steps": 2, field: name, "width": 32, "height": 32})
                is_for_others = "these levels were found for a schedule" in answer.text
                assert answer.status_code == 202 or is_for_others, (name, answer.text)
                if answer.status_code == 202:
                    client.post(f"{answer.json()['url']}/cancel")
        for label in fields["label"]["options"][:3]:
            assert client.post("/v1/jobs", json={"task": "class2img", "steps": 1, "label": label}).status_code == 202


def test_no_field_speaks_of_the_command_line(stocked: Server) -> None:
    with stocked.client() as client:
        told = client.get("/v1/capabilities").json()["tasks"]
        helps = [one["help"] for task in told.values() for one in task["fields"].values()]
        described = client.get("/openapi.json").json()["components"]["schemas"]["Job"]["properties"].values()
        for text in (*helps, *(one["description"] for one in described)):
            assert "`tintype" not in text
            assert "--" not in text
            assert "FILE" not in text


def test_models_tell_their_tasks_and_classes_where_they_are_known(stocked: Server) -> None:
    with stocked.client() as client:
        wait_until(lambda: client.get("/v1/capabilities").json()["models"][0]["tasks"] is not None)
        told = {one["name"]: one for one in client.get("/v1/capabilities").json()["models"]}
        assert "txt2img" in told["default"]["tasks"]
        assert "upscale" not in told["default"]["tasks"]
        assert told["upscaler"]["tasks"] == ["upscale"]
        assert told["mine"]["tasks"] == told["default"]["tasks"]
        assert told["mine"]["labels"] == told["default"]["labels"] != []
        assert told["upscaler"]["labels"] == []
        assert told["other.safetensors"]["tasks"] is told["other.safetensors"]["labels"] is None


def test_a_folder_of_many_models_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (tmp_path / f"{number}.safetensors").write_bytes(bytes(8) + b"{")
    models, looks = Models(tmp_path), list[int]()
    listed = models.listed()
    monkeypatch.setattr(Models, "listed", lambda self: looks.append(1) or listed)  # pyright: ignore
    assert [known(models, one) is None for one in listed].count(False) == len(embedded())
    assert not looks


def test_a_folder_is_read_again_where_it_changed_and_a_damaged_one_is_not_known(tmp_path: Path) -> None:
    shutil.copytree(str(resources.files("tintype.weights") / "default"), tmp_path / "mine")
    models, file = Models(tmp_path), tmp_path / "mine" / "model.json"
    told = config_of(models, "mine")
    assert told == config_of(models, "default")
    file.write_text("{")
    assert config_of(models, "mine") is None
    with pytest.raises(Unknown):
        config_of(models, "no such")


def model(config: FamilyConfig) -> LatentDiffusion:
    """Without weights."""
    with torch.device("meta"):
        unet, autoencoder = UNet(config.unet), Autoencoder(config.autoencoder)
        conditioner = None if config.conditioner is None else make_conditioner(config.conditioner)
    return assemble(
        config, unet=unet, autoencoder=autoencoder, conditioner=conditioner, source="", fingerprint=lambda: ""
    )


def given(task: str) -> Request:
    held = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).save(held, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
    asked = Request(task=task)
    named = {"image": url, "mask": url, "depth": url, "left": 32, "label": "0", "boxes": ("0:0.1,0.1,0.5,0.5",)}
    fields = {field.name for field in dataclasses.fields(Request) if takes(task, field)}
    return dataclasses.replace(asked, **{name: value for name, value in named.items() if name in fields})  # pyright: ignore


@pytest.mark.parametrize("config", [family.config for family in FAMILIES], ids=lambda config: config.name)
def test_tasks_of_a_model_are_those_that_do_not_refuse_it(config: FamilyConfig) -> None:
    made = model(config)
    for task in TASKS:
        if task == "map2img":  # the test's map is none of every model's
            continue
        try:
            task_of(given(task)).prepare(made, given(task))
            refuses = task in ("txt2img", "img2img", "inpaint", "outpaint") and not (
                made.reads_prompts or (config.conditioner is None and config.unet.context_dim is None)
            )
        except ValueError as error:
            refuses = config.name in str(error) or "memory" not in str(error)
        assert (task in tasks_of(config)) != refuses, task
