"""One run for each way of steering: from samples to a whole model that opens and draws."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import small

from tintype.checkpoints import load
from tintype.diffusion.denoiser import Conditioning
from tintype.generation import generate
from tintype.recipes import run
from tintype.recipes.steering import Steering, conditions_of, nothing
from tintype.tasks.request import Request


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
