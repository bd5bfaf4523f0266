"""The embedded upscaler against bicubic weights."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tintype
from tintype.apps.cli import DONE, main
from tintype.data.scenes import SceneConfig, Scenes
from tintype.evaluation.scenes import SEED
from tintype.evaluation.upscaling import evaluate_upscaling
from tintype.tasks.pictures import data_url
from tintype.tasks.request import Request


def test_the_embedded_upscaler_is_a_third_nearer_than_bicubic() -> None:
    found = evaluate_upscaling(tintype.load("upscaler"), count=4, sizes=(64, 128), quiet=True)
    for size in ("64", "128"):
        figures = found[size]
        assert isinstance(figures, dict)
        assert figures["first_stage"]["distance"] < figures["model"]["distance"]
        assert figures["model"]["distance"] < figures["bicubic"]["distance"] * 2 / 3
        assert figures["first_stage"]["psnr"] > figures["model"]["psnr"]


def test_plain_ground_stays_plain() -> None:
    """What the first upscaler failed at: levels beside each other where nothing is."""
    model = tintype.load("upscaler")
    scenes = Scenes(SceneConfig(size=128, split="all", objects=(1.0,), seed=SEED))
    whole = scenes[0].picture
    small = Image.fromarray(whole).resize((32, 32), Image.Resampling.BICUBIC)
    [made] = tintype.generate(model, Request(task="upscale", image=data_url(small), seed=1))
    ground = ~scenes[0].masks.any(axis=0)
    ground[:, :] &= np.abs(whole.astype(int) - whole[ground][0]).max(axis=2) == 0
    assert ground.mean() > 0.2
    assert np.asarray(made)[ground].astype(float).std(axis=0).max() < 6


def test_upscale_draws_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (16, 16), (200, 30, 30)).save(tmp_path / "in.png")
    out = tmp_path / "out.png"
    assert main(["upscale", "-i", str(tmp_path / "in.png"), "--seed", "1", "-o", str(out)]) == DONE
    with Image.open(out) as picture:
        assert picture.size == (64, 64)
        assert "Model: upscaler" in picture.info["parameters"]
    assert main(["eval", "upscaling", "--count", "1", "--steps", "1", "--tile", "16", "--json"]) == DONE
    assert '"128": {"model": {"psnr": ' in capsys.readouterr().out


def test_counts_are_checked() -> None:
    with pytest.raises(ValueError, match="count 0: expected 1 or more"):
        evaluate_upscaling(tintype.load("upscaler"), count=0)
