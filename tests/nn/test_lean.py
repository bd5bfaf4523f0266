"""The lean copy of a network computes what the network does, with the same parameters."""

from functools import partial

import torch
from torch import nn

from tintype.nn.blocks import ResBlock
from tintype.nn.layers import Layers
from tintype.nn.lean import lean


def network() -> nn.Sequential:
    parts = Layers([nn.Linear(6, 6), nn.LayerNorm(6), nn.SiLU()])
    middle = nn.Sequential(*parts, nn.Linear(6, 6, bias=False))
    made = nn.Sequential(ResBlock(4, 8, norm_groups=2), nn.GroupNorm(4, 8), middle, nn.Dropout(0.5))
    return made.eval()


def test_it_is_the_same_function_of_the_same_weights() -> None:
    whole, x = network(), torch.randn(2, 4, 6, 6)
    copy = lean(whole)
    assert type(copy) is type(whole)
    with torch.inference_mode():
        assert torch.equal(copy(x), whole(x))
    assert isinstance(copy[1], partial)
    assert isinstance(copy[0], ResBlock)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.mul_(1.5)
    with torch.inference_mode():
        assert torch.equal(copy(x), whole(x))


def test_the_network_itself_stays_as_it_was() -> None:
    whole = network()
    names, parameters = [name for name, _ in whole.named_modules()], list(whole.parameters())
    lean(whole)
    assert [name for name, _ in whole.named_modules()] == names
    assert all(one is other for one, other in zip(whole.parameters(), parameters, strict=True))
    assert all("weight" not in vars(module) for module in whole.modules())


def test_layers_with_hooks_keep_them() -> None:
    whole, seen = network(), []
    whole[1].register_forward_hook(lambda module, given, out: seen.append("norm"))
    whole[2][0].register_forward_pre_hook(lambda module, given: seen.append("linear"))
    lean(whole)(torch.randn(1, 4, 6, 6))
    assert seen == ["norm", "linear"]


def test_changed_layers_are_left_alone() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    whole, x = nn.Sequential(Doubled(3, 3)), torch.randn(2, 3)
    assert torch.equal(lean(whole)(x), whole(x))
