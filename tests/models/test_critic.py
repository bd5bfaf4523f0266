"""The critic against taming-transformers' on the same weights."""

from typing import Literal

import pytest
import torch
from critic_oracle import critic_names, take_weights, their_critic

from tintype.common.rng import generator
from tintype.models.critic import ActNorm, Critic, CriticConfig


def pictures(size: int, key: int = 0) -> torch.Tensor:
    return torch.rand(4, 3, size, size, generator=generator("critic", key)) * 2 - 1


@pytest.mark.parametrize("norm", ["batch", "act"])
@pytest.mark.parametrize(("layers", "size", "answers"), [(3, 32, 2), (2, 20, 3), (4, 48, 1)])
def test_equals_taming(norm: Literal["batch", "act"], layers: int, size: int, answers: int) -> None:
    torch.manual_seed(0)
    config = CriticConfig(width=4, num_layers=layers, norm=norm)
    theirs, ours = their_critic(config), Critic(config)
    take_weights(ours, theirs)
    ours.fit(pictures(size))
    theirs(pictures(size))  # ActNorm looks at the first batch
    image = pictures(size, 1)
    answer, expected = ours(image).detach(), theirs(image).detach()
    assert answer.shape == expected.shape == (4, 1, answers, answers)
    assert (answer - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert ours.eval()(image).equal(ours.train()(image))


def test_its_weights_begin_as_theirs() -> None:
    torch.manual_seed(1)
    theirs, ours = their_critic(CriticConfig()).state_dict(), Critic(CriticConfig())
    names = critic_names(ours)
    assert names.keys() == ours.state_dict().keys()
    for name, own in ours.named_parameters():
        value = theirs[names[name]]
        assert own.shape == value.shape, name
        if own.numel() > 100:
            assert float(own.detach().std()) == pytest.approx(float(value.std()), rel=0.25), name
            assert float(own.detach().mean()) == pytest.approx(float(value.mean()), abs=0.01), name


def test_an_act_norm_that_was_fitted_gives_unit_variance() -> None:
    x = 3 * torch.randn(5, 7, 6, 6, generator=generator(3)) + 2
    norm = ActNorm(7)
    norm.fit(x)
    assert torch.allclose(norm(x).mean(dim=(0, 2, 3)), torch.zeros(7), atol=1e-5)
    assert torch.allclose(norm(x).transpose(0, 1).flatten(1).std(dim=1), torch.ones(7), atol=1e-5)
    norm(x).square().sum().backward()
    assert norm.scale.grad is not None  # and it goes on by gradient
    assert norm.scale.grad.abs().min() > 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="a picture of 32 x 16: a critic of 3 layers expects sides of 24 or more"):
        Critic(CriticConfig(width=2))(torch.zeros(2, 3, 16, 32))
    with pytest.raises(ValueError, match="critic: num_layers 0: expected 1 or more"):
        CriticConfig(num_layers=0)
    with pytest.raises(ValueError, match="critic: image_channels 0: expected 1 or more"):
        CriticConfig(image_channels=0)
