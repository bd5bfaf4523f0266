"""One formula, every prediction type: the textbook's targets and inputs come out of (c_skip, c_out, c_in)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tintype.diffusion.denoiser import Conditioning, Denoiser
from tintype.diffusion.scaling import SCALINGS, SIGMA_DATA, Prediction, of_std
from tintype.diffusion.schedule import DDPM, DDPMConfig

SIGMAS = (0.002, 0.03, 0.5, 1.0, 14.6, 80.0, 4500.0)
Textbook = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]  # (x0, noise, sigma) -> target, network input


def in_variance_preserving(x0: Tensor, noise: Tensor, sigma: float) -> tuple[float, float, Tensor]:
    alpha = (1 + sigma**2) ** -0.5
    return alpha, sigma * alpha, alpha * x0 + sigma * alpha * noise


def textbook_eps(x0: Tensor, noise: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    return noise, in_variance_preserving(x0, noise, sigma)[2]


def textbook_v(x0: Tensor, noise: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    alpha, std, z = in_variance_preserving(x0, noise, sigma)
    return alpha * noise - std * x0, z


def textbook_x0(x0: Tensor, noise: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    return x0, in_variance_preserving(x0, noise, sigma)[2]


def textbook_flow(x0: Tensor, noise: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    s = sigma / (1 + sigma)
    return noise - x0, (1 - s) * x0 + s * noise


def textbook_edm(x0: Tensor, noise: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    total = sigma**2 + 0.25
    return (sigma * x0 - 0.25 * noise) / (0.5 * total**0.5), (x0 + sigma * noise) / total**0.5


TEXTBOOK: dict[Prediction, Textbook] = {
    "eps": textbook_eps,
    "v": textbook_v,
    "x0": textbook_x0,
    "flow": textbook_flow,
    "edm": textbook_edm,
}


def pair() -> tuple[Tensor, Tensor]:
    both = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return both[0], both[1]


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", SCALINGS)
def test_target_input_and_reconstruction(name: Prediction, sigma: float) -> None:
    assert name in TEXTBOOK, f"add the textbook's target and input of {name!r} to TEXTBOOK"
    x0, noise = pair()
    x = x0 + sigma * noise
    target, net_in = TEXTBOOK[name](x0, noise, sigma)
    level = torch.tensor(sigma, dtype=torch.float64)
    skip, out, into = SCALINGS[name](level)
    torch.testing.assert_close(into * x, net_in, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(skip * x + out * target, x0, rtol=1e-9, atol=1e-13 * max(sigma, 1))
    torch.testing.assert_close(((1 - skip) * x0 - skip * sigma * noise) / out, target, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SCALINGS)
def test_the_denoisers_target_is_the_textbooks(name: Prediction) -> None:
    x0, noise = pair()
    denoiser = Denoiser(lambda x, t, context, vector: x, DDPM(DDPMConfig()), SCALINGS[name])
    for three in (SIGMAS[:3], SIGMAS[2:5], SIGMAS[4:]):  # a level of its own for each row
        ours = denoiser.target(x0.float(), noise.float(), torch.tensor(three))
        assert ours.dtype == torch.float32
        for row, sigma in enumerate(three):
            target, _ = TEXTBOOK[name](x0[row], noise[row], sigma)
            torch.testing.assert_close(ours[row], target.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", SCALINGS)
def test_a_network_that_answers_the_target_denoises_exactly(name: Prediction, sigma: float) -> None:
    x0, noise = (one.float() for one in pair())
    level = torch.full((len(x0),), sigma)
    knowing = Denoiser(lambda x, t, context, vector: answer, DDPM(DDPMConfig()), SCALINGS[name])
    answer = knowing.target(x0, noise, level)
    found = knowing(x0 + sigma * noise, sigma, Conditioning())
    assert (found - x0).abs().max() < 1e-6 * max(1.0, sigma)  # what float32 leaves of x0 beside sigma * noise


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(("name", "std"), [("edm", SIGMA_DATA), ("v", 1.0)])
def test_inputs_and_targets_of_unit_variance(name: Prediction, std: float, sigma: float) -> None:
    skip, out, into = (float(one) for one in SCALINGS[name](torch.tensor(sigma, dtype=torch.float64)))
    assert into**2 * (std**2 + sigma**2) == pytest.approx(1, rel=1e-9)
    assert ((1 - skip) ** 2 * std**2 + skip**2 * sigma**2) / out**2 == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_edm_is_v_of_data_of_its_std(sigma: float) -> None:
    """But for the sign of the network (Karras et al. 2022, table 1)."""
    level = torch.tensor(sigma, dtype=torch.float64)
    skip, out, into = of_std(SCALINGS["v"], SIGMA_DATA)(level)
    expected = SCALINGS["edm"](level)
    torch.testing.assert_close(torch.stack((skip, -out, into)), torch.stack(expected), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", SCALINGS)
def test_coefficients_have_the_shape_and_type_of_sigma(name: Prediction) -> None:
    for sigma in (torch.tensor(0.5, dtype=torch.float64), torch.tensor([0.5, 2.0])):
        for one in SCALINGS[name](sigma):
            assert (one.shape, one.dtype) == (sigma.shape, sigma.dtype)
