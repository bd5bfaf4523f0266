"""The denoiser: what it tells the network, and that its four ways to ask agree."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from tintype.diffusion.denoiser import Conditioning, Denoiser, repeated, stacked
from tintype.diffusion.scaling import SCALINGS, Prediction, of_std
from tintype.diffusion.schedule import DDPM, EDM, DDPMConfig, EDMConfig, Flow, FlowConfig, Schedule

SCHEDULES: list[Schedule] = [DDPM(DDPMConfig()), EDM(EDMConfig()), Flow(FlowConfig())]
LEVELS = torch.tensor([0.05, 1.0, 14.0])


@dataclass
class Listening:
    """An elementwise network that keeps what it was told."""

    calls: list[tuple[Tensor, Tensor, Tensor | None, Tensor | None]] = field(default_factory=list)

    def __call__(self, x: Tensor, t: Tensor, context: Tensor | None, vector: Tensor | None) -> Tensor:
        self.calls.append((x, t, context, vector))
        said = 0 if context is None else context.mean(dim=(1, 2))[:, None, None, None]
        return torch.tanh(x[:, :4] + torch.sin(t)[:, None, None, None].to(x.dtype) + said)


@dataclass
class Binding(Listening):
    """The same, and it can be bound."""

    bound: int = 0

    def bind(self, context: Tensor | None, vector: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        self.bound += 1
        return lambda x, t: Listening.__call__(self, x, t, context, vector)

    def __call__(self, x: Tensor, t: Tensor, context: Tensor | None, vector: Tensor | None) -> Tensor:
        raise AssertionError("a bound network is not to be asked whole")


def noisy() -> Tensor:
    return torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(1)) * 3


def conditioning() -> Conditioning:
    return Conditioning(context=torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["ddpm", "edm", "flow"])
@pytest.mark.parametrize("name", SCALINGS)
def test_call_bind_and_output_agree(schedule: Schedule, name: Prediction) -> None:
    x, cond = noisy(), conditioning()
    denoiser = Denoiser(Listening(), schedule, SCALINGS[name])
    called = denoiser(x, 1.7, cond)
    assert called.dtype == torch.float32
    assert torch.equal(denoiser.bind(cond)(x, 1.7), called)
    assert torch.equal(Denoiser(Binding(), schedule, SCALINGS[name]).bind(cond)(x, 1.7), called)
    same = torch.full((3,), 1.7, dtype=torch.float64)
    assert torch.equal(denoiser(x, same, cond), called)
    skip, out, _ = SCALINGS[name](same[0])
    torch.testing.assert_close((skip * x + out * denoiser.output(x, same, cond)).float(), called, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["ddpm", "edm", "flow"])
@pytest.mark.parametrize("name", SCALINGS)
def test_the_network_is_told_the_scaled_input_and_the_schedules_time(schedule: Schedule, name: Prediction) -> None:
    network = Listening()
    denoiser = Denoiser(network, schedule, SCALINGS[name])
    vector = torch.ones(3, 6)
    denoiser.output(noisy(), LEVELS, Conditioning(vector=vector))
    [(net_in, t, context, told)] = network.calls
    assert (t.shape, t.dtype) == ((3,), torch.float32)
    torch.testing.assert_close(t, schedule.t(LEVELS).float(), rtol=1e-6, atol=0)
    expected = noisy() * SCALINGS[name](LEVELS).into[:, None, None, None]
    torch.testing.assert_close(net_in, expected, rtol=1e-6, atol=0)
    assert context is None
    assert told is vector


@pytest.mark.parametrize("name", SCALINGS)
def test_every_row_has_its_own_level(name: Prediction) -> None:
    x, cond = noisy(), conditioning()
    denoiser = Denoiser(Listening(), DDPM(DDPMConfig()), SCALINGS[name])
    together = denoiser(x, LEVELS, cond)
    assert cond.context is not None
    for row, sigma in enumerate(LEVELS.tolist()):
        alone = denoiser(x[row : row + 1], sigma, Conditioning(context=cond.context[row : row + 1]))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("network", [Listening, Binding])
def test_concat_joins_the_input_unscaled(network: type[Listening]) -> None:
    asked, extra = network(), torch.full((3, 5, 5, 5), 9.0)
    denoiser = Denoiser(asked, DDPM(DDPMConfig()), SCALINGS["eps"])
    denoised = denoiser.bind(Conditioning(concat=extra))(noisy(), 2.0)
    [(net_in, *_)] = asked.calls
    assert net_in.shape == (3, 9, 5, 5)
    assert torch.equal(net_in[:, 4:], extra)
    torch.testing.assert_close(net_in[:, :4], noisy() / 5**0.5)
    assert denoised.shape == noisy().shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_of_half_precision_gives_float32(dtype: torch.dtype) -> None:
    network, x, sigma = Listening(), noisy(), 1.7
    half = Denoiser(network, DDPM(DDPMConfig()), SCALINGS["eps"], dtype=dtype)
    full = Denoiser(Listening(), DDPM(DDPMConfig()), SCALINGS["eps"])
    found = (half(x, sigma, Conditioning()), half.bind(Conditioning())(x, sigma))
    found += (Denoiser(Binding(), half.schedule, half.scaling, dtype=dtype).bind(Conditioning())(x, sigma),)
    answer = half.output(x, torch.full((3,), sigma), Conditioning())
    assert [one.dtype for one in (*found, answer)] == [torch.float32] * 4
    assert {call[0].dtype for call in network.calls} == {dtype}
    assert {call[1].dtype for call in network.calls} == {torch.float32}  # bfloat16 cannot count to 1000
    torch.testing.assert_close(found[0], full(x, sigma, Conditioning()), rtol=0.02, atol=0.02)
    for one in found:  # only the network rounds: what follows it is float32 again
        assert torch.equal(one, x + torch.tensor(-sigma) * answer)


def test_a_bindable_network_is_bound_once_for_all_steps() -> None:
    network = Binding()
    denoise = Denoiser(network, DDPM(DDPMConfig()), SCALINGS["v"]).bind(conditioning())
    for sigma in (14.0, 3.0, 0.1):
        denoise(noisy(), sigma)
    assert network.bound == 1
    assert len(network.calls) == 3


def test_the_target_does_not_ask_the_network() -> None:
    network = Listening()
    Denoiser(network, DDPM(DDPMConfig()), SCALINGS["v"]).target(noisy(), noisy(), LEVELS)
    assert not network.calls


def test_stacked_puts_the_first_before_the_second_and_leaves_empty_slots_empty() -> None:
    one = Conditioning(context=torch.zeros(2, 3, 4), concat=torch.zeros(2, 1, 5, 5))
    two = Conditioning(context=torch.ones(2, 3, 4), concat=torch.ones(2, 1, 5, 5))
    both = stacked(one, two)
    assert both.vector is None
    for slot in (both.context, both.concat):
        assert slot is not None
        assert slot.flatten(1).mean(dim=1).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_conditioning_reaches_the_network_in_its_own_precision(dtype: torch.dtype) -> None:
    """Class ids stay whole numbers. The same through the call, `bind` and `output`."""
    network = Listening()
    cond = Conditioning(context=torch.randn(2, 3, 5), vector=torch.tensor([1, 2]), concat=torch.randn(2, 1, 4, 4))
    denoiser = Denoiser(network, SCHEDULES[0], SCALINGS["eps"], dtype=dtype)
    x = torch.randn(2, 4, 4, 4)
    denoiser(x, 1.0, cond)
    denoiser.bind(cond)(x, 1.0)
    denoiser.output(x, torch.ones(2), cond)
    bound = Binding()
    Denoiser(bound, SCHEDULES[0], SCALINGS["eps"], dtype=dtype).bind(cond)(x, 1.0)
    for net_in, _, context, vector in network.calls + bound.calls:
        assert context is not None
        assert vector is not None
        assert (net_in.dtype, context.dtype, vector.dtype) == (dtype, dtype, torch.int64)
    assert len(network.calls + bound.calls) == 4


def test_repeated_makes_rows_of_one() -> None:
    cond = repeated(Conditioning(context=torch.arange(6.0).view(1, 2, 3)), 4)
    assert cond.context is not None
    assert cond.vector is None
    assert cond.context.shape == (4, 2, 3)
    assert torch.equal(cond.context[3], torch.arange(6.0).view(2, 3))


class Knowing:
    """Answers what it was told to."""

    def __init__(self) -> None:
        self.answer = torch.zeros(())
        self.inputs: list[Tensor] = []

    def __call__(self, x: Tensor, t: Tensor, context: Tensor | None, vector: Tensor | None) -> Tensor:
        self.inputs.append(x)
        return self.answer


@pytest.mark.parametrize("name", SCALINGS)
def test_answers_relative_to_the_latent_beside_the_noise(name: Prediction) -> None:
    """Solved by hand for what the network is to be given and to say, and then made to say it."""
    draws = torch.Generator().manual_seed(3)
    beside = 2 * torch.randn(3, 4, 5, 5, generator=draws)
    difference, noise = (std * torch.randn(3, 4, 5, 5, generator=draws) for std in (0.2, 1.0))
    knowing, scaling = Knowing(), of_std(SCALINGS[name], 0.2)
    denoiser = Denoiser(knowing, DDPM(DDPMConfig()), scaling, relative=True)
    cond, sigma = Conditioning(concat=beside), 0.3
    levels = torch.full((3,), sigma, dtype=torch.float64)
    knowing.answer = denoiser.target(beside + difference, noise, levels, cond)
    skip, out, into = (float(one) for one in scaling(levels[0]))
    expected = ((1 - skip) * difference - skip * sigma * noise) / out
    torch.testing.assert_close(knowing.answer, expected, rtol=1e-4, atol=1e-5)

    x = beside + difference + sigma * noise
    for found in (denoiser(x, sigma, cond), denoiser.bind(cond)(x, sigma)):
        torch.testing.assert_close(found, beside + difference, rtol=1e-5, atol=1e-5)
    for given in knowing.inputs:
        torch.testing.assert_close(given[:, :4], into * (difference + sigma * noise), rtol=1e-4, atol=1e-4)
        assert torch.equal(given[:, 4:], beside)
    with pytest.raises(ValueError, match="no latent beside the noise; expected one"):
        denoiser(x, sigma, Conditioning())
