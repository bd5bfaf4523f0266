"""How often training meets a noise level, against the laws' own distributions."""

from collections.abc import Callable

import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling
from scipy import stats

from tintype.common.rng import generator
from tintype.diffusion.draws import STEEPEST_MODE, DrawsConfig, draw
from tintype.diffusion.schedule import DDPM, EDM, DDPMConfig, EDMConfig, Flow, FlowConfig, Schedule

COUNT = 20_000
FLOW = Flow(FlowConfig(sigma_max=1e6, scale=1e6))  # so wide that hardly a draw is cut
SCHEDULES = (DDPM(DDPMConfig()), FLOW, EDM(EDMConfig()))


def drawn(config: DrawsConfig, schedule: Schedule) -> torch.Tensor:
    return draw(config, schedule, COUNT, generator("draws"))


def assert_law(values: torch.Tensor, cdf: Callable[[object], object]) -> None:
    """Kolmogorov and Smirnov: the draws are not told from the law, and are from one that is 5 % wider."""
    assert stats.kstest(values.numpy(), cdf).pvalue > 0.01
    assert stats.kstest(1.05 * values.numpy(), cdf).pvalue < 0.01


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 0.6)])
def test_logit_normal_times_are_log_normal_levels(mean: float, std: float) -> None:
    """The logit of a flow's time is log sigma: the law of Stable Diffusion 3 is EDM's."""
    for law in ("logit_normal", "log_normal"):
        sigma = drawn(DrawsConfig(law=law, mean=mean, std=std), FLOW)
        assert_law((sigma.log() - mean) / std, stats.norm.cdf)


@pytest.mark.parametrize("scale", [-0.9, 0.5, 1.29])
def test_mode_draws_have_the_papers_distribution(scale: float) -> None:
    """Its cdf is the inverse of f(u), which falls; here solved by bisection."""
    sigma = drawn(DrawsConfig(law="mode", scale=scale), FLOW)

    def cdf(time: object) -> torch.Tensor:
        wanted = torch.as_tensor(time, dtype=torch.float64)
        low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
        for _ in range(50):
            u = (low + high) / 2
            above = 1 - u - scale * (torch.cos(torch.pi / 2 * u) ** 2 - 1 + u) > wanted
            low, high = torch.where(above, u, low), torch.where(above, high, u)
        return (1 - low).numpy()

    assert_law(sigma / (1 + sigma), cdf)


@pytest.mark.parametrize("law", ["logit_normal", "mode"])
def test_times_are_diffusers_own(law: str) -> None:
    """Their training scripts' shares of time from the same random numbers."""
    config = DrawsConfig(law=law, mean=0.3, std=0.8)
    theirs = compute_density_for_timestep_sampling(law, 64, 0.3, 0.8, config.scale, generator=generator("same"))
    numbers = torch.normal(0.3, 0.8, (64,), generator=generator("same"))
    if law == "mode":
        numbers = torch.rand(64, generator=generator("same"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *_, **__: numbers.double())
        patch.setattr(torch, "randn", lambda *_, **__: (numbers.double() - 0.3) / 0.8)
        sigma = draw(config, FLOW, 64, generator("any"))
    torch.testing.assert_close((sigma / (1 + sigma)).float(), theirs, rtol=1e-5, atol=1e-6)


def test_training_steps_are_met_as_often_as_their_share_of_the_law() -> None:
    schedule = DDPM(DDPMConfig())
    sigma = drawn(DrawsConfig(law="logit_normal", mean=0.5, std=0.7), schedule)
    assert torch.isin(sigma, schedule.sigmas).all()
    steps = torch.searchsorted(schedule.sigmas, sigma)
    for edge in (250, 500, 750):
        share = stats.norm.cdf((torch.tensor(edge / 1000).logit().item() - 0.5) / 0.7)
        assert (steps < edge).double().mean() == pytest.approx(share, abs=0.012)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_levels_stay_within_the_schedule_and_rise_with_the_share(schedule: Schedule) -> None:
    sigma = drawn(DrawsConfig(law="log_normal", std=30.0), schedule)
    assert (sigma.min(), sigma.max()) == (schedule.sigma_min, schedule.sigma_max)
    levels = schedule.at(torch.linspace(0, 1, 999, dtype=torch.float64))
    assert (levels.diff() > 0).all()
    assert levels[0] == pytest.approx(schedule.sigma_min)
    assert levels[-1] == pytest.approx(schedule.sigma_max)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedules_own_draws_stay_its_own(schedule: Schedule) -> None:
    own = schedule.draw(COUNT, generator("draws"))
    assert torch.equal(drawn(DrawsConfig(), schedule), own)


@pytest.mark.parametrize("wrong", [{"std": 0.0}, {"scale": -1.1}, {"scale": STEEPEST_MODE + 0.01}])
def test_what_is_no_law_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"draws\..*expected"):
        DrawsConfig(**wrong)
