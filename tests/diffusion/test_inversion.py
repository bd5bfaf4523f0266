"""DDIM inversion against diffusers, and there and back."""

import dataclasses
from collections import deque

import diffusers
import pytest
import torch
from torch import Tensor

import tintype
from tintype.diffusion.denoiser import Denoiser
from tintype.diffusion.scaling import SCALINGS, Prediction
from tintype.diffusion.schedule import DDPM, DDPMConfig
from tintype.families.base import LatentDiffusion
from tintype.generation import latents

SD = DDPM(DDPMConfig())
MIX = torch.eye(16) * 0.7 + 0.15 * torch.randn(16, 16, generator=torch.Generator().manual_seed(2))
GIVEN = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(1))


def network(x: Tensor, t: Tensor) -> Tensor:
    mixed = torch.einsum("oc,bchw->bohw", MIX, x)
    return torch.tanh(mixed + 0.3 * torch.cos(t.float() / 150).reshape(-1, 1, 1, 1))


def gaussian(x: Tensor, t: Tensor) -> Tensor:
    """The exact eps of latents drawn from N(0, 0.25)."""
    sigma = SD.sigma(t.double())[:, None, None, None].float()
    return x * (1 + sigma**2) ** 0.5 * sigma / (0.25 + sigma**2)


@pytest.fixture(scope="module")
def default() -> LatentDiffusion:
    return tintype.load("default")


def stable(default: LatentDiffusion, prediction: Prediction, network: object = network) -> LatentDiffusion:
    unet = dataclasses.replace(default.config.unet, in_channels=16)  # no mask beside the noise
    config = dataclasses.replace(
        default.config, unet=unet, further=(), conventions="diffusers", scheduler="leading", schedule=DDPMConfig()
    )
    denoiser = Denoiser(lambda x, t, context, vector: network(x, t), SD, SCALINGS[prediction])
    return dataclasses.replace(default, config=config, denoiser=denoiser)


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize(("spacing", "steps"), [("leading", 10), ("leading", 30), ("trailing", 20)])
def test_inversion_equals_diffusers(default: LatentDiffusion, prediction: Prediction, spacing: str, steps: int) -> None:
    theirs = diffusers.DDIMInverseScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type={"eps": "epsilon", "v": "v_prediction"}[prediction],
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing=spacing,
    )
    theirs.set_timesteps(steps)
    x = GIVEN
    for t in theirs.timesteps:
        x = theirs.step(network(x, t), int(t), x).prev_sample
    found = tintype.invert(stable(default, prediction), GIVEN, tintype.Request(seed=1, steps=steps, scheduler=spacing))
    sigma = float(SD.sigma(theirs.timesteps[-1]))
    assert float((found / (1 + sigma**2) ** 0.5 - x).abs().max() / x.abs().max()) < 1e-5


def there_and_back(default: LatentDiffusion, steps: int) -> tuple[Tensor, Tensor]:
    model = stable(default, "eps", gaussian)
    request = tintype.Request(seed=1, steps=steps, sampler="ddim", cfg_scale=1.0, batch_size=2, width=32, height=32)
    start = tintype.invert(model, 0.5 * GIVEN, request)
    last = deque(tintype.steps(model, request, start=start), maxlen=1).pop()
    return start, latents(model, request, last)


def test_ddim_comes_back_the_nearer_the_more_steps(default: LatentDiffusion) -> None:
    errors = [float((there_and_back(default, steps)[1] - 0.5 * GIVEN).abs().max()) for steps in (50, 100, 200)]
    assert errors[2] < 0.06
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.4)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.4)


def test_what_is_found_is_noise_of_the_first_level(default: LatentDiffusion) -> None:
    start, _ = there_and_back(default, 100)
    sigma = float(SD.sigma(torch.tensor(991.0)))
    assert float(start.std()) == pytest.approx((0.25 + sigma**2) ** 0.5, rel=0.15)
    assert torch.corrcoef(torch.stack((start.flatten(), GIVEN.flatten())))[0, 1] > 0.99  # a Gaussian's map is linear


def test_a_start_of_another_size_is_refused(default: LatentDiffusion) -> None:
    with pytest.raises(ValueError, match="start: got 2 x 16 x 4 x 4; expected 1 x 16 x 8 x 8"):
        tintype.steps(default, tintype.Request(seed=1), start=GIVEN)


def test_exact_walks_begin_at_their_own_row(default: LatentDiffusion) -> None:
    request = tintype.Request(seed=1, steps=2, batch_size=2, width=32, height=32)
    together, alone = (
        deque(tintype.steps(default, dataclasses.replace(request, exact=exact), start=GIVEN), maxlen=1).pop().x
        for exact in (False, True)
    )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
