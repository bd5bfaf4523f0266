"""Pictures that models make to be measured: of classes, of nothing, and the same whatever the batches."""

import dataclasses

import numpy as np
import pytest
import torch

import tintype
from tintype.conditioning.class_label import ClassConditioner, ClassConfig
from tintype.conditioning.spatial import SpatialConditioner, SpatialConfig
from tintype.data.samples import Sample
from tintype.diffusion.denoiser import Conditioning
from tintype.evaluation.pictures import Sampled, pixels_of
from tintype.families.base import AnyConditioner, LatentDiffusion, assemble
from tintype.models.unet import UNet

WIDTH = 24
SAID = [Sample(label=label) for label in (0, 3, 1)]


def tiny(conditioner: AnyConditioner | None) -> LatentDiffusion:
    shipped = tintype.load("default", device="cpu")
    config = dataclasses.replace(
        shipped.config.unet,
        in_channels=16,
        width=16,
        mult=(1,),
        depth=(1,) if conditioner else (0,),
        middle_depth=1 if conditioner else 0,
        context_dim=WIDTH if conditioner else None,
        head_dim=8,
        vector_dim=None,
    )
    torch.manual_seed(0)
    unet = UNet(config).eval()
    for parameter in unet.parameters():  # what begins at zero, so that all is heard
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    config = dataclasses.replace(shipped.config, unet=config, further=())
    return assemble(
        config,
        unet=unet,
        autoencoder=shipped.autoencoder,
        conditioner=conditioner,
        source="tiny",
        fingerprint=lambda: "0123456789",
    )


def classes(null_class: int | None) -> LatentDiffusion:
    return tiny(ClassConditioner(ClassConfig(num_classes=5, width=WIDTH, null_class=null_class)))


@pytest.mark.parametrize("null_class", [4, None])
def test_classes_are_those_of_the_data(null_class: int | None) -> None:
    model = classes(null_class)
    made = pixels_of(Sampled(model, SAID, 4, seed=7, steps=2).batch(0, 4))
    conditioner = model.conditioner
    assert isinstance(conditioner, ClassConditioner)
    with torch.inference_mode():
        cond = conditioner([0, 3, 1, 0])
        uncond = None if null_class is None else conditioner.empty(4)
    scale = 1.0 if null_class is None else None
    request = tintype.Request(seed=7, steps=2, batch_size=4, cfg_scale=scale)
    expected = tintype.generate(model, request, cond=cond, uncond=uncond)
    assert np.array_equal(made.permute(0, 2, 3, 1), np.stack([np.asarray(one) for one in expected]))
    other = pixels_of(Sampled(model, [Sample(label=2)], 1, seed=7, steps=2).batch(0, 1))
    assert not torch.equal(other[0], made[0])


def test_a_model_that_nothing_steers_is_told_nothing() -> None:
    model = tiny(None)
    sampled = Sampled(model, [Sample()], 3, seed=7, steps=2)
    made = pixels_of(sampled.batch(0, 3))
    request = tintype.Request(seed=7, steps=2, batch_size=3, cfg_scale=1.0)
    expected = tintype.generate(model, request, cond=Conditioning())
    assert np.array_equal(made.permute(0, 2, 3, 1), np.stack([np.asarray(one) for one in expected]))
    assert not torch.equal(made[0], made[1])
    last = pixels_of(sampled.batch(2, 3))  # the sequence ends there
    assert int((last[0].int() - made[2].int()).abs().max()) <= 1
    assert len(last) == 1


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="0 pictures to sample"):
        Sampled(classes(None), SAID, 0)
    with pytest.raises(ValueError, match="a sample without a class"):
        Sampled(classes(None), [Sample(caption="a frog")], 1)
    with pytest.raises(ValueError, match="steered by more than prompts or classes"):
        Sampled(tiny(SpatialConditioner(SpatialConfig())), SAID, 1)
