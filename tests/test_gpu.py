"""What must also hold on a GPU. Run by hand where there is one: pytest -m gpu."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

import tintype
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.objectives.autoencoding import AutoencodingConfig, AutoencodingObjective
from tintype.training.loop import TrainConfig, train

pytestmark = pytest.mark.gpu


def test_a_picture_is_the_cpus_picture() -> None:
    request = tintype.Request(prompt="a red apple on a blue background", seed=7, steps=10)
    pictures = [tintype.generate(tintype.load("default", device=device), request)[0] for device in ("cpu", "cuda")]
    first, second = (np.asarray(picture).astype(int) for picture in pictures)
    assert np.abs(first - second).max() <= 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_runs_and_resumes(tmp_path: Path, precision: Literal["fp32", "bf16"]) -> None:
    class Source:
        def batch(self, first: int, count: int) -> dict[str, torch.Tensor]:
            return {"image": torch.full((count, 3, 16, 16), 0.5)}

    for steps in (3, 6):
        autoencoder = Autoencoder(AutoencoderConfig(width=32, mult=(1, 2), num_blocks=1))
        objective = AutoencodingObjective(autoencoder, AutoencodingConfig())
        config = TrainConfig(steps=steps, batch_size=2, device="cuda", precision=precision, save_every=3)
        assert train(objective, Source(), config, tmp_path).step == steps
