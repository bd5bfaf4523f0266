"""What a model that is shown a mask sees: in sampling what it saw in training, and without a mask nothing known."""

import dataclasses

import pytest
import torch

import tintype
from tintype.common.rng import generator
from tintype.diffusion.denoiser import Conditioning
from tintype.families.base import Further, LatentDiffusion
from tintype.objectives.conditions import RepaintCondition
from tintype.tasks.further import all_new, shown
from tintype.tasks.request import Request
from tintype.tasks.steering import Stage, Steering

SIZED = Request(width=64, height=64)


def model(*further: Further) -> LatentDiffusion:
    default = tintype.load("default", device="cpu")
    return dataclasses.replace(default, config=dataclasses.replace(default.config, further=further))


def picture(seed: int) -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=generator(seed)) * 2 - 1


def steering(concat: torch.Tensor | None = None) -> Steering:
    cond = Conditioning(context=torch.zeros(2, 1, 4), concat=concat)
    return Steering(stages=(Stage(((1.0, cond),), cond),))


@torch.no_grad()
def test_sampling_shows_what_training_showed() -> None:
    masked = model("mask", "masked")
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 10:37, 5:22] = 1
    trained = RepaintCondition(masked.autoencoder, masked.space, size=64)
    batch = {"image": picture(1), "mask": mask[:, 0]}
    expected = trained(batch, None).concat
    assert expected is not None
    assert torch.allclose(shown(masked, picture(1), mask), expected, atol=1e-5)
    everywhere = trained(batch | {"mask": torch.ones(1, 64, 64)}, None).concat
    found = all_new(masked, SIZED, steering(), 2).stages[0]
    for cond in (found.conds[0][1], found.uncond):
        assert cond is not None
        assert cond.concat is not None
        assert torch.allclose(cond.concat, torch.cat((everywhere, everywhere)), atol=1e-5)


@torch.no_grad()
def test_what_is_masked_is_not_seen() -> None:
    masked, whole = model("mask", "masked"), torch.ones(1, 1, 64, 64)
    assert torch.equal(shown(masked, picture(1), whole), shown(masked, picture(2), whole))
    assert not torch.equal(shown(masked, picture(1), 0 * whole), shown(masked, picture(2), 0 * whole))


@torch.no_grad()
def test_latent_diffusion_s_own_models_see_black_and_a_signed_mask() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    seen = shown(model("masked_black", "signed_mask"), picture(1), mask)
    assert seen.shape == (1, 17, 8, 8)
    assert seen[0, 16, 0].tolist() == [1] * 4 + [-1] * 4
    black = torch.where(mask > 0, -1.0, picture(1))
    known = model()
    assert torch.allclose(seen[:, :16], known.space.wrap(known.autoencoder.encode(black).mean), atol=1e-5)


@pytest.mark.parametrize("further", [(), ("depth",)])
def test_what_is_said_already_and_other_models_stay_as_they_are(further: tuple[Further, ...]) -> None:
    assert all_new(model(*further), SIZED, steering(), 2).stages[0].conds[0][1].concat is None
    said = steering(torch.zeros(2, 17, 8, 8))
    assert all_new(model("mask", "masked"), SIZED, said, 2) is said
