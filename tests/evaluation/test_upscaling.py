"""How near enlarged scenes are: the embedded upscaler against bicubic weights, whose figures are worked out again."""

import numpy as np
import pytest
from PIL import Image

import tintype
from tintype.apps.cli import DONE, main
from tintype.data.scenes import SceneConfig, Scenes
from tintype.evaluation.scenes import SEED
from tintype.evaluation.upscaling import evaluate_upscaling


def test_the_embedded_upscaler_is_nearer_than_bicubic() -> None:
    found = evaluate_upscaling(tintype.load("upscaler"), count=4, sizes=(64, 128), quiet=True)
    for size in ("64", "128"):
        figures = found[size]
        assert isinstance(figures, dict)
        assert (
            figures["first_stage"]["distance"] < figures["model"]["distance"] < figures["bicubic"]["distance"] * 2 / 3
        )
        assert figures["first_stage"]["psnr"] > figures["model"]["psnr"]


def test_bicubic_is_measured_as_anyone_would() -> None:
    found = evaluate_upscaling(tintype.load("upscaler"), count=2, sizes=(64,), steps=1, quiet=True)["64"]
    scenes = Scenes(SceneConfig(size=64, split="all", objects=(0.25,) * 4, seed=SEED))
    ratios: list[float] = []
    for index in range(2):
        whole = scenes[index].picture
        small = Image.fromarray(whole).resize((16, 16), Image.Resampling.BICUBIC)
        again = np.asarray(small.resize((64, 64), Image.Resampling.BICUBIC)).astype(float)
        ratios.append(10 * np.log10(255**2 / np.mean((again - whole) ** 2)))
    assert isinstance(found, dict)
    assert found["bicubic"]["psnr"] == pytest.approx(np.mean(ratios), abs=1e-3)


def test_other_models_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="does not draw pictures 4 times larger; expected an upscaler that does"):
        evaluate_upscaling(tintype.load("default"))
    with pytest.raises(ValueError, match="count 0: expected 1 or more"):
        evaluate_upscaling(tintype.load("upscaler"), count=0)
    assert main(["eval", "upscaling", "--count", "1", "--steps", "1", "--tile", "16", "--json"]) == DONE
    assert '"128": {"model": {"psnr": ' in capsys.readouterr().out
