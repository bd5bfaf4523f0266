"""Networks that are compiled or recompute: the same numbers, under the same names."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tintype.common.rng import generator
from tintype.models.unet import UNet, UNetConfig
from tintype.training.networks import fit_networks

SMALL = UNetConfig(width=16, mult=(1, 2), num_blocks=1, depth=(0, 1), context_dim=8, num_heads=2, norm_groups=4)


TINY = UNetConfig(width=8, mult=(1,), num_blocks=1, depth=(0,), context_dim=8, num_heads=2, norm_groups=4)


def network(config: UNetConfig = SMALL) -> nn.Module:
    """A part that holds a U-Net, none of its weights zero."""
    unet = UNet(config)
    for number, parameter in enumerate(unet.parameters()):
        torch.nn.init.normal_(parameter, std=0.2, generator=generator("weights", number))
    return nn.ModuleDict({"unet": unet})


def unet_of(part: nn.Module) -> UNet:
    found = part.get_submodule("unet")
    assert isinstance(found, UNet)
    return found


def trained(part: nn.Module, *, kept: list[int] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and gradients of one backward; `kept`: gets the number of elements that the forward keeps for it."""
    x, t, context = (torch.randn(2, *shape, generator=generator(shape)) for shape in ((4, 8, 8), (), (3, 8)))

    def keep(value: Tensor) -> Tensor:
        if kept is not None and not isinstance(value, nn.Parameter):
            kept.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        out = unet_of(part)(x, t.abs() * 500, context)
    out.square().mean().backward()
    return out.detach(), {name: value.grad for name, value in part.named_parameters() if value.grad is not None}


def test_gradients_are_the_same_bit_for_bit_with_less_kept() -> None:
    plain, less = network(), network()
    fit_networks({"diffusion": less}, compiled=False, checkpointing=True)
    whole, inputs = list[int](), list[int]()
    (out, gradients), (same, others) = trained(plain, kept=whole), trained(less, kept=inputs)
    assert torch.equal(out, same)
    assert gradients.keys() == others.keys() == dict(plain.named_parameters()).keys()
    assert all(torch.equal(gradient, others[name]) for name, gradient in gradients.items())
    assert sum(inputs) < 0.3 * sum(whole)


def test_nothing_is_computed_twice_unless_asked() -> None:
    part, calls = network(), list[str]()
    block = unet_of(part).res_blocks[0]
    block.register_forward_pre_hook(lambda *_: calls.append("forward"))
    for checkpointing, count in ((False, 1), (True, 2)):
        fit_networks({"diffusion": part}, compiled=False, checkpointing=checkpointing)
        calls.clear()
        trained(part)
        assert len(calls) == count
    calls.clear()
    with torch.no_grad():
        unet_of(part)(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, 3, 8))
    assert len(calls) == 1


def traced_whole(module: nn.Module) -> None:
    """Compiling without what takes minutes: the network as one graph, run by PyTorch's own kernels."""
    compile_with(module, backend="eager", fullgraph=True)


compile_with = nn.Module.compile


@pytest.mark.parametrize("by", [traced_whole, pytest.param(compile_with, marks=pytest.mark.slow)])
def test_a_compiled_network_is_the_eager_one_under_the_same_names(
    by: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Module, "compile", by)
    plain, fast = network(TINY), network(TINY)
    fit_networks({"diffusion": fast}, compiled=True, checkpointing=False)
    assert list(plain.state_dict()) == list(fast.state_dict())
    (out, gradients), (same, others) = trained(plain), trained(fast)
    torch.testing.assert_close(same, out, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-3, atol=1e-4)


def test_only_networks_are_compiled_and_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[type] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module)))
    fit_networks({"diffusion": network(), "other": nn.Linear(2, 2)}, compiled=True, checkpointing=False)
    assert compiled == [UNet]


@pytest.mark.parametrize(("asked", "said"), [("compiled", r"train\.compile true"), ("checkpointing", "no U-Net among")])
def test_what_cannot_be_done_is_refused(asked: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit_networks({"network": nn.Linear(2, 2)}, **({"compiled": False, "checkpointing": False} | {asked: True}))
