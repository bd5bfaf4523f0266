"""What must also hold on a GPU. Run by hand where there is one: pytest -m gpu."""

import json
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from recipes.miniature import small

import tintype
from tintype.common.rng import Noise
from tintype.diffusion.samplers import SAMPLERS
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.critic import Critic, CriticConfig
from tintype.objectives.adversarial import AdversarialConfig
from tintype.objectives.autoencoding import AutoencodingConfig, AutoencodingObjective
from tintype.objectives.codebook import CodebookConfig
from tintype.recipes import run
from tintype.training.loop import TrainConfig, train

DEVICE = "cuda"
PRECISIONS = pytest.mark.parametrize("precision", ["fp32", "bf16"])

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def picture(device: str, **changes: object) -> np.ndarray:
    request = tintype.Request(**({"prompt": "a red apple on a blue background", "seed": 7, "steps": 10} | changes))
    return np.asarray(tintype.generate(tintype.load("default", device=device), request)[0]).astype(int)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_is_the_cpus_picture_and_always_the_same(sampler: str) -> None:
    """Those that draw noise on the way as well. Kernels round differently, so it is the same picture, not its bytes."""
    there, again, here = (picture(device, sampler=sampler) for device in (DEVICE, DEVICE, "cpu"))
    assert np.array_equal(there, again)
    assert np.abs(there - here).mean() < 1
    assert np.abs(there - picture(DEVICE, sampler=sampler, seed=8)).mean() > 3


def test_noise_is_the_cpus_noise() -> None:
    here, there = Noise([7, 8]), Noise([7, 8], device=DEVICE)
    for _ in range(2):
        drawn = there.normal((16, 8, 8))
        assert drawn.device.type == DEVICE
        assert torch.equal(drawn.cpu(), here.normal((16, 8, 8)))


@PRECISIONS
@pytest.mark.parametrize("codes", [None, 16])
def test_the_first_stage_trains_and_resumes(
    tmp_path: Path, precision: Literal["fp32", "bf16"], codes: int | None
) -> None:
    """Against a critic; with codes that are moved and revived."""

    class Source:
        def batch(self, first: int, count: int) -> dict[str, torch.Tensor]:
            return {"image": torch.full((count, 3, 16, 16), 0.5)}

    for steps in (3, 6):
        autoencoder = Autoencoder(AutoencoderConfig(width=32, mult=(1, 2), num_blocks=1, codebook_size=codes))
        loss = AutoencodingConfig(
            codebook=CodebookConfig(learning="average", decay=0.5, revive_below=0.3),
            adversarial=AdversarialConfig(start=1),
        )
        objective = AutoencodingObjective(autoencoder, loss, critic=Critic(CriticConfig(num_layers=2)))
        config = TrainConfig(steps=steps, batch_size=2, device=DEVICE, precision=precision, save_every=3)
        assert train(objective, Source(), config, tmp_path).step == steps


@PRECISIONS
def test_text_to_image_learns_resumes_and_draws(tmp_path: Path, precision: str) -> None:
    """The recipe in miniature, in the embedded model's latents; what it published draws on either device."""
    settings = [
        f"autoencoder={resources.files('tintype.weights') / 'default' / 'autoencoder.safetensors'}",
        "unet.in_channels=16",
        "unet.out_channels=16",
        f"train.device={DEVICE}",
        f"train.precision={precision}",
        "train.save_every=60",
    ]
    for steps in (60, 120):
        run(small("default_text2img", *settings, f"train.steps={steps}"), tmp_path, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 60, 100, 120]  # from the start it would have logged 50 again
    assert np.isfinite([line["loss"] for line in lines]).all()
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]

    request = tintype.Request(prompt="a red apple on a blue background", seed=7)
    drawn = [tintype.generate(tintype.load(tmp_path / "model", device=one), request)[0] for one in (DEVICE, "cpu")]
    there, here = (np.asarray(one).astype(int) for one in drawn)
    assert np.ptp(there) > 0
    assert np.abs(there - here).mean() < 1
