"""The recipe `autoencoder`: every kind in miniature, what it publishes, resuming, two processes."""

import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import small
from PIL import Image
from torch import Tensor

from tintype.checkpoints.native import load_network, read_space
from tintype.common.files import load_tensors
from tintype.common.rng import generator
from tintype.data.augment import center_crop
from tintype.data.preparation.run import PrepareOptions, prepare
from tintype.data.samples import images
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.objectives.autoencoding import AutoencodingObjective
from tintype.objectives.perceptual import FeatureDistance
from tintype.recipes import run
from tintype.recipes.autoencoder import AutoencoderTraining
from tintype.recipes.latent_diffusion import LatentDiffusionTraining
from tintype.recipes.sheets import side_by_side

SPAWN = multiprocessing.get_context("spawn")
MEANS = ("model.codebook_size=16", "loss.codebook.learning=average", "loss.codebook.revive_below=0.3")
MEANS = (*MEANS, "loss.codebook.decay=0.6", "loss.adversarial.start=1", "train.accumulate=2", "train.batch_size=2")


def made(*settings: str, name: str = "autoencoder") -> AutoencoderTraining:
    recipe = small(name, *settings)
    assert isinstance(recipe, AutoencoderTraining)
    return recipe


def weights(out: Path) -> dict[str, Tensor]:
    """Everything that is learned, but for optimizer state."""
    parts = ("autoencoder", "autoencoder.ema", "critic", "critic.ema")
    files = {part: load_tensors(out / "step-00000004" / f"{part}.safetensors") for part in parts}
    return {f"{part} {name}": value for part, tensors in files.items() for name, value in tensors.items()}


def test_what_is_published_opens_with_its_latent_space(finished: Callable[[str], Path]) -> None:
    """The scale is measured on latents of the averaged weights, posterior noise included."""
    out, recipe = finished("autoencoder"), made()
    network = load_network(out / "autoencoder.safetensors", "autoencoder", AutoencoderConfig, Autoencoder)
    assert network.config == recipe.model
    average = load_tensors(out / "step-00000004" / "autoencoder.ema.safetensors")
    assert all(torch.equal(value, average[f"autoencoder.{name}"]) for name, value in network.state_dict().items())
    space = read_space(out / "autoencoder.safetensors")
    assert space is not None
    training, unseen = recipe._data()
    image = torch.cat([*recipe._pictures(training, 10)])
    with torch.inference_mode():
        encoded = network.encode(image)
        mean, std = encoded.mean.double(), encoded.std.double()
        variance = (mean - mean.mean()).square().mean() + std.square().mean()
        assert space.shift == (0.0,)
        assert space.scale == pytest.approx((float(variance) ** -0.5,), rel=1e-5)
        [shown] = recipe._pictures(unseen, 3)
        error = (shown - network.decode(network.encode(shown).mean).clamp(-1, 1)).square().mean(dim=(1, 2, 3))
    lines = [json.loads(line) for line in (out / "validation.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4]
    assert lines[-1]["psnr"] == pytest.approx(float((10 * torch.log10(4 / error)).mean()), rel=1e-4)
    assert Image.open(out / "sheet-00000004.png").size == (3 * 130, 2 * 130)
    told = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    assert {"autoencoder adversarial", "autoencoder adaptive weight", "critic real", "critic fake"} <= told.keys()


def test_a_latent_model_is_assembled_with_the_space_of_its_first_stage(finished: Callable[[str], Path]) -> None:
    file = finished("autoencoder") / "autoencoder.safetensors"
    recipe = small("latent_diffusion", f"autoencoder={file}")
    assert isinstance(recipe, LatentDiffusionTraining)
    space = recipe._taken().space
    assert space is not None
    assert space == read_space(file)
    assert read_space(finished("default_autoencoder") / "autoencoder.safetensors") is None  # it measured none


def test_a_codebook_of_means_goes_on_where_it_was_and_tells_of_its_use(tmp_path: Path) -> None:
    """Resumed with a critic that plays and codes that are revived: all that is learned is the same, bit for bit."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    run(made(*MEANS), whole, progress=False)
    run(made(*MEANS, "train.steps=3", "train.save_every=1"), parted, progress=False)
    run(made(*MEANS), parted, progress=False)
    one, other = weights(whole), weights(parted)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    told = json.loads((whole / "log.jsonl").read_text().splitlines()[-1])
    assert 0 < told["autoencoder usage"] <= 1
    assert 1 <= told["autoencoder perplexity"] <= 16
    assert told["autoencoder revived"] > 0
    assert (whole / "autoencoder.safetensors").read_bytes() == (parted / "autoencoder.safetensors").read_bytes()


def child(rank: int, ports: tuple[int, int], out: str) -> None:
    """What torchrun starts, with the variables it sets."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    for port, way in zip(ports, ("ddp", "fsdp"), strict=True):
        os.environ["MASTER_PORT"] = str(port)
        run(made(*MEANS, f"train.parallel={way}"), Path(out) / way, progress=False)


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Also codes that are moved and revived without gradients, by what both saw, and the weight of the critic's term;
    whether each has all of the networks, or shares of them."""
    run(made(*MEANS), tmp_path / "one", progress=False)
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        ports = (one.getsockname()[1], other.getsockname()[1])
    children = [SPAWN.Process(target=child, args=(rank, ports, str(tmp_path))) for rank in range(2)]
    for process in children:
        process.start()
    for process in children:
        process.join(300)
        assert process.exitcode == 0
    alone, shared = weights(tmp_path / "one"), weights(tmp_path / "ddp")
    assert alone.keys() == shared.keys()
    for name, value in alone.items():
        assert torch.allclose(shared[name], value, rtol=1e-4, atol=1e-6), name
    published = load_tensors(tmp_path / "one" / "autoencoder.safetensors")
    sharded = load_tensors(tmp_path / "fsdp" / "autoencoder.safetensors")
    for name, value in published.items():
        assert torch.allclose(sharded[name], value, rtol=1e-4, atol=5e-5), name


def test_a_prepared_folder_is_cut_and_mirrored(tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    source.mkdir()
    for number in range(5):
        noise = torch.randint(0, 256, (40, 48 + number, 3), generator=generator(number)).numpy().astype(np.uint8)
        Image.fromarray(noise).save(source / f"{number}.png")
    prepare(source, tmp_path / "data", PrepareOptions())
    recipe = made(f"data={tmp_path / 'data'}", "mirrored=true", "held_out=2", name="autoencoder_vq_f4")
    prepared = recipe.prepare(tmp_path / "run")
    batch = prepared.source.batch(0, 6)["image"]
    assert batch.shape == (6, 3, 32, 32)
    training, unseen = recipe._data()
    assert (len(training), len(unseen)) == (3, 2)
    whole = [images([training[index]], generator(0))["image"][0] for index in range(3)]
    for one in batch:
        assert any(_within(one, picture) or _within(one.flip(2), picture) for picture in whole)
    middle = images([center_crop(32)(unseen[0], generator(0))], generator(0))["image"]
    assert torch.equal(next(recipe._pictures(unseen, 2))[:1], middle)
    assert list(recipe.inputs()) == ["data"]


def _within(small_one: Tensor, large: Tensor) -> bool:
    windows = large.unfold(1, 32, 1).unfold(2, 32, 1)  # 3 rows columns 32 32
    return bool((windows == small_one[:, None, None]).all(dim=-1).all(dim=-1).all(dim=0).any())


def test_features_of_a_network_that_was_trained_here(finished: Callable[[str], Path], tmp_path: Path) -> None:
    file = finished("scene_classifier") / "classifier.safetensors"
    recipe = made("loss.features=0.1", f"features={file}")
    assert list(recipe.inputs()) == ["features 0", "scenes"]
    objective = recipe.prepare(tmp_path).objective
    assert isinstance(objective, AutoencodingObjective)
    assert isinstance(objective.features, FeatureDistance)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("loss.features=0.1",), r"loss\.features 0\.1 with 0 of features and lpips set; expected one of them"),
        (("features=some.safetensors",), r"loss\.features 0\.0 with 1 of features and lpips set"),
        (("size=63",), "size 63: expected a multiple of 2, the factor of the model"),
        (("size=128",), r"size 128, but scenes are of 64 pixels: --set data=FOLDER"),
        (("measured=0",), "measured 0: expected 1 or more"),
        (("data=nowhere",), "nowhere holds no samples"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        run(made(*settings), tmp_path, progress=False)


def test_a_sheet_has_pictures_above_their_reconstructions() -> None:
    image = torch.linspace(-1, 1, 11)[:, None, None, None].expand(11, 3, 4, 4)
    drawn = np.asarray(side_by_side(image, -image))[1::6, 1::6, 0].astype(int)
    levels = (image[:, 0, 0, 0] * 127.5 + 127.5).round().int().tolist()
    negative = (-image[:, 0, 0, 0] * 127.5 + 127.5).round().int().tolist()
    white = [255] * 5
    assert drawn.tolist() == [levels[:8], negative[:8], [*levels[8:], *white], [*negative[8:], *white]]


def test_act_norms_are_fitted_to_the_first_pictures(tmp_path: Path) -> None:
    first, second = (made("critic.norm=act").prepare(tmp_path).objective.parts["critic"] for _ in range(2))
    scale = first.state_dict()["norms.0.scale"]
    assert not torch.equal(scale, torch.ones_like(scale))
    assert torch.equal(scale, second.state_dict()["norms.0.scale"])
