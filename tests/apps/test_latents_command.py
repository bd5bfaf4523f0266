"""`tintype prepare`, then `tintype latents`, as a user calls them."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sources import encoded, picture, write

from tintype.apps.cli import DONE, FAILED, USAGE, main
from tintype.checkpoints import load, load_autoencoder
from tintype.checkpoints.native import save_network
from tintype.data.latents import StoredLatents, encoder_digest
from tintype.data.opening import open_samples
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig

SMALL = AutoencoderConfig(latent_channels=4, width=8, mult=(1, 2), num_blocks=1, patch_size=4, norm_groups=4)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures of three shapes, told in their file names."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "photos").mkdir()
    for number in range(9):
        width, height = [(80, 80), (120, 60), (64, 100)][number % 3]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"noise number {number}.png")
    assert main(["prepare", str(folder / "photos"), str(folder / "prepared"), "--json"]) == DONE
    return folder / "prepared"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "autoencoder.safetensors"
    save_network(path, "autoencoder", SMALL, Autoencoder(SMALL).state_dict(), dtype=torch.float32)
    return path


def flags(model: Path) -> list[str]:
    return ["--model", str(model), "--buckets", "64", "--multiple", "16", "--device", "cpu", "--batch-size", "2"]


def test_a_prepared_folder_becomes_latents_in_buckets(
    prepared: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "latents"
    assert main(["latents", str(prepared), str(out), *flags(model), "--mirrored", "--json"]) == DONE
    told = json.loads(capsys.readouterr().out)
    samples, digest = open_samples(out)
    assert isinstance(samples, StoredLatents)
    assert (told["samples"], told["shards"]) == (len(samples), len(samples.shards)) == (18, 3)
    assert told["space"]["scale"] == [1 / samples.statistics.overall_std]
    assert samples.contents.autoencoder == encoder_digest(load_autoencoder(model, device="cpu"))
    source = open_samples(prepared).samples
    for number in range(9):
        sample = samples[2 * number]
        assert sample.caption == source[number].caption == samples[2 * number + 1].caption
        assert sample.framing is not None
        assert sample.framing.original_size == tuple(source.sizes[number].tolist())
        assert tuple(8 * side for side in samples.sizes[2 * number].tolist()) == sample.framing.target_size
    assert {tuple(size) for size in samples.sizes.tolist()} == {(8, 8), (6, 10), (10, 6)}
    assert len(digest) == 64

    assert main(["latents", str(prepared), str(out), *flags(model), "--mirrored"]) == DONE
    assert "scale for unit variance" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--mirrored"], "they are without mirrored ones, asked for is with mirrored ones (--mirrored)"),
        (["--multiple", "32"], "in 3 buckets from 48x80 to 80x48, asked for is in 1 buckets from 64x64 to 64x64 (--b"),
        (["--model", "default"], "encoder {encoder} made them, this one is "),
        (["other"], "they are of another data set, or of another selection of it (SOURCE)"),
    ],
)
def test_a_folder_of_other_latents_says_in_words_what_differs(
    prepared: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: list[str], said: str
) -> None:
    out, other = tmp_path / "latents", tmp_path / "chosen"
    assert main(["latents", str(prepared), str(out), *flags(model)]) == DONE
    assert main(["filter", str(prepared), str(other), "--min-size", "61"]) == DONE
    source, more = (other, []) if changed == ["other"] else (prepared, changed)
    capsys.readouterr()
    assert main(["latents", str(source), str(out), *flags(model), *more]) == USAGE
    told = capsys.readouterr().err
    assert said.format(encoder=encoder_digest(load_autoencoder(model, device="cpu"))[:10]) in told, told
    assert "expected a folder of the same, or an empty one: name another" in told
    assert not re.search("[0-9a-f]{12}", told.replace(str(tmp_path), ""))  # no bare hashes


def test_damage_is_listed(prepared: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "latents"
    assert main(["latents", str(prepared), str(out), *flags(model)]) == DONE
    assert main(["latents", "--verify", str(out)]) == DONE
    assert "3 shards, 9 samples: all good" in capsys.readouterr().out
    shard = out / "latents-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    assert main(["latents", "--verify", str(out), "--json"]) == FAILED
    assert json.loads(capsys.readouterr().out)["damaged"] == [shard.name]


def test_two_processes_make_what_one_makes(prepared: Path, model: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["latents", str(prepared), str(one), *flags(model), "--json"]) == DONE
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tintype", "latents", str(prepared), str(two), *flags(model), "--json"]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            command, env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [DONE, DONE]
    assert json.loads(said[0])["samples"] == 9
    assert not said[1]
    files = {path.name: path.read_bytes() for path in one.iterdir()}
    assert files == {path.name: path.read_bytes() for path in two.iterdir()}


def test_bad_and_missing_masks_are_counted_and_may_be_left_out(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = encoded(Image.new("L", (64, 64), 7))
    files: dict[str, bytes | str] = {f"images/{name}.png": encoded(picture(width=64, height=64)) for name in "abcd"}
    write(tmp_path / "photos", files | {"masks/a.png": classes, "masks/b.png": classes[:50], "masks/d.png": classes})
    prepared, chosen = str(tmp_path / "prepared"), str(tmp_path / "chosen")
    assert main(["prepare", str(tmp_path / "photos"), prepared, "--json"]) == DONE
    flags = ["--model", str(model), "--device", "cpu"]
    capsys.readouterr()
    assert main(["latents", prepared, str(tmp_path / "latents"), *flags]) == DONE
    assert "without a mask: 2 of 4 samples, numbers 1, 2; " in capsys.readouterr().out
    assert main(["latents", prepared, str(tmp_path / "latents"), *flags, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["without_mask"] == [1, 2]
    assert main(["filter", prepared, chosen, "--with-mask", "--json"]) == DONE
    assert [one["number"] for one in json.loads(capsys.readouterr().out)["filters"][0]["examples"]] == [1, 2]
    assert main(["latents", chosen, str(tmp_path / "fewer"), *flags, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["without_mask"] == []
    assert int(open_samples(tmp_path / "fewer").samples[1].mask.min()) == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{prepared}"], "expected OUT and a --model"),
        (["{prepared}", "out", "--model", "{model}"], "sample 1 .*expected sides that are multiples of 8: .*--buckets"),
        (["{prepared}", "out", "--model", "{model}", "--buckets", "30"], "no multiples of 64 within 900 pixels"),
        (["{prepared}", "out", "--model", "{model}", "--batch-size", "0"], "--batch-size 0: expected 1 or more"),
        (["nowhere", "out", "--model", "{model}"], "nowhere holds no samples; expected a finished folder"),
        (["{prepared}", "out", "--model", "nothing"], "no model 'nothing'"),
    ],
)
def test_what_does_not_fit_is_said(
    prepared: Path,
    model: Path,
    tmp_path: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [one.format(prepared=prepared, model=model) for one in arguments]
    assert main(["latents", *filled]) == USAGE
    message = capsys.readouterr().err
    assert re.search(said, message)
    assert not list(tmp_path.glob("out/*.safetensors"))


def test_an_autoencoder_is_found_in_a_model_and_alone(model: Path) -> None:
    whole = load("default", device="cpu").autoencoder
    assert encoder_digest(load_autoencoder("default", device="cpu")) == encoder_digest(whole)
    assert load_autoencoder(model, device="cpu").config == SMALL
    with pytest.raises(ValueError, match="holds a network of kind"):
        load_autoencoder(Path("tintype/weights/judge.safetensors"), device="cpu")
