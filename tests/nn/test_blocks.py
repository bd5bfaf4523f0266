"""What the parity tests of the networks leave open about their blocks."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tintype.nn.blocks import Downsample, ResBlock, Upsample


@pytest.mark.parametrize("scale_shift", [False, True])
def test_gradients_do_not_depend_on_the_mode(scale_shift: bool) -> None:
    """Outside training activations are overwritten; a loss through a frozen network still has its gradients."""
    block = ResBlock(8, 16, shift_dim=4, scale_shift=scale_shift, norm_groups=4)
    x, shift = torch.randn(2, 8, 6, 6), torch.randn(2, 16 * (1 + scale_shift))

    def gradients() -> list[Tensor]:
        inputs = [x.clone().requires_grad_(), shift.clone().requires_grad_()]
        used = [parameter for name, parameter in block.named_parameters() if not name.startswith("shift_proj")]
        return list(torch.autograd.grad(block(*inputs).square().sum(), [*inputs, *used]))

    training = gradients()
    block.eval()
    for one, other in zip(training, gradients(), strict=True):
        torch.testing.assert_close(one, other)


def test_without_a_shift_there_is_none() -> None:
    block = ResBlock(8, 8, norm_groups=4)
    assert block.shift_proj is None
    x = torch.randn(2, 8, 6, 6)
    h = block.conv1(F.silu(block.norm1(x)))
    torch.testing.assert_close(block(x), x + block.conv2(F.silu(block.norm2(h))))


@pytest.mark.parametrize(("resample", "size"), [("up", (12, 8)), ("down", (3, 2)), (None, (6, 4))])
def test_a_block_can_resample(resample: str | None, size: tuple[int, int]) -> None:
    block = ResBlock(8, 16, resample=resample, norm_groups=4)
    assert block(torch.randn(1, 8, 6, 4)).shape == (1, 16, *size)


def test_asymmetric_halving_pads_right_and_below() -> None:
    halve = Downsample(1, asymmetric=True)
    torch.nn.init.dirac_(halve.conv.weight)
    torch.nn.init.zeros_(halve.conv.bias)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert halve(x).flatten().tolist() == [5.0, 7.0, 13.0, 15.0]
    assert Downsample(1)(x).shape == (1, 1, 2, 2)


def test_doubling_can_be_told_the_size() -> None:
    double = Upsample(2)
    x = torch.randn(1, 2, 3, 2)
    assert double(x).shape == (1, 2, 6, 4)
    assert torch.equal(double(x, (6, 4)), double(x))
    assert double(x, (5, 3)).shape == (1, 2, 5, 3)
