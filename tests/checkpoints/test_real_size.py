"""Stable Diffusion 1.5 at its real size, with random weights; each measurement in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from network_oracles import difference

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
STEPS = 10


def child(*arguments: object) -> dict[str, float]:
    places = (TESTS.parent, TESTS / "models", TESTS / "conditioning", TESTS / "checkpoints")
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("real_size.py")), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(run.stdout.splitlines()[-1]) if run.stdout else {}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("real") / "sd15.safetensors"
    child("write", path)
    assert path.stat().st_size > 4e9
    yield path
    path.unlink()


def test_a_file_is_opened_in_three_seconds_and_little_more_memory_than_its_size(file: Path) -> None:
    """The best of three, its pages being cached by the first."""
    found = [child("load", file) for _ in range(3)]
    assert max(one["peak"] for one in found) <= 1.15 * file.stat().st_size
    assert min(one["seconds"] for one in found) <= 3


def test_latents_and_picture_are_diffusers(file: Path, tmp_path: Path) -> None:
    """512 x 512, guided, ten steps; ours within 8 GiB."""
    ours = child("ours", file, tmp_path / "ours.pt", STEPS)
    child("theirs", file, tmp_path / "theirs.pt", STEPS)
    got, expected = (torch.load(tmp_path / f"{one}.pt") for one in ("ours", "theirs"))
    assert difference(got["latents"], expected["latents"]) <= 1e-4
    assert (got["picture"].int() - expected["picture"].int()).abs().max() <= 1
    assert ours["peak"] <= 8 * 2**30
