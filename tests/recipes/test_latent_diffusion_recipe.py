"""One run for each way of steering: from samples to a whole model that opens and draws."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import small
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tintype.apps.cli import main
from tintype.checkpoints import load
from tintype.checkpoints.native import load_network
from tintype.common.files import load_tensors
from tintype.common.rng import generator
from tintype.conditioning.text import TextConfig
from tintype.data.encoding import make_latents
from tintype.data.preparation.origins import SourceOptions
from tintype.data.preparation.run import PrepareOptions, prepare
from tintype.data.prepared import Prepared
from tintype.diffusion.denoiser import Conditioning
from tintype.diffusion.scaling import SCALINGS
from tintype.diffusion.schedule import DDPM
from tintype.families.latent_diffusion import IMAGENET
from tintype.families.stable_diffusion import SD1
from tintype.generation import generate
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.unet import UNet, UNetConfig
from tintype.objectives.conditions import ClassCondition
from tintype.objectives.denoising import DenoisingObjective
from tintype.recipes import RECIPES, run
from tintype.recipes.latent_diffusion import LatentDiffusionTraining
from tintype.recipes.steering import Steering, conditions_of, nothing, steered_unet, steering_config
from tintype.tasks.request import Request
from tintype.training.hooks import Measured
from tintype.training.state import TrainingState


def settings(autoencoder: Path, condition: str) -> tuple[str, ...]:
    classes = 5 if condition == "semantic" else 256
    return (
        f"autoencoder={autoencoder / 'autoencoder.safetensors'}",
        f"condition={condition}",
        f"steering.classes={classes}",
        "train.steps=1",
    )


STEERED = {
    "class": {"label": torch.tensor([3])},
    "layout": {"layout": torch.full((1, 14), 8191)},
    "semantic": {"mask": torch.ones(1, 64, 64, dtype=torch.int64)},
}


@pytest.mark.parametrize("condition", ["none", "class", "text", "layout", "semantic"])
def test_a_run_publishes_a_model_that_opens_and_draws(condition: str, tmp_path: Path, autoencoder: Path) -> None:
    run(small("latent_diffusion", *settings(autoencoder, condition)), tmp_path, progress=False)
    model = load(str(tmp_path / "model"), device="cpu")
    assert (tmp_path / "sheet-00000001.png").is_file()
    request = Request(prompt="a red apple" if condition == "text" else "", seed=5)
    if condition == "text":
        pictures = generate(model, request)
    else:
        steering = model.conditioner
        assert steering is None or isinstance(steering, Steering)
        (one,) = conditions_of(steering, dropout=0.0) or [lambda *_: Conditioning()]
        with torch.inference_mode():
            cond = one(STEERED.get(condition, {}), None)
            pictures = generate(model, request, cond=cond, uncond=nothing(steering, cond))
    assert pictures[0].size == (64, 64)
    assert np.ptp(np.asarray(pictures[0])) > 0


def test_validation_is_the_same_whatever_the_batch(tmp_path: Path, autoencoder: Path) -> None:
    """A run that learns nothing, in batches of another size: the same numbers to the last digit, at each level."""
    told = []
    for size in (2, 3):
        out = tmp_path / str(size)
        changes = (f"train.batch_size={size}", "train.learning_rate=1e-30", "train.weight_decay=0")
        run(small("latent_diffusion", *settings(autoencoder, "class"), *changes), out, progress=False)
        told.append([json.loads(line) for line in (out / "validation.jsonl").read_text().splitlines()])
    assert told[0] == told[1]
    (line,) = told[0]
    levels = {name: loss for name, loss in line.items() if name.startswith("loss at sigma")}
    assert len(levels) == 2
    assert line["loss"] == pytest.approx(sum(levels.values()) / 2)
    assert line["step"] == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_validation_computes_as_training_does_and_in_one_network(
    precision: str, tmp_path: Path, autoencoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, low = list[UNet](), list[bool]()
    begin, forward = UNet.__init__, UNet.forward

    def counted(self: UNet, config: UNetConfig) -> None:
        made.append(self)
        begin(self, config)

    def watched(self: UNet, *inputs: torch.Tensor) -> torch.Tensor:
        low.append(torch.is_autocast_enabled("cpu"))
        assert self is made[1]
        return forward(self, *inputs)

    monkeypatch.setattr(UNet, "__init__", counted)
    monkeypatch.setattr(UNet, "forward", watched)
    recipe = small("latent_diffusion", *settings(autoencoder, "class"), f"train.precision={precision}")
    prepared = recipe.prepare(tmp_path)
    (hook,) = prepared.hooks
    assert isinstance(hook, Measured)
    state = TrainingState(prepared.objective.parts, {}, 0.9)
    first = hook.measure(state)
    state.emas["diffusion"].average["unet.conv_out.bias"] += 1
    assert hook.measure(state)["loss"] > first["loss"] + 0.5
    assert len(made) == 2
    assert set(low) == {precision == "bf16"}


def test_what_is_trained_is_what_the_recipe_says(tmp_path: Path, autoencoder: Path) -> None:
    loss = 'loss={"distance":"huber","weighting":{"law":"min_snr"},"offset_noise":0.1}'
    changes = (loss, "dropout=0.3", "prediction=x0", 'schedule={"zero_terminal_snr":true}')
    recipe = small("latent_diffusion", *settings(autoencoder, "class"), *changes)
    assert isinstance(recipe, LatentDiffusionTraining)
    objective = recipe.prepare(tmp_path).objective
    assert isinstance(objective, DenoisingObjective)
    assert objective.config == recipe.loss
    assert isinstance(objective.denoiser.schedule, DDPM)
    assert objective.denoiser.schedule.config == recipe.schedule
    assert objective.denoiser.scaling is SCALINGS["x0"]
    (condition,) = objective.conditions
    assert isinstance(condition, ClassCondition)
    assert condition.dropout == 0.3


def drawings(folder: Path) -> Path:
    """Nine pictures of 16 pixels in three folders of classes."""
    for number in range(9):
        path = folder / "pictures" / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (28 * number, 255 - 28 * number, 90)).save(path)
    return folder / "pictures"


def test_prepared_pictures_are_encoded_on_the_way_and_stored_latents_are_not(tmp_path: Path, autoencoder: Path) -> None:
    prepare(drawings(tmp_path), tmp_path / "prepared", PrepareOptions())
    file = autoencoder / "autoencoder.safetensors"
    stage = load_network(file, "autoencoder", AutoencoderConfig, Autoencoder)
    samples = Prepared(tmp_path / "prepared")
    make_latents(tmp_path / "latents", samples, stage, source="these", progress=False)
    found = []
    for name, seen, unseen in (("prepared", "image", False), ("latents", "mean", True)):
        recipe = small("latent_diffusion", *settings(autoencoder, "class"), f"data={tmp_path / name}")
        assert recipe.inputs().keys() == {"data", "autoencoder"}
        made = recipe.prepare(tmp_path)
        assert isinstance(made.objective, DenoisingObjective)
        batch = made.source.batch(0, 7)  # all but the two held out
        assert (seen in batch, "mean" in batch) == (True, unseen)
        assert batch["label"].tolist().count(2) == 3 - sum(samples[at].label == 2 for at in (7, 8))
        mean, std = made.objective.posterior(batch)
        variance = mean.var(dim=(0, 2, 3), correction=0) + std.square().mean(dim=(0, 2, 3))
        torch.testing.assert_close(variance, torch.ones(4), rtol=0.6, atol=0)
        assert made.objective.loss("diffusion", batch, generator("noise"), step=0)[0].isfinite()
        found.append(batch)
    with torch.inference_mode():
        expected = stage.encode(found[0]["image"]).mean
    torch.testing.assert_close(found[1]["mean"], expected, rtol=2e-3, atol=2e-3)


def test_prepared_pictures_of_several_sizes_are_measured_and_batched_by_size(tmp_path: Path, autoencoder: Path) -> None:
    for number in range(9):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16 * (1 + number % 2), 3), np.uint8)
        path = tmp_path / "pictures" / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    prepare(tmp_path / "pictures", tmp_path / "prepared", PrepareOptions())
    changes = (f"data={tmp_path / 'prepared'}", "held_out=1")
    made = small("latent_diffusion", *settings(autoencoder, "class"), *changes).prepare(tmp_path)
    assert isinstance(made.objective, DenoisingObjective)
    batches = [made.source.batch(4 * number, 4) for number in range(2)]  # one round
    assert {tuple(batch["image"].shape) for batch in batches} == {(4, 3, 16, 16), (4, 3, 16, 32)}
    posteriors = [made.objective.posterior(batch) for batch in batches]
    mean, second = (
        torch.cat([value.transpose(0, 1).flatten(1) for value in every], dim=1).mean(dim=1)
        for every in (
            [mean for mean, _ in posteriors],
            [mean.square() + std.square() for mean, std in posteriors],
        )
    )
    torch.testing.assert_close(mean, torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(second, torch.ones(4), rtol=1e-4, atol=0)


def test_pictures_are_mirrored_when_asked_and_every_caption_is_read(tmp_path: Path, autoencoder: Path) -> None:
    said = ("a red thing", "something red", "one that is red")
    (tmp_path / "pictures").mkdir()
    for number in range(9):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    rows = [json.dumps({"file_name": f"{number}.png", "text": text}) for number in range(9) for text in said]
    (tmp_path / "pictures" / "captions.jsonl").write_text("\n".join(rows))
    prepare(tmp_path / "pictures", tmp_path / "prepared", PrepareOptions())

    def batch(*more: str) -> dict[str, torch.Tensor]:
        recipe = small("latent_diffusion", *settings(autoencoder, "text"), f"data={tmp_path / 'prepared'}", *more)
        return dict(recipe.prepare(tmp_path).source.batch(0, 7))

    plain, turned = batch(), batch("mirrored=true")
    assert len({tuple(row) for row in plain["ids"].tolist()}) == 3
    same = (plain["image"] == turned["image"]).flatten(1).all(dim=1)
    mirrored = (plain["image"].flip(3) == turned["image"]).flatten(1).all(dim=1)
    assert (same | mirrored).all()
    assert mirrored.any()
    assert same.any()


def test_a_sample_that_nothing_is_said_of_is_trained_on_as_one_that_nothing_steers(
    tmp_path: Path, autoencoder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a/a", "b", "c"):
        (tmp_path / "pictures" / "a").mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (16, 16), "red").save(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "pictures" / "a" / "a.txt").write_text("a red thing")
    options = PrepareOptions(source=SourceOptions(kind="classes", captions="given"))
    prepare(tmp_path / "pictures", tmp_path / "prepared", options)
    data = (f"data={tmp_path / 'prepared'}", "held_out=1")

    def batch(condition: str) -> dict[str, torch.Tensor]:
        recipe = small("latent_diffusion", *settings(autoencoder, condition), *data)
        return dict(recipe.prepare(tmp_path).source.batch(0, 2))

    assert sorted(batch("class")["label"].tolist()) == [0, 256]  # the null class
    assert sorted(batch("text")["end"].tolist()) == [1, 4]  # start and end, and those with three words between
    assert [record.getMessage() for record in caplog.records] == [
        f"2 of 3 samples of {tmp_path / 'prepared'} have no {what} (first: b.png); trained on as what nothing steers"
        for what in ("class", "caption")
    ]


def test_data_that_cannot_steer_is_refused_before_the_first_step(tmp_path: Path, autoencoder: Path) -> None:
    """More classes than there is room for, maps that are missing, and nothing at all that would steer."""
    prepare(drawings(tmp_path), tmp_path / "prepared", PrepareOptions())  # classes 0 to 2
    (tmp_path / "mapped" / "masks").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (16, 16), (50 * number, 90, 90)).save(tmp_path / "mapped" / f"{number}.png")
        Image.new("L", (16, 16), 4 + number).save(tmp_path / "mapped" / "masks" / f"{number}.png")
    prepare(tmp_path / "mapped", tmp_path / "maps", PrepareOptions())
    (tmp_path / "mapped" / "masks" / "2.png").unlink()
    prepare(tmp_path / "mapped", tmp_path / "fewer", PrepareOptions())

    def made(condition: str, name: str, *more: str) -> None:
        data = (f"data={tmp_path / name}", "held_out=1")
        small("latent_diffusion", *settings(autoencoder, condition), *data, *more).prepare(tmp_path)

    for classes in (1, 2):
        with pytest.raises(ValueError, match=rf"classes {classes} is for classes 0 to {classes - 1}, .* has class 2; "):
            made("class", "prepared", f"steering.classes={classes}")
    made("class", "prepared", "steering.classes=3")
    with pytest.raises(ValueError, match=r"steering\.classes 7 .* has class 7; .*--set steering\.classes=8"):
        made("semantic", "maps", "steering.classes=7")
    made("semantic", "maps", "steering.classes=8")
    with pytest.raises(ValueError, match=r"^1 of 4 samples of .*/fewer has no mask \(first: 2\.png\); expected a map"):
        made("semantic", "fewer", "steering.classes=8")
    for condition, name, what in (
        ("layout", "prepared", "box"),
        ("text", "maps", "caption"),
        ("class", "maps", "class"),
    ):
        with pytest.raises(
            ValueError, match=rf"^none of the \d samples of .*{name} has a {what}, so nothing would steer"
        ):
            made(condition, name)


def test_latents_of_many_sizes_train_in_batches_of_one(tmp_path: Path, autoencoder: Path) -> None:
    """From pictures of three shapes, filtered, over latents in buckets to a model."""
    for number in range(12):
        size = [(64, 64), (80, 48), (40, 90)][number % 3]
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        folder = tmp_path / "pictures" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    file = autoencoder / "autoencoder.safetensors"
    buckets = ["--buckets", "64", "--multiple", "16", "--mirrored"]
    for command in (
        ["prepare", str(tmp_path / "pictures"), str(tmp_path / "prepared")],
        ["filter", str(tmp_path / "prepared"), str(tmp_path / "kept"), "--min-size", "40"],
        [
            "latents",
            str(tmp_path / "kept"),
            str(tmp_path / "latents"),
            "--model",
            str(file),
            "--device",
            "cpu",
            *buckets,
        ],
    ):
        assert main([*command, "--json"]) == 0
    data = f"data={tmp_path / 'latents'}"
    recipe = small("latent_diffusion", *settings(autoencoder, "class"), data, "train.steps=3", "train.batch_size=3")
    source = recipe.prepare(tmp_path / "kept").source
    shapes = {tuple(source.batch(3 * number, 3)["mean"].shape[2:]) for number in range(8)}
    assert shapes == {(8, 8), (10, 6), (6, 10)}
    run(recipe, tmp_path / "run", progress=False)
    assert load(str(tmp_path / "run" / "model"), device="cpu").config.unet.in_channels == 4


def test_a_frozen_model_gives_first_stage_latent_space_and_text_tower(
    text2img: Path, tmp_path: Path, autoencoder: Path
) -> None:
    model = load(str(text2img / "model"), device="cpu")
    changes = (f"frozen={text2img / 'model'}", "autoencoder=null", "condition=text")
    run(small("stable_diffusion_1", *changes, "train.steps=1", "tensorboard=true"), tmp_path, progress=False)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for file, name in (("log.jsonl", "loss"), ("validation.jsonl", "validation/loss")):
        (line,) = (json.loads(text) for text in (tmp_path / file).read_text().splitlines())
        (shown,) = events.Scalars(name)
        assert (shown.step, shown.value) == (line["step"], pytest.approx(line["loss"]))
    assert "sheet" in events.Tags()["images"]
    published = load(str(tmp_path / "model"), device="cpu")
    assert published.space == model.space
    for part in ("autoencoder", "conditioner"):
        weights = published.networks[part].state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in model.networks[part].state_dict().items())
    kept = load_tensors(tmp_path / "step-00000001" / "diffusion.safetensors")
    assert all(name.startswith("unet.") for name in kept)


def test_words_that_a_frozen_tower_was_never_taught_are_told(
    text2img: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of every caption of the pictures that are trained on, not of those held out."""
    said = [("a red apple", "zeppelin over a quixotic apple"), ("a zeppelin",), ("an apple",), ("a dirigible",)]
    (tmp_path / "pictures").mkdir()
    for number in range(len(said)):
        Image.new("RGB", (64, 64), (60 * number, 90, 90)).save(tmp_path / "pictures" / f"{number}.png")
    rows = [{"file_name": f"{number}.png", "text": text} for number, every in enumerate(said) for text in every]
    (tmp_path / "pictures" / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prepare(tmp_path / "pictures", tmp_path / "prepared", PrepareOptions())
    changes = ("autoencoder=null", "condition=text", f"frozen={text2img / 'model'}")
    small("latent_diffusion", *changes).prepare(tmp_path / "scenes")
    assert not caplog.records
    small("latent_diffusion", *changes, f"data={tmp_path / 'prepared'}", "held_out=1").prepare(tmp_path)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("2 of 4 captions have words that the frozen text tower was never taught")
    assert "leaves out: zeppelin (2), quixotic (1) (2 words in all); expected a model" in record.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("held_out=0", "held_out 0: expected 1 or more"),
        (
            "autoencoder=null",
            "a first stage is expected: --set autoencoder=FILE .*`tintype train autoencoder`.* frozen=MODEL, not both",
        ),
        ("frozen=default", "or --set frozen=MODEL, not both"),
        ("scheduler=treling", "unknown scheduler 'treling'; expected trailing"),
    ],
)
def test_what_does_not_fit_is_refused(change: str, said: str, tmp_path: Path, autoencoder: Path) -> None:
    with pytest.raises(ValueError, match=said):
        small("latent_diffusion", *settings(autoencoder, "class"), change).prepare(tmp_path)
    with pytest.raises(ValueError, match="holds no samples; expected a finished folder of `tintype prepare`"):
        small("latent_diffusion", *settings(autoencoder, "class"), f"data={tmp_path}").inputs()


def test_the_recipes_in_earnest_train_the_published_networks() -> None:
    for name, family in (("stable_diffusion_1", SD1), ("class_to_image_imagenet", IMAGENET)):
        recipe = RECIPES[name]()
        assert isinstance(recipe, LatentDiffusionTraining)
        assert (recipe.schedule, recipe.prediction) == (family.schedule, family.prediction)
        text = family.conditioner if isinstance(family.conditioner, TextConfig) else TextConfig(clip=recipe.text)
        config = steering_config(recipe.condition, recipe.steering, text=text, factor=family.autoencoder.factor)
        assert config == family.conditioner
        channels = family.autoencoder.latent_channels
        assert steered_unet(recipe.unet, config, channels=channels) == family.unet
