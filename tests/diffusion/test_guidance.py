"""Classifier-free guidance: the formula, and what it costs."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from tintype.diffusion.denoiser import Conditioning, Denoiser, stacked
from tintype.diffusion.guidance import cfg
from tintype.diffusion.scaling import SCALINGS
from tintype.diffusion.schedule import DDPM, DDPMConfig

COND = Conditioning(context=torch.full((3, 2, 2), 0.8), concat=torch.full((3, 1, 4, 4), 0.5))
UNCOND = Conditioning(context=torch.full((3, 2, 2), -0.3), concat=torch.full((3, 1, 4, 4), 0.5))


@dataclass
class Counting:
    batches: list[int] = field(default_factory=list)

    def __call__(self, x: Tensor, t: Tensor, context: Tensor | None, vector: Tensor | None) -> Tensor:
        self.batches.append(len(x))
        assert context is not None
        assert len(context) == len(x) == len(t)
        return torch.tanh(x[:, :4] + x[:, 4:] + context.mean(dim=(1, 2))[:, None, None, None])


def made() -> tuple[Denoiser, Counting, Tensor]:
    network = Counting()
    x = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 5
    return Denoiser(network, DDPM(DDPMConfig()), SCALINGS["eps"]), network, x


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0, 7.5, 30.0, -1.0])
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.0])
def test_cfg_is_the_formula_in_one_call_of_twice_the_batch(scale: float, sigma: float) -> None:
    denoiser, network, x = made()
    with_cond, without = denoiser(x, sigma, COND), denoiser(x, sigma, UNCOND)
    network.batches.clear()
    guided = cfg(denoiser, COND, UNCOND, scale)(x, sigma)
    assert network.batches == [6]
    torch.testing.assert_close(guided, without + scale * (with_cond - without), rtol=1e-5, atol=1e-5 * (1 + sigma))


def test_two_steps_are_two_calls() -> None:
    denoiser, network, x = made()
    denoise = cfg(denoiser, COND, UNCOND, 7.5)
    assert network.batches == []
    denoise(x, 14.0)
    denoise(x, 3.0)
    assert network.batches == [6, 6]


@pytest.mark.parametrize(("uncond", "scale"), [(UNCOND, 1.0), (UNCOND, 1), (None, 7.5), (None, 1.0)])
def test_without_guidance_there_is_no_second_pass(uncond: Conditioning | None, scale: float) -> None:
    denoiser, network, x = made()
    expected = denoiser(x, 2.0, COND)
    network.batches.clear()
    assert torch.equal(cfg(denoiser, COND, uncond, scale)(x, 2.0), expected)
    assert network.batches == [3]


def test_a_slot_on_one_side_only_is_refused() -> None:
    full, bare = (
        Conditioning(context=torch.zeros(1, 2, 3), vector=torch.zeros(1, 3)),
        Conditioning(vector=torch.zeros(1, 3)),
    )
    for first, second in ((full, bare), (bare, full)):
        with pytest.raises(ValueError, match="context is given on one side"):
            stacked(first, second)
