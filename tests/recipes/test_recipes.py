"""Each recipe from end to end, in miniature: one trains the next, as the embedded model was made."""

import dataclasses
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import SMALL, small

import tintype.data.scenes
from tintype.apps.cli import main
from tintype.checkpoints import load
from tintype.checkpoints.native import load_network, save_network
from tintype.common.config import from_json, override, to_json
from tintype.common.files import load_tensors, reserved
from tintype.conditioning.text import TextConditioner, TextConfig, word_ids, words_of
from tintype.data.latents import StoredLatents
from tintype.data.samples import latents
from tintype.data.scenes import SceneConfig, Scenes
from tintype.data.sources import captions, to_tensor
from tintype.diffusion.scaling import SCALINGS
from tintype.diffusion.schedule import make_schedule
from tintype.generation import generate
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.models.unet import UNet
from tintype.objectives.autoencoding import AutoencodingObjective
from tintype.objectives.conditions import TextCondition
from tintype.objectives.denoising import DenoisingObjective
from tintype.objectives.perceptual import FeatureDistance
from tintype.recipes import RECIPES, run
from tintype.recipes.base import KEPT
from tintype.recipes.default_text2img import DefaultText2Img, taught_words
from tintype.tasks.request import Request
from tintype.training.state import changeable, check_folder


def published(out: Path) -> dict[str, bytes]:
    """Everything but checkpoints, sheets and the log, by file."""
    others = {".png", ".jsonl"}
    files = [
        path for path in out.rglob("*") if path.is_file() and "step-" not in str(path) and path.suffix not in others
    ]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def times(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.rglob("*") if "step-" in str(path)}


def test_every_recipe_is_tested_here() -> None:
    assert RECIPES.keys() == SMALL.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_plain_data(name: str) -> None:
    recipe = RECIPES[name]()
    assert dataclasses.is_dataclass(recipe)
    assert from_json(type(recipe), json.loads(json.dumps(to_json(recipe)))) == recipe
    assert override(recipe, ["train.steps=7"]).train.steps == 7
    assert recipe == RECIPES[name]()


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_leaves_checkpoints_and_the_whole_recipe(name: str, finished: Callable[[str], Path]) -> None:
    out: Path = finished(name)
    assert sorted(path.name for path in out.glob("step-*")) == ["step-00000002", "step-00000004"]
    recipe = RECIPES[name]()
    told = json.loads((out / "step-00000004" / "recipe.json").read_text())
    assert all(len(digest) == 64 for digest in told.pop("inputs").values())
    saved = from_json(type(recipe), told)
    assert (saved.train.steps, saved.train.batch_size) == (4, 4)
    assert [entry for entry in os.listdir(out) if entry.startswith(".")] == [".lock"]


def test_the_classifier_is_published(classifier: Path) -> None:
    network = load_network(classifier / "classifier.safetensors", "classifier", ClassifierConfig, Classifier)
    assert network.config.widths == (8, 16)
    average = load_tensors(classifier / "step-00000004" / "classifier.ema.safetensors")
    for name, value in network.state_dict().items():
        assert torch.equal(value, average[name].half().float())
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 256)


def test_the_autoencoder_is_published_with_a_sheet(autoencoder: Path) -> None:
    network = load_network(autoencoder / "autoencoder.safetensors", "autoencoder", AutoencoderConfig, Autoencoder)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    assert network.decode(network.encode(image).mean).shape == image.shape
    average = load_tensors(autoencoder / "step-00000004" / "autoencoder.ema.safetensors")
    for name, value in network.state_dict().items():
        assert torch.equal(value, average[f"autoencoder.{name}"].half().float())
    assert (autoencoder / "sheet-00000004.png").is_file()


def test_the_model_is_published_and_draws(text2img: Path, autoencoder: Path) -> None:
    model = load(str(text2img / "model"))
    request = Request(prompt="a red apple on a white background", seed=5)
    picture = generate(model, request)[0]
    assert picture.size == (64, 64)
    assert picture.mode == "RGB"
    assert np.ptp(np.asarray(picture)) > 0
    text = picture.info["parameters"]
    assert text.startswith("a red apple on a white background\n")
    assert "Steps: 2," in text
    assert "Seed: 5," in text
    again = generate(load(str(text2img / "model")), request)[0]
    assert again.tobytes() == picture.tobytes()
    other = generate(model, Request(prompt="a red apple on a white background", seed=6))[0]
    assert other.tobytes() != picture.tobytes()

    average = load_tensors(text2img / "step-00000004" / "diffusion.ema.safetensors")
    for file, prefix in (("unet", "unet."), ("conditioner", "text.")):
        weights = load_tensors(text2img / "model" / f"{file}.safetensors")
        assert weights
        for name, value in weights.items():
            assert torch.equal(value, average[prefix + name].half())
    first_stage = load_tensors(autoencoder / "autoencoder.safetensors")
    for name, value in load_tensors(text2img / "model" / "autoencoder.safetensors").items():
        assert torch.equal(value, first_stage[name])


def test_wrapped_latents_have_unit_variance(text2img: Path) -> None:
    model = load(str(text2img / "model"))
    stored = StoredLatents(text2img / "latents", autoencoder=model.autoencoder)
    batch = latents([stored[number] for number in range(24)], torch.Generator())
    assert batch["mean"].shape == (24, 4, 8, 8)
    mean = model.space.wrap(batch["mean"])
    std = batch["std"] * torch.tensor(model.space.scale)[:, None, None]
    assert mean.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    variance = (mean.square() + std.square()).mean(dim=(0, 2, 3))
    assert torch.allclose(variance, torch.ones(4), atol=1e-4)


def test_every_latent_comes_wrapped_with_the_caption_of_its_scene(text2img: Path, autoencoder: Path) -> None:
    model = load(str(text2img / "model"), device="cpu")
    recipe = small("default_text2img", f"autoencoder={autoencoder / 'autoencoder.safetensors'}")
    assert isinstance(recipe, DefaultText2Img)
    scenes = Scenes(recipe.scenes)
    first_stage = load_network(autoencoder / "autoencoder.safetensors", "autoencoder", AutoencoderConfig, Autoencoder)
    with torch.inference_mode():
        posterior = first_stage.encode(to_tensor([scenes[index].picture for index in range(24)]))
    mean = model.space.wrap(posterior.mean)
    std = posterior.std * torch.tensor(model.space.scale)[:, None, None]
    tokens = model.conditioner.tokens(captions(scenes, range(24)))

    prepared = recipe.prepare(text2img)
    assert isinstance(prepared.objective, DenoisingObjective)
    batch = prepared.source.batch(0, 24)
    found = prepared.objective.posterior(batch)
    order = torch.cdist(found[0].flatten(1), mean.flatten(1)).argmin(dim=1)  # which scene each row is
    assert sorted(order.tolist()) == list(range(24))
    assert torch.allclose(found[0], mean[order], atol=5e-3)
    assert torch.allclose(found[1], std[order], rtol=0.005)
    assert torch.equal(batch["ids"].long(), tokens.ids[order])
    assert torch.equal(batch["end"], tokens.end[order])


def test_what_is_trained_is_what_the_recipe_says_and_what_is_published(text2img: Path, autoencoder: Path) -> None:
    model = load(str(text2img / "model"), device="cpu").config
    recipe = small("default_text2img", f"autoencoder={autoencoder / 'autoencoder.safetensors'}")
    assert isinstance(recipe, DefaultText2Img)
    assert (model.schedule, model.prediction, model.unet) == (recipe.schedule, recipe.prediction, recipe.unet)
    assert (model.size, model.steps, model.cfg_scale) == (recipe.scenes.size, recipe.steps, recipe.cfg_scale)
    objective = recipe.prepare(text2img).objective
    assert isinstance(objective, DenoisingObjective)
    (condition,) = objective.conditions
    assert isinstance(condition, TextCondition)
    assert condition.dropout == recipe.caption_dropout > 0
    assert objective.denoiser.scaling is SCALINGS[model.prediction]
    drawn, expected = (
        schedule.draw(64, torch.Generator().manual_seed(0))
        for schedule in (objective.denoiser.schedule, make_schedule(model.schedule))
    )
    assert torch.equal(drawn, expected)


def test_the_feature_distance_is_that_of_the_classifier_named(
    classifier: Path, tmp_path: Path, more: dict[str, Sequence[str]]
) -> None:
    objective = small("default_autoencoder", *more["default_autoencoder"]).prepare(tmp_path).objective
    assert isinstance(objective, AutoencodingObjective)
    assert isinstance(objective.features, FeatureDistance)
    named = load_network(classifier / "classifier.safetensors", "classifier", ClassifierConfig, Classifier)
    weights = objective.features.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in named.state_dict().items())


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("this was to be done once")


@pytest.mark.parametrize("name", RECIPES)
def test_a_finished_run_is_left_as_it_is(
    name: str, finished: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, more: dict[str, Sequence[str]]
) -> None:
    out: Path = finished(name)
    before, weights = times(out), published(out)
    monkeypatch.setattr(Autoencoder, "encode", refuse)
    run(small(name, *more[name]), out, progress=False)
    assert times(out) == before
    assert published(out) == weights


@pytest.mark.parametrize("name", RECIPES)
def test_a_stopped_run_goes_on_where_it_was(
    name: str, tmp_path: Path, finished: Callable[[str], Path], more: dict[str, Sequence[str]]
) -> None:
    """Two steps, then four: the published weights are those of the run of four, byte for byte."""
    run(small(name, *more[name], "train.steps=2"), tmp_path, progress=False)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000002"]
    run(small(name, *more[name]), tmp_path, progress=True)
    whole: Path = finished(name)
    assert published(tmp_path) == published(whole)


def test_latents_of_another_first_stage_are_made_anew(
    text2img: Path, tmp_path: Path, more: dict[str, Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    other = tmp_path / "other.safetensors"
    config = AutoencoderConfig(latent_channels=4, width=8, mult=(1, 1), num_blocks=1, patch_size=4, norm_groups=4)
    save_network(other, "autoencoder", config, Autoencoder(config).state_dict(), dtype=torch.float16)
    shutil.copytree(text2img / "latents", tmp_path / "latents")
    small("default_text2img", f"autoencoder={other}").prepare(tmp_path)
    assert published(tmp_path / "latents").keys() == published(text2img / "latents").keys()
    assert published(tmp_path / "latents") != published(text2img / "latents")
    monkeypatch.setattr(Autoencoder, "encode", refuse)
    small("default_text2img", f"autoencoder={other}").prepare(tmp_path)
    with pytest.raises(AssertionError, match="this was to be done once"):
        small("default_text2img", f"autoencoder={other}", "scenes.seed=4").prepare(tmp_path)


def test_latents_of_scenes_that_look_otherwise_are_made_anew(
    text2img: Path, tmp_path: Path, more: dict[str, Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(text2img / "latents", tmp_path / "latents")
    monkeypatch.setattr(Autoencoder, "encode", refuse)
    small("default_text2img", *more["default_text2img"]).prepare(tmp_path)
    original = tintype.data.scenes.background
    monkeypatch.setattr(tintype.data.scenes, "background", lambda plan: original(plan) - 1)
    with pytest.raises(AssertionError, match="this was to be done once"):
        small("default_text2img", *more["default_text2img"]).prepare(tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_another_recipe_is_refused_before_anything_is_made(
    name: str, finished: Callable[[str], Path], more: dict[str, Sequence[str]]
) -> None:
    out: Path = finished(name)
    before = times(out), published(out)
    with pytest.raises(ValueError, match=r"recipe: scenes\.seed was \d+, is 5;.* go on"):
        run(small(name, *more[name], "scenes.seed=5"), out, progress=False)
    assert (times(out), published(out)) == before


@pytest.mark.parametrize("name", ["default_autoencoder", "default_text2img"])
def test_a_run_goes_on_when_its_files_have_moved(
    name: str, tmp_path: Path, finished: Callable[[str], Path], more: dict[str, Sequence[str]]
) -> None:
    out: Path = finished(name)
    before = published(out)
    field, _, file = more[name][0].partition("=")
    shutil.copy(file, tmp_path / "moved.safetensors")
    run(small(name, f"{field}={tmp_path / 'moved.safetensors'}", "sheet_every=3"), out, progress=False)
    assert published(out) == before


@pytest.mark.parametrize("name", ["default_autoencoder", "default_text2img"])
def test_a_file_of_other_content_is_another_run(
    name: str, tmp_path: Path, finished: Callable[[str], Path], more: dict[str, Sequence[str]]
) -> None:
    """Under the same path, as when the first stage is trained again."""
    out: Path = finished(name)
    before = times(out), published(out)
    field, _, file = more[name][0].partition("=")
    other = tmp_path / "other.safetensors"
    other.write_bytes(Path(file).read_bytes()[:-2] + b"\0\0")
    with pytest.raises(ValueError, match=rf'recipe: inputs\.{field} was "[0-9a-f]{{64}}", is "[0-9a-f]{{64}}"; go on'):
        run(small(name, f"{field}={other}"), out, progress=False)
    assert (times(out), published(out)) == before


@pytest.mark.parametrize("name", RECIPES)
def test_scenes_that_look_otherwise_are_another_run(
    name: str, finished: Callable[[str], Path], more: dict[str, Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A font of another drawing, or code that draws otherwise."""
    out: Path = finished(name)
    before = times(out), published(out)
    original = tintype.data.scenes.background
    monkeypatch.setattr(tintype.data.scenes, "background", lambda plan: original(plan) - 1)
    with pytest.raises(ValueError, match=r"recipe: inputs\.scenes was .*; go on"):
        run(small(name, *more[name]), out, progress=False)
    assert (times(out), published(out)) == before


def test_what_may_change_when_a_run_goes_on() -> None:
    every = {
        "train.steps",
        "train.device",
        "train.compile",
        "train.skips",
        "train.parallel",
        "train.checkpointing",
        "train.save_every",
        "train.keep",
        "font",
        "sheet_every",
        "tensorboard",
        "publish_std",
    }
    autoencoder = {"data", "features", "lpips", "validate_every"}
    latent_diffusion = {"data", "autoencoder", "frozen", "validate_every", "steps", "cfg_scale", "scheduler"}
    own = {
        "scene_classifier": set[str](),
        "autoencoder": autoencoder,
        "autoencoder_kl_f8": autoencoder,
        "autoencoder_vq_f4": autoencoder,
        "clip": {"data"},
        "clip_vit_b32": {"data"},
        "default_autoencoder": {"features"},
        "default_text2img": {"autoencoder", "start", "steps", "cfg_scale"},
        "default_tasks": {"autoencoder", "start", "steps", "cfg_scale"},
        "default_upscaler": {"start", "steps"},
        "latent_diffusion": latent_diffusion,
        "stable_diffusion_1": latent_diffusion,
        "class_to_image_imagenet": latent_diffusion,
        "compression_study": {"autoencoder"},
    }
    assert {name: changeable(make()) for name, make in RECIPES.items()} == {name: every | own[name] for name in own}


def test_a_finished_run_is_not_made_shorter(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is said before anything is made ready."""
    before = times(classifier), published(classifier)
    monkeypatch.setattr(type(small("scene_classifier")), "prepare", refuse)
    with pytest.raises(ValueError, match=r"train\.steps 3: .*step-00000004 is at step 4; expected 4 or more"):
        run(small("scene_classifier", "train.steps=3"), classifier, progress=False)
    assert (times(classifier), published(classifier)) == before


def test_a_folder_of_something_else_is_left_alone(classifier: Path, tmp_path: Path) -> None:
    """Photos, a prepared data set, latents; but a run that was killed before its first step has some, and goes on."""
    for place, names in (
        ("photos", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]),
        ("prepared", [".lock", "00000.tar", "dataset.json"]),
        ("stored", [".lock", "latents.json"]),
        ("both", ["latents/latents.json", "mine.txt"]),
        ("killed", [".lock", "latents/latents.json", "tensorboard/events"]),
        ("hidden", [".DS_Store"]),
        ("published", ["log.jsonl", "classifier.safetensors"]),
        ("one", ["step-00000004/train.pt", "notes.txt"]),
    ):
        for name in names:
            (tmp_path / place / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place / name).touch()
    for place, said in (("photos", r"a\.jpg, b\.jpg, c\.jpg, …"), ("prepared", "00000.tar, dataset.json")):
        before = sorted((tmp_path / place).iterdir())
        with pytest.raises(ValueError, match=rf"/{place} holds other files \({said}\) and no run; expected an empty"):
            run(small("scene_classifier"), tmp_path / place, progress=False)
        assert sorted((tmp_path / place).iterdir()) == before
    refused = {place.name for place in tmp_path.iterdir() if _is_refused(place)}
    assert refused == {"photos", "prepared", "stored", "both"}
    check_folder(classifier, kept=KEPT)
    check_folder(tmp_path / "absent", kept=KEPT)


def _is_refused(place: Path) -> bool:
    try:
        check_folder(place, kept=KEPT)
    except ValueError:
        return True
    return False


def test_a_folder_holds_one_run_at_a_time(classifier: Path) -> None:
    (classifier / ".step-00000009.abc.tmp").mkdir()  # the other run is writing it
    with reserved(classifier), pytest.raises(ValueError, match=rf"a run is going on in {classifier}; wait for its end"):
        run(small("scene_classifier", "train.steps=9"), classifier, progress=False)
    assert (classifier / ".step-00000009.abc.tmp").is_dir()
    assert run(small("scene_classifier"), classifier, progress=False)
    assert not (classifier / ".step-00000009.abc.tmp").exists()


# Two processes


@pytest.mark.parametrize(
    ("accumulate", "parallel"), [(1, "ddp"), (2, "ddp"), pytest.param(2, "fsdp", marks=pytest.mark.slow)]
)
def test_two_processes_of_the_command_are_one(
    tmp_path: Path, more: dict[str, Sequence[str]], accumulate: int, parallel: str
) -> None:
    """What torchrun starts, with the variables it sets. One micro-batch cannot be shared, which is said at once."""
    settings = (*more["default_text2img"], f"train.accumulate={accumulate}", f"train.parallel={parallel}")
    options = [word for one in (*SMALL["default_text2img"], *settings) for word in ("--set", one)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alike = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    alike |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tintype", "train", "default_text2img", "--out", str(tmp_path / "two"), *options],
            env=os.environ | alike | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=600) for process in processes]
    if accumulate == 1:
        assert [process.returncode for process in processes] == [2, 2]
        assert all("train.accumulate 1 cannot be shared by 2 processes" in err for _, err in said)
        assert not any("Traceback" in err for _, err in said)
        assert not (tmp_path / "two").exists()
        return
    assert [process.returncode for process in processes] == [0, 0], said
    assert [out for out, _ in said] == [f"finished: {tmp_path / 'two'}\n", ""]

    assert run(small("default_text2img", *settings), tmp_path / "one", progress=False)
    one, two = (published(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert one["latents/latents-00000.safetensors"] == two["latents/latents-00000.safetensors"]
    for part in ("unet", "conditioner", "autoencoder"):
        alone, shared = (load_tensors(tmp_path / name / "model" / f"{part}.safetensors") for name in ("one", "two"))
        for name, value in alone.items():
            assert torch.allclose(value.float(), shared[name].float(), atol=2e-3), name


def test_a_finished_run_publishes_an_average_of_another_length(tmp_path: Path) -> None:
    settings = ("train.ema_stds=[0.05,0.1]", "train.save_every=1", "tensorboard=true")
    run(small("scene_classifier", *settings), tmp_path, progress=False)
    standard = load_tensors(tmp_path / "classifier.safetensors")
    run(small("scene_classifier", *settings, "publish_std=0.1"), tmp_path, progress=False)
    average = load_tensors(tmp_path / "step-00000004" / "classifier.ema-0.1.safetensors")
    weights = load_tensors(tmp_path / "classifier.safetensors")
    for name, value in weights.items():
        assert torch.allclose(value.float(), average[name], rtol=1e-3, atol=1e-4), name
    assert any(not torch.allclose(value, standard[name], rtol=1e-2) for name, value in weights.items())
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    with pytest.raises(ValueError, match=r"publish_std 0\.1: expected train\.ema_stds, .* --set train\.ema_stds="):
        small("scene_classifier", "publish_std=0.1")


def test_the_command_says_where_a_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = [word for one in SMALL["scene_classifier"] for word in ("--set", one)]
    with caplog.at_level(logging.NOTSET, logger="tintype.training"):  # puts back what the command changes
        for steps in (2, 4):
            command = ["train", "scene_classifier", "--out", str(tmp_path), *settings, "--set", f"train.steps={steps}"]
            assert main(command) == 0
    assert [record.getMessage() for record in caplog.records] == [
        "train.steps is set more than once; --set train.steps=2 counts, not --set train.steps=4",
        f"going on from {tmp_path / 'step-00000002'}",
    ]


def test_one_seed_decides_all_of_a_classifier(tmp_path: Path) -> None:
    first, same, other = (small("scene_classifier", f"train.seed={seed}").prepare(tmp_path) for seed in (0, 0, 1))
    batches = [prepared.source.batch(0, 8)["image"] for prepared in (first, same, other)]
    weights = [next(prepared.objective.parts["classifier"].parameters()) for prepared in (first, same, other)]
    for made in (batches, weights):
        assert torch.equal(made[0], made[1])
        assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_sees_what_is_held_out(name: str) -> None:
    scenes = getattr(RECIPES[name](), "scenes")  # noqa: B009 (which recipes there are is not known here)
    assert isinstance(scenes, SceneConfig)
    assert scenes.split == "train"


@pytest.mark.parametrize("name", RECIPES)
def test_what_cannot_be_run_is_refused_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sheet_every 0: expected 1 or more"):
        small(name, "sheet_every=0")
    for device, said in (("tpu", "expected cpu or cuda"), ("cuda:77", "no CUDA device here|this machine has [0-9]+,")):
        with pytest.raises(ValueError, match=rf"device '{device}': .*({said})"):
            run(small(name, f"train.device={device}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Beginning with a model


def test_a_run_begins_with_the_weights_and_the_latents_of_a_model(text2img: Path, tmp_path: Path) -> None:
    """Its first stage and latent space come along: what its U-Net knows would be worth nothing in others."""
    model = load(str(text2img / "model"), device="cpu")
    assert isinstance(model.denoiser.network, UNet)
    networks = {"unet": model.denoiser.network, "text": model.conditioner}
    expected = {f"{part}.{name}": value for part, one in networks.items() for name, value in one.state_dict().items()}

    recipe = small("default_text2img", f"start={text2img / 'model'}", "scenes.seed=9", "train.learning_rate=1e-9")
    begun = recipe.prepare(tmp_path).objective.parts["diffusion"].state_dict()
    assert begun.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in begun.items())
    run(recipe, tmp_path, progress=False)
    published = load(str(tmp_path / "model"), device="cpu")
    assert published.space == model.space
    for name, value in published.autoencoder.state_dict().items():
        assert torch.equal(value, model.autoencoder.state_dict()[name])


def test_the_embedded_model_is_a_beginning_for_the_recipe_as_it_is() -> None:
    recipe, default = override(RECIPES["default_tasks"](), ["start=default"]), load("default", device="cpu")
    assert isinstance(recipe, DefaultText2Img)
    text = default.config.conditioner
    assert isinstance(text, TextConfig)
    assert text.words == taught_words(recipe.scenes)
    assert text.clip == dataclasses.replace(recipe.text, vocabulary_size=len(word_ids(text.words)))
    assert recipe.begin(UNet(recipe.unet), TextConditioner(text), "default") == default.space


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("unet.width=32", "its U-Net is configured otherwise than this recipe's; see its model.json"),
        ("text.num_heads=4", "its text tower is configured otherwise"),
        ("prediction=eps", "its prediction is configured otherwise"),
        ("schedule.betas=linear", "its schedule is configured otherwise"),
        ("start=defualt", "no model 'defualt'; expected default"),
        ("autoencoder=some.safetensors", "brings its own first stage; leave out autoencoder"),
    ],
)
def test_a_model_that_is_another_is_no_beginning(text2img: Path, tmp_path: Path, change: str, said: str) -> None:
    recipe = small("default_text2img", f"start={text2img / 'model'}", change)
    with pytest.raises(ValueError, match=said):
        recipe.prepare(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("default_text2img", "unet.in_channels=8", "the first stage has 4 channels, unet.in_channels is 8"),
        ("default_text2img", "latents=0", "latents 0: expected 1 or more"),
        ("default_text2img", "steps=2000", "2000 steps: this schedule has"),
        ("scene_classifier", "scenes.vocabulary=984", "expected the same"),
        ("scene_classifier", "scenes.size=96", "expected the same"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_work(
    name: str, change: str, said: str, tmp_path: Path, more: dict[str, Sequence[str]]
) -> None:
    with pytest.raises(ValueError, match=said):
        small(name, *more[name], change).prepare(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_said_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a first stage is expected: --set autoencoder=FILE .*default_autoencoder"):
        run(small("default_text2img"), tmp_path)
    with pytest.raises(
        ValueError, match=r"needs a classifier: --set features=FILE .*scene_classifier.*loss\.features=0"
    ):
        run(small("default_autoencoder"), tmp_path)
    with pytest.raises(ValueError, match=r"nowhere\.safetensors"):
        run(small("default_text2img", "autoencoder=nowhere.safetensors"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_the_feature_loss_no_classifier_is_needed(tmp_path: Path) -> None:
    prepared = small("default_autoencoder", "loss.features=0").prepare(tmp_path)
    assert prepared.objective.parts.keys() == {"autoencoder"}


def test_a_first_stage_of_the_wrong_kind_is_named(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds a network of kind 'classifier'; expected 'autoencoder'"):
        run(small("default_text2img", f"autoencoder={classifier / 'classifier.safetensors'}"), tmp_path)


def test_without_the_font_the_run_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="apt-get install fonts-noto-color-emoji"):
        run(small("scene_classifier", f"font={tmp_path / 'no.ttf'}"), tmp_path)


@pytest.mark.parametrize("vocabulary", [256, 984])
def test_every_word_of_every_caption_is_taught(vocabulary: int) -> None:
    config = SceneConfig(vocabulary=vocabulary, objects=(0.4, 0.4, 0.1, 0.1), split="all")
    scenes = Scenes(config)
    captions = [scenes.plan(index).caption for index in range(1500)]
    assert not set(words_of(captions)) - set(taught_words(config))
