"""A typed list of modules, and memory layout."""

import torch
from torch import nn

from tintype.nn.layers import Layers, to_channels_last


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
