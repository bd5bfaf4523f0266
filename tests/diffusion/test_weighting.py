"""Weights of noise levels against the training scripts and papers they come from."""

from typing import get_args

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from karras_oracle import k_diffusion_layers

from tintype.diffusion.scaling import SCALINGS, Prediction
from tintype.diffusion.schedule import DDPM, DDPMConfig
from tintype.diffusion.weighting import WEIGHTINGS, Law, WeightingConfig, answer_weights

STEPS = torch.arange(0, 1000, 7)
SIGMA = DDPM(DDPMConfig()).sigmas[STEPS]


def their_snr() -> torch.Tensor:
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    return compute_snr(scheduler, STEPS)


def ours(law: Law, prediction: Prediction, **changes: float) -> torch.Tensor:
    weights = answer_weights(SIGMA, SCALINGS[prediction], WeightingConfig(law=law, **changes))
    assert weights is not None
    return weights.float()


def test_every_law_has_its_function() -> None:
    assert {*WEIGHTINGS, "uniform"} == set(get_args(Law))


@pytest.mark.parametrize("prediction", SCALINGS)
def test_uniform_leaves_the_loss_as_it_is(prediction: Prediction) -> None:
    assert answer_weights(SIGMA, SCALINGS[prediction], WeightingConfig()) is None


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_min_snr_is_that_of_diffusers_training_scripts(gamma: float) -> None:
    """`train_text_to_image_sdxl.py`: the paper's min(SNR, gamma), over SNR for eps and over SNR + 1 for v; of x0 it is
    the bare minimum (Hang et al. 2023, section 3.4)."""
    snr = their_snr()
    least = torch.stack([snr, gamma * torch.ones_like(snr)], dim=1).min(dim=1)[0]
    torch.testing.assert_close(ours("min_snr", "eps", gamma=gamma), least / snr, rtol=1e-4, atol=0)
    torch.testing.assert_close(ours("min_snr", "v", gamma=gamma), least / (snr + 1), rtol=1e-4, atol=0)
    torch.testing.assert_close(ours("min_snr", "x0", gamma=gamma), least, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("law", "theirs"), [("snr", "snr"), ("soft_min_snr", "soft-min-snr"), ("edm", "karras")])
def test_the_loss_is_k_diffusions(law: Law, theirs: str) -> None:
    """Theirs is of EDM's answer, for data of std 1/2; so is our scaling `edm`. The whole loss, from the same answer."""
    x0, noise, answer = torch.randn(3, len(SIGMA), 2, 4, 4, generator=torch.Generator().manual_seed(0))
    denoiser = k_diffusion_layers().Denoiser(lambda x, sigma: answer, sigma_data=0.5, weighting=theirs)
    expected = denoiser.loss(x0, noise, SIGMA.float())
    skip, out, _ = (one[:, None, None, None] for one in SCALINGS["edm"](SIGMA.float()))
    target = (x0 - skip * (x0 + SIGMA.float()[:, None, None, None] * noise)) / out
    weights = ours(law, "edm", gamma=4.0, sigma_data=0.5)
    torch.testing.assert_close((answer - target).square().mean(dim=(1, 2, 3)) * weights, expected, rtol=1e-4, atol=1e-6)


def test_debiased_estimation_and_p2_are_the_papers() -> None:
    snr = their_snr()
    torch.testing.assert_close(ours("debiased", "eps"), snr**-0.5, rtol=1e-4, atol=0)
    torch.testing.assert_close(ours("p2", "eps"), 1 / (1 + snr), rtol=1e-4, atol=0)


@pytest.mark.parametrize("law", WEIGHTINGS)
def test_a_law_means_the_same_loss_of_x0_whatever_is_predicted(law: Law) -> None:
    """The weighted error of an answer is that of the x0 it means, for one law the same for all predictions."""
    x, x0, guess = torch.randn(3, len(SIGMA), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    losses = []
    for scaling in SCALINGS.values():
        skip, out, _ = (one[:, None] for one in scaling(SIGMA))
        answer, target = (guess - skip * x) / out, (x0 - skip * x) / out
        weights = answer_weights(SIGMA, scaling, WeightingConfig(law=law))
        losses.append((answer - target).square().mean(dim=1) * weights)
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0])


@pytest.mark.parametrize("wrong", [{"gamma": 0.0}, {"sigma_data": -1.0}])
def test_what_is_no_weighting_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"weighting\.{next(iter(wrong))} .*: expected more than 0"):
        WeightingConfig(**wrong)
