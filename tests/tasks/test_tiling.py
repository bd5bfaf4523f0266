"""Textures: a picture that goes on at its opposite side."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import tintype
from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.generation import finish, latents
from tintype.nn.blocks import Downsample, Upsample
from tintype.nn.circular import circular
from tintype.nn.layers import Conv3x3
from tintype.tasks.infotext import provenance
from tintype.tasks.request import Request
from tintype.tasks.task import resolve

TEXTURE = {"prompt": "a frog", "steps": 4, "seed": 3, "sampler": "euler"}


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default")


def seams(picture: Image.Image) -> tuple[float, float]:
    """Rolled by half, down and across: how much the lines that meet in the middle differ, as a share of the most that
    two others do."""
    shares: list[float] = []
    for axis in (0, 1):
        levels = np.asarray(picture).astype(float)
        half = levels.shape[axis] // 2
        steps = np.abs(np.diff(np.roll(levels, half, axis), axis=axis)).mean((1 - axis, 2))
        shares.append(steps[half - 1] / np.delete(steps, half - 1).max())
    return shares[0], shares[1]


def from_start(model: LatentDiffusion, request: Request, start: Tensor) -> tuple[Tensor, np.ndarray]:
    *_, last = tintype.steps(model, request, start=start)
    settled = resolve(model, request)
    pictures = finish(model, settled, last)
    return latents(model, settled, last), np.stack([np.asarray(one).astype(int) for one in pictures])


def test_a_start_that_is_rolled_gives_the_picture_rolled(model: LatentDiffusion) -> None:
    """Only where no place is unlike another, which zeros beyond the edges would make it."""
    request = Request(**TEXTURE, tiling=True, width=64, height=32)
    start = Noise([3]).normal((16, 4, 8)) * 40.0
    drawn, picture = from_start(model, request, start)
    rolled, other = from_start(model, request, start.roll((2, 4), (2, 3)))
    assert (rolled - drawn.roll((2, 4), (2, 3))).abs().max() <= 1e-3
    assert np.abs(other - np.roll(picture, (16, 32), (1, 2))).max() <= 1
    without = dataclasses.replace(request, tiling=False)
    plain, _ = from_start(model, without, start)
    rolled, _ = from_start(model, without, start.roll((2, 4), (2, 3)))
    assert (rolled - plain.roll((2, 4), (2, 3))).abs().max() > 0.1


@pytest.mark.parametrize(("axis", "way"), [(0, "over"), (1, "to")], ids=["down", "across"])
def test_there_is_no_seam(model: LatentDiffusion, axis: int, way: str) -> None:
    """Even where the prompt asks for sides unlike each other."""
    settings = TEXTURE | {"prompt": f"a frog on a red {way} blue gradient background"}
    without, tiled = (
        np.array([seams(one) for one in tintype.generate(model, Request(**settings, tiling=tiling, batch_size=2))])
        for tiling in (False, True)
    )
    assert (tiled <= 1).all(), tiled
    assert (without[:, axis] > 2).all(), without


def test_the_model_is_left_as_it_was(model: LatentDiffusion) -> None:
    request = Request(**TEXTURE)
    before = tintype.generate(model, request)[0].tobytes()
    tiled = tintype.generate(model, dataclasses.replace(request, tiling=True))[0]
    assert tiled.tobytes() != before
    assert tintype.generate(model, request)[0].tobytes() == before
    convolutions = [one for part in model.networks.values() for one in part.modules() if isinstance(one, nn.Conv2d)]
    assert {one.padding_mode for one in convolutions} == {"zeros"}
    told = provenance(tiled).request
    assert told.tiling
    assert ", Tiling: True, Version" in tiled.info["parameters"]


def test_a_copy_on_a_torus_has_the_same_parameters_and_no_others(model: LatentDiffusion) -> None:
    for network in (model.denoiser.network, model.autoencoder):
        assert isinstance(network, nn.Module)
        copied = circular(network)
        assert type(copied) is type(network)
        pairs = list(zip(network.named_parameters(), copied.named_parameters(), strict=True))
        assert all(name == other and one is same for (name, one), (other, same) in pairs)


@pytest.mark.parametrize(
    "layer",
    [Conv3x3(5, 7), Conv3x3(3, 200), Downsample(6), Downsample(6, asymmetric=True), Upsample(3), nn.Conv2d(4, 4, 1)],
    ids=lambda layer: type(layer).__name__,
)
@torch.inference_mode()
def test_a_layer_on_a_torus_is_the_layer_within_copies_of_the_picture(layer: nn.Module) -> None:
    """The middle of three by three copies sees beyond its edges what it should, whatever the layer puts around all."""
    channels = next(layer.parameters()).shape[1]
    x = torch.randn(2, channels, 4, 6, generator=torch.Generator().manual_seed(0))
    found = circular(layer)(x)
    height, width = found.shape[-2:]
    expected = layer(x.tile(1, 1, 3, 3))[..., height : 2 * height, width : 2 * width]
    torch.testing.assert_close(found, expected)


def test_sides_that_do_not_come_round_are_refused(model: LatentDiffusion) -> None:
    assert resolve(model, Request(width=72)).width == 72
    with pytest.raises(ValueError, match="tiling: width 72 is not a multiple of 16; use 64 or 80"):
        resolve(model, Request(width=72, tiling=True))
