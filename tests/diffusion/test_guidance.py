"""Classifier-free guidance: the formula, and what it costs."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from tintype.diffusion.denoiser import Conditioning, Denoiser, stacked
from tintype.diffusion.guidance import Guidance, autoguided, clipped, guided, thresholded
from tintype.diffusion.scaling import SCALINGS, Prediction
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
    found = guided(denoiser, [(1.0, COND)], UNCOND, Guidance(scale=scale))(x, sigma)
    assert network.batches == [6]
    torch.testing.assert_close(found, without + scale * (with_cond - without), rtol=1e-5, atol=1e-5 * (1 + sigma))


def test_the_uncond_is_itself_led_away() -> None:
    """InstructPix2Pix's formula, in one call of three times the batch; the conditional answer is what it was: it alone
    is left outside the interval, and gives its contrast back."""
    denoiser, network, x = made()
    bare = dataclasses.replace(UNCOND, concat=torch.zeros(3, 1, 4, 4))
    text, picture, nothing = (denoiser(x, 2.0, one) for one in (COND, UNCOND, bare))
    network.batches.clear()
    conds, away = [(1.0, COND)], (0.5, bare)
    found = guided(denoiser, conds, UNCOND, Guidance(scale=7.5), away)(x, 2.0)
    assert network.batches == [9]
    torch.testing.assert_close(
        found, nothing + 7.5 * (text - picture) + 1.5 * (picture - nothing), rtol=1e-5, atol=1e-5
    )
    found = guided(denoiser, conds, UNCOND, Guidance(scale=1.0), away)(x, 2.0)
    torch.testing.assert_close(found, text + 0.5 * (picture - nothing), rtol=1e-5, atol=1e-5)
    assert torch.equal(guided(denoiser, conds, UNCOND, Guidance(scale=7.5, start=1.0), away)(x, 2.0), text)
    found = guided(denoiser, conds, UNCOND, Guidance(scale=7.5, rescale=1.0), away)(x, 2.0)
    torch.testing.assert_close((x - found).std(dim=(1, 2, 3)), (x - text).std(dim=(1, 2, 3)), rtol=1e-4, atol=1e-4)


def test_two_steps_are_two_calls() -> None:
    denoiser, network, x = made()
    denoise = guided(denoiser, [(1.0, COND)], UNCOND, Guidance(scale=7.5))
    assert network.batches == []
    denoise(x, 14.0)
    denoise(x, 3.0)
    assert network.batches == [6, 6]


@pytest.mark.parametrize(("uncond", "scale"), [(UNCOND, 1.0), (UNCOND, 1), (None, 7.5), (None, 1.0)])
def test_without_guidance_there_is_no_second_pass(uncond: Conditioning | None, scale: float) -> None:
    denoiser, network, x = made()
    expected = denoiser(x, 2.0, COND)
    network.batches.clear()
    assert torch.equal(guided(denoiser, [(1.0, COND)], uncond, Guidance(scale=scale))(x, 2.0), expected)
    assert network.batches == [3]


def test_a_slot_on_one_side_only_is_refused() -> None:
    full, bare = (
        Conditioning(context=torch.zeros(1, 2, 3), vector=torch.zeros(1, 3)),
        Conditioning(vector=torch.zeros(1, 3)),
    )
    for first, second in ((full, bare), (bare, full)):
        with pytest.raises(ValueError, match="context is given on one side"):
            stacked(first, second)
        with pytest.raises(ValueError, match="context is given on one side"):
            guided(made()[0], [(1.0, first)], second, Guidance(scale=2.0))


# --- several conditionings --------------------------------------------------------------------------------------------

LONGER = Conditioning(context=torch.full((3, 5, 2), 0.4), concat=torch.full((3, 1, 4, 4), 0.5))


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_several_conditionings_add_their_distances_from_the_unconditional_answer(scale: float) -> None:
    denoiser, network, x = made()
    one, two, without = (denoiser(x, 2.0, cond) for cond in (COND, LONGER, UNCOND))
    network.batches.clear()
    found = guided(denoiser, [(0.7, COND), (-0.2, LONGER)], UNCOND, Guidance(scale=scale))(x, 2.0)
    torch.testing.assert_close(found, without + scale * (0.7 * (one - without) - 0.2 * (two - without)))
    assert network.batches == [6, 3]  # one context is longer: a batch of its own


def test_weights_that_leave_nothing_to_the_unconditional_answer_do_without_it() -> None:
    denoiser, network, x = made()
    one, two = (denoiser(x, 2.0, cond) for cond in (COND, UNCOND))
    network.batches.clear()
    found = guided(denoiser, [(0.3, COND), (0.7, UNCOND)], None, Guidance())(x, 2.0)
    torch.testing.assert_close(found, 0.3 * one + 0.7 * two)
    assert network.batches == [6]


def test_what_cannot_be_guided_is_refused() -> None:
    denoiser, _, _ = made()
    with pytest.raises(ValueError, match=r"2 conditionings of weights \[1.0, 1.0\]: give `uncond`"):
        guided(denoiser, [(1.0, COND), (1.0, COND)], None, Guidance(scale=2.0))
    with pytest.raises(ValueError, match="got no conditioning"):
        guided(denoiser, [], UNCOND, Guidance(scale=2.0))


# --- rescale and interval ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("share", [0.4, 1.0])
@pytest.mark.parametrize("sigma", [0.1, 14.0])
def test_rescale_equals_diffusers(prediction: Prediction, share: float, sigma: float) -> None:
    """Theirs works on what the network says; taken in x0 the standard deviations would be other ones."""
    _, network, x = made()
    denoiser = Denoiser(network, DDPM(DDPMConfig()), SCALINGS[prediction])
    level = torch.full((3,), sigma, dtype=torch.float64)
    said, without = denoiser.output(x, level, COND), denoiser.output(x, level, UNCOND)
    expected = rescale_noise_cfg(without + 6.0 * (said - without), said, guidance_rescale=share)
    skip, out, _ = SCALINGS[prediction](level[0])
    found = guided(denoiser, [(1.0, COND)], UNCOND, Guidance(scale=6.0, rescale=share))(x, sigma)
    torch.testing.assert_close(found, (skip * x + out * expected).float(), rtol=1e-5, atol=1e-5 * (1 + sigma))


def test_guidance_acts_between_its_levels_alone() -> None:
    denoiser, network, x = made()
    always = guided(denoiser, [(1.0, COND)], UNCOND, Guidance(scale=5.0))
    interval = guided(denoiser, [(1.0, COND)], UNCOND, Guidance(scale=5.0, start=3.0, end=0.5))
    for sigma in (3.0, 1.0, 0.501):
        assert torch.equal(interval(x, sigma), always(x, sigma))
    network.batches.clear()
    for sigma in (3.001, 0.5, 0.1):
        assert torch.equal(interval(x, sigma), denoiser(x, sigma, COND))
    assert network.batches == [3] * 6


# --- thresholds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [1.0, 1.5, 9.0])
def test_thresholds_equal_diffusers(largest: float) -> None:
    theirs = DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=largest)
    x = (
        torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
        * torch.tensor([0.1, 1, 2, 5])[:, None, None, None]
    )
    found = thresholded(lambda x, sigma: x, 0.9, largest)(x, 1.0)
    torch.testing.assert_close(found, theirs._threshold_sample(x), rtol=1e-6, atol=1e-6)
    assert torch.equal(clipped(lambda x, sigma: x)(x, 1.0), x.clamp(-1, 1))


def test_latents_are_brought_back_to_the_size_of_the_conditional_answer() -> None:
    denoiser, _, x = made()
    alone = denoiser(x, 2.0, COND)
    wild = guided(denoiser, [(1.0, COND)], UNCOND, Guidance(scale=30.0))(x, 2.0)
    tame = guided(denoiser, [(1.0, COND)], UNCOND, Guidance(scale=30.0, threshold=0.9))(x, 2.0)
    limit, size = (one.abs().flatten(1).quantile(0.9, dim=1)[:, None, None, None] for one in (alone, wild))
    assert bool((size > 1.01 * limit).all())
    torch.testing.assert_close(tame, wild.clamp(-size, size) * limit / size)
    torch.testing.assert_close(tame.abs().flatten(1).amax(dim=1), limit.flatten())


# --- other guides -----------------------------------------------------------------------------------------------------


def test_autoguidance_goes_away_from_the_worse_model() -> None:
    _, _, x = made()
    asked: list[float] = []

    def worse(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return 0.5 * x

    torch.testing.assert_close(autoguided(lambda x, sigma: x, worse, 3.0)(x, 1.0), 0.5 * x + 3 * (x - 0.5 * x))
    assert torch.equal(autoguided(lambda x, sigma: x, worse, 1.0)(x, 2.0), x)
    assert asked == [1.0]


@dataclass
class Perturbing(Counting):
    """Perturbed it says half of what it says."""

    def bind(self, context: Tensor | None, vector: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: self(x, t, context, vector)

    def bind_perturbed(self, context: Tensor | None, vector: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: 0.5 * self(x, t, context, vector)


@pytest.mark.parametrize(("scale", "batches"), [(5.0, [6, 3]), (1.0, [3, 3])])
def test_perturbed_attention_guidance_adds_its_own_distance(scale: float, batches: list[int]) -> None:
    network = Perturbing()
    _, _, x = made()
    denoiser = Denoiser(network, DDPM(DDPMConfig()), SCALINGS["eps"])
    cond, without = denoiser(x, 2.0, COND), denoiser(x, 2.0, UNCOND)
    worse = x - 0.5 * (x - cond)
    network.batches.clear()
    found = guided(denoiser, [(1.0, COND)], UNCOND, Guidance(scale=scale, pag_scale=3.0))(x, 2.0)
    torch.testing.assert_close(found, without + scale * (cond - without) + 3 * (cond - worse))
    assert network.batches == batches


def test_a_network_that_cannot_be_perturbed_says_so() -> None:
    denoiser, _, _ = made()
    with pytest.raises(ValueError, match="no attention to perturb; leave out pag_scale"):
        guided(denoiser, [(1.0, COND)], UNCOND, Guidance(pag_scale=3.0))
