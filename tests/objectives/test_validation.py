"""What is measured of unseen samples: written out, and the same whatever the batch and the dropout."""

from itertools import pairwise
from typing import cast

import pytest
import torch
from tiny_diffusion import eight_samples, randomised, tiny
from torch import Tensor

from tintype.common.rng import generator
from tintype.diffusion.scaling import SCALINGS
from tintype.diffusion.schedule import DDPM, DDPMConfig
from tintype.objectives.denoising import DenoisingConfig, DenoisingObjective
from tintype.objectives.validation import validation_losses

SIGMAS = (0.3, 0.3, 5.0)  # the same level twice: each place has noise of its own
DISTURBED = DenoisingConfig(offset_noise=0.5, input_perturbation=0.5)


def objective(*, dropout: float = 0.0, config: DenoisingConfig | None = None) -> DenoisingObjective:
    unet, conditions = tiny("text", dropout=dropout)
    randomised(unet)
    schedule = DDPM(DDPMConfig())
    return DenoisingObjective(unet, conditions, schedule=schedule, scaling=SCALINGS["eps"], config=config)


def some(first: int, last: int) -> dict[str, Tensor]:
    return {name: value[first:last] for name, value in eight_samples(std=0.3).items()}


def test_the_losses_by_hand() -> None:
    """Sample by sample and level by level: eps of Stable Diffusion, in variance preserving coordinates."""
    measured = objective()
    [condition] = measured.conditions
    expected = torch.zeros(3)
    for number in range(8):
        batch = some(number, number + 1)
        drawn = torch.randn(4, 4, 4, generator=generator(7, "posterior", number))
        x0 = batch["mean"] + 0.3 * drawn
        with torch.no_grad():
            cond = condition(batch, None)
            for place, sigma in enumerate(SIGMAS):
                noise = torch.randn(4, 4, 4, generator=generator(7, place, number))
                seen = (x0 + sigma * noise) / (1 + sigma**2) ** 0.5
                t = measured.denoiser.schedule.t(torch.tensor([sigma], dtype=torch.float64)).float()
                answer = cast("Tensor", measured.denoiser.network(seen, t, cond.context, cond.vector))
                expected[place] += (answer - noise).square().mean() / 8
    found = validation_losses(measured, [some(0, 8)], SIGMAS, seed=7)
    torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=0)
    assert len(set(found.tolist())) == 3


@pytest.mark.parametrize("cuts", [(0, 3, 8), (0, 1, 2, 8)])
def test_batches_dropout_and_what_disturbs_training_change_nothing(cuts: tuple[int, ...]) -> None:
    whole = validation_losses(objective(), [some(0, 8)], SIGMAS, seed=7)
    batches = [some(first, last) for first, last in pairwise(cuts)]
    measured = objective(dropout=1.0, config=DISTURBED)
    torch.testing.assert_close(validation_losses(measured, batches, SIGMAS, seed=7), whole, rtol=1e-5, atol=0)


def test_another_seed_is_other_noise() -> None:
    one, again, other = (validation_losses(objective(), [some(0, 8)], SIGMAS, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(one, again)
    assert not torch.isclose(one, other, rtol=1e-4).any()
