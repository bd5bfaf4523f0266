"""A typed list of modules, and memory layout."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tintype.nn.blocks import Upsample
from tintype.nn.layers import Conv3x3, Layers, conv_of_doubled, to_channels_last


def test_layers_are_a_list_named_by_position() -> None:
    members = [nn.Linear(2, 3), nn.Linear(3, 4)]
    layers = Layers(members)
    assert list(layers) == members
    assert len(layers) == 2
    assert list(layers.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(layers.state_dict()) == list(nn.ModuleList(members).state_dict())


def test_only_convolutions_are_laid_out_and_no_number_changes() -> None:
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Linear(4, 4), nn.GroupNorm(2, 4))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    parameters = list(network.parameters())
    to_channels_last(network)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network[1].weight.is_contiguous()
    assert all(one is other for one, other in zip(parameters, network.parameters(), strict=True))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("size", "product"), [((2, 2), True), ((1, 4), True), ((3, 3), False)], ids=str)
def test_a_convolution_of_few_pixels_is_a_matrix_product(size: tuple[int, int], product: bool) -> None:
    conv = Conv3x3(5, 32).to(memory_format=torch.channels_last)
    x = torch.randn(2, 5, *size).contiguous(memory_format=torch.channels_last)
    expected = nn.Conv2d.forward(conv, x)
    with torch.inference_mode(), torch.profiler.profile() as profile:
        got = conv(x)
    assert product == ("aten::conv2d" not in {event.name for event in profile.events()})
    torch.testing.assert_close(got, expected)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(conv(x), expected)  # with gradients, always oneDNN's


@pytest.mark.parametrize("shape", [(1, 4, 5, 3), (2, 3, 1, 1), (2, 8, 6, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_doubled_picture_is_convolved_without_being_made(shape: tuple[int, ...], bias: bool) -> None:
    x, weight = torch.randn(shape), torch.randn(5, shape[1], 3, 3)
    added = torch.randn(5) if bias else None
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, added, padding=1)
    got = conv_of_doubled(x.contiguous(memory_format=torch.channels_last), weight, added)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [None, (12, 14), (11, 13)])
def test_upsample_is_the_same_with_and_without_gradients(size: tuple[int, int] | None) -> None:
    layer = Upsample(4)
    x = torch.randn(1, 4, 6, 7)  # more pixels than channels: without gradients the short way is taken
    expected = layer(x, size)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x, size), expected.detach(), rtol=1e-5, atol=1e-5)
