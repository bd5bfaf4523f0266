import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tintype.checkpoints.native import save_network
from tintype.models.autoencoder import Autoencoder
from tintype.models.unet import UNet
from tintype.recipes.base import run
from tintype.recipes.compression_study import FACTORS, compression_study, first_stage, read_space
from tintype.training.state import checkpoints


@pytest.mark.parametrize("factor", FACTORS)
def test_every_factor_gets_the_same_size_and_compute(factor):
    recipe = compression_study(factor)
    network = UNet(recipe.unet)
    side = recipe.scenes.size // factor
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(1, recipe.unet.in_channels, side, side), torch.tensor([500.0])).mean().backward()
    whole = counter.get_total_flops() * recipe.train.batch_size * recipe.train.steps
    assert whole == pytest.approx(60e12, rel=0.03)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(2.82e6, rel=0.04)


@pytest.mark.parametrize("factor", FACTORS[1:])
def test_a_first_stage_has_its_factor(factor):
    recipe = first_stage(factor)
    assert recipe.model.factor == factor
    assert recipe.model.latent_channels == compression_study(factor).unet.in_channels
    assert recipe.train == first_stage(8).train  # all see the same pictures
    assert recipe.scenes == first_stage(8).scenes


def short(recipe):
    train = dataclasses.replace(recipe.train, steps=2, batch_size=2, save_every=1)
    return dataclasses.replace(recipe, latents=8, train=train)


def test_pixels_are_the_latents_of_factor_1(tmp_path, capsys):
    assert run(short(compression_study(1)), tmp_path, progress=False)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001", "step-00000002"]
    space = read_space(tmp_path)
    assert len(space.scale) == 3
    assert all(1 < one < 4 for one in space.scale)  # colours spread over [-1, 1], by less than 1


def test_others_need_a_first_stage_that_fits(tmp_path, capsys):
    with pytest.raises(ValueError, match="a first stage of factor 8 is expected"):
        run(short(compression_study(8)), tmp_path / "none", progress=False)
    file = tmp_path / "autoencoder.safetensors"
    model = first_stage(8).model
    save_network(file, "autoencoder", model, Autoencoder(model).state_dict(), dtype=torch.float16)
    with pytest.raises(ValueError, match="has factor 8 and 4 channels; expected 16 and 16"):
        run(short(compression_study(16, autoencoder=str(file))), tmp_path / "other", progress=False)
    assert run(short(compression_study(8, autoencoder=str(file))), tmp_path / "fits", progress=False)
    assert len(read_space(tmp_path / "fits").scale) == 4
