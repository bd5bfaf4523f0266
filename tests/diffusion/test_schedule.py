"""Schedules against numpy in float64, diffusers in float32, and themselves backwards."""

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from tintype.common.rng import generator
from tintype.diffusion.schedule import (
    DDPM,
    EDM,
    LAST_SIGNAL,
    Betas,
    DDPMConfig,
    EDMConfig,
    Flow,
    FlowConfig,
    Schedule,
    make_betas,
    make_schedule,
    zero_terminal_snr,
)

START, END, STEPS = 0.00085, 0.012, 1000
DIFFUSERS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
HO = DDPMConfig(betas="linear", start=1e-4, end=0.02)

SCHEDULES: dict[str, Schedule] = {
    **{kind: DDPM(DDPMConfig(betas=kind)) for kind in get_args(Betas)},
    "ho": DDPM(HO),
    "zero snr": DDPM(DDPMConfig(zero_terminal_snr=True)),
    "short": DDPM(DDPMConfig(steps=10)),
    "edm": EDM(EDMConfig()),
    "flow": Flow(FlowConfig()),
}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def betas_in_numpy(kind: Betas) -> np.ndarray:
    line = np.arange(STEPS) / (STEPS - 1)
    match kind:
        case "linear":
            return START + (END - START) * line
        case "scaled_linear":
            return (math.sqrt(START) + (math.sqrt(END) - math.sqrt(START)) * line) ** 2
        case "sqrt":
            return np.sqrt(START + (END - START) * line)
        case "cosine":
            kept = [math.cos((t / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(STEPS + 1)]
            return np.array([min(1 - after / before, 0.999) for before, after in itertools.pairwise(kept)])


@pytest.mark.parametrize("kind", get_args(Betas))
def test_betas_and_sigmas_equal_numpy_in_float64(kind: Betas) -> None:
    betas = make_betas(kind, start=START, end=END, steps=STEPS)
    assert betas.dtype == torch.float64
    np.testing.assert_allclose(betas, betas_in_numpy(kind), rtol=1e-11)
    kept = np.cumprod(1 - betas_in_numpy(kind))
    np.testing.assert_allclose(DDPM(DDPMConfig(betas=kind)).sigmas, np.sqrt((1 - kept) / kept), rtol=1e-10)


@pytest.mark.parametrize("kind", DIFFUSERS)
def test_signal_equals_diffusers_up_to_its_float32(kind: Betas) -> None:
    theirs = DDPMScheduler(beta_start=START, beta_end=END, beta_schedule=DIFFUSERS[kind]).alphas_cumprod.double()
    ours = 1 / (1 + DDPM(DDPMConfig(betas=kind)).sigmas ** 2)
    assert (ours / theirs - 1).abs()[:-1].max() < 1e-5
    # the last cosine step keeps a thousandth (beta is capped at 0.999), so float32 loses three digits of it
    assert abs(ours[-1] / theirs[-1] - 1) < 1e-4


@pytest.mark.parametrize("config", [DDPMConfig(), DDPMConfig(start=0.0015, end=0.0195), HO, DDPMConfig(betas="cosine")])
def test_zero_terminal_snr_equals_diffusers(config: DDPMConfig) -> None:
    betas = make_betas(config.betas, start=config.start, end=config.end, steps=config.steps)
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(betas), dim=0)  # in float64, given float64
    ours = zero_terminal_snr(torch.cumprod(1 - betas, dim=0))
    torch.testing.assert_close(ours[:-1], theirs[:-1], rtol=1e-9, atol=0)
    assert 0 < ours[-1] <= LAST_SIGNAL


def test_stable_diffusions_terminal_step_is_the_one_of_diffusers() -> None:
    theirs = EulerDiscreteScheduler(
        beta_start=START, beta_end=END, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )
    ours = DDPM(DDPMConfig(zero_terminal_snr=True))
    assert ours.sigma_max == pytest.approx(float(theirs.sigmas[0]), rel=1e-6) == pytest.approx(4096, rel=1e-6)


@pytest.mark.parametrize("config", [DDPMConfig(), HO, *(DDPMConfig(betas=kind) for kind in get_args(Betas))])
@pytest.mark.parametrize("zero", [False, True])
def test_noise_rises_at_every_training_step(config: DDPMConfig, zero: bool) -> None:
    ours = DDPM(DDPMConfig(betas=config.betas, start=config.start, end=config.end, zero_terminal_snr=zero))
    assert bool((ours.sigmas.diff() > 0).all())


@each_schedule
def test_t_and_sigma_are_inverse_at_fractions_too(schedule: Schedule) -> None:
    t = torch.linspace(schedule.t_min, schedule.t_max, 4321, dtype=torch.float64)
    sigma = schedule.sigma(t)
    assert sigma.dtype == torch.float64
    assert bool((sigma.diff() > 0).all())
    assert (schedule.t(sigma) - t).abs().max() < 1e-9 * (schedule.t_max - schedule.t_min)
    square = t[:6].reshape(2, 3)
    assert torch.equal(schedule.sigma(square), sigma[:6].reshape(2, 3))
    assert schedule.t(sigma[0]).shape == ()


@each_schedule
def test_the_ends_meet_and_clamp(schedule: Schedule) -> None:
    ends = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
    levels = torch.tensor([schedule.sigma_min, schedule.sigma_max], dtype=torch.float64)
    torch.testing.assert_close(schedule.sigma(ends), levels, rtol=1e-9, atol=0)
    torch.testing.assert_close(schedule.t(levels), ends, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(schedule.t(levels * torch.tensor([1e-3, 1e3])), ends, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(schedule.sigma(ends + torch.tensor([-1e3, 1e3])), levels, rtol=1e-9, atol=0)


def test_training_steps_are_the_whole_times_and_fractions_interpolate_log_sigma() -> None:
    schedule = DDPM(DDPMConfig())
    torch.testing.assert_close(schedule.t(schedule.sigmas), torch.arange(1000.0).double(), rtol=0, atol=1e-9)
    between = schedule.sigma(torch.tensor(500.25))
    expected = schedule.sigmas[500] ** 0.75 * schedule.sigmas[501] ** 0.25
    torch.testing.assert_close(between, expected, rtol=1e-12, atol=0)


def test_edm_tells_the_network_a_quarter_of_log_sigma() -> None:
    schedule = EDM(EDMConfig())
    assert float(schedule.t(torch.tensor(math.e, dtype=torch.float64))) == pytest.approx(0.25, rel=1e-12)
    assert (schedule.sigma_min, schedule.sigma_max) == (0.002, 80.0)


def test_flow_levels_equal_diffusers() -> None:
    s = FlowMatchEulerDiscreteScheduler().sigmas.flip(0).double()  # of t = 1 ... 1000
    ours = Flow(FlowConfig()).sigma(torch.arange(1, 1001))
    torch.testing.assert_close((ours / (1 + ours))[:-1], s[:-1], rtol=1e-6, atol=0)
    assert s[-1] == 1
    assert ours[-1] == 4096


def draws(schedule: Schedule, count: int) -> torch.Tensor:
    sigma = schedule.draw(count, generator("draws"))
    assert sigma.dtype == torch.float64
    assert sigma.shape == (count,)
    return sigma


def distance_to_uniform(values: torch.Tensor) -> float:
    """Kolmogorov's statistic times sqrt(n): above 1.95 once in a thousand."""
    line = (torch.arange(len(values)) + 0.5) / len(values)
    return float((values.sort().values - line).abs().max()) * math.sqrt(len(values))


def test_ddpm_draws_every_training_step_equally_often() -> None:
    schedule = DDPM(DDPMConfig(steps=10))
    counts = (draws(schedule, 100_000)[:, None] == schedule.sigmas).sum(dim=0)
    assert counts.sum() == 100_000
    assert (counts - 10_000).abs().max() < 4 * math.sqrt(9_000)


def test_ddpm_leaves_out_steps_above_sigma_max() -> None:
    whole, cut = DDPM(DDPMConfig(betas="cosine")), DDPM(DDPMConfig(betas="cosine", sigma_max=40.0))
    assert whole.sigma_max > 10_000
    assert 20 < cut.sigma_max <= 40
    assert torch.equal(cut.sigmas, whole.sigmas[: len(cut.sigmas)])
    assert cut.t_max == len(cut.sigmas) - 1
    assert draws(cut, 10_000).max() <= 40


def test_ddpm_draws_noise_more_often_with_an_exponent_below_one() -> None:
    schedule = DDPM(DDPMConfig(draw_exponent=0.5))
    share = (draws(schedule, 100_000) >= schedule.sigmas[750]).double().mean()
    assert share == pytest.approx(1 - 0.75**2, abs=0.01)


def test_edm_draws_log_normal_levels() -> None:
    deviate = (draws(EDM(EDMConfig()), 20_000).log() + 1.2) / 1.2
    assert distance_to_uniform(torch.special.ndtr(deviate)) < 1.95


def test_flow_draws_uniform_times() -> None:
    schedule = Flow(FlowConfig())
    sigma = draws(schedule, 20_000)
    assert distance_to_uniform(sigma / (1 + sigma)) < 1.95
    assert bool(((sigma >= schedule.sigma_min) & (sigma <= schedule.sigma_max)).all())


@each_schedule
def test_draws_are_a_function_of_the_generator_alone(schedule: Schedule) -> None:
    before = torch.get_rng_state()
    first, again, other = (schedule.draw(64, generator(key)) for key in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("config", "kind"), [(DDPMConfig(), DDPM), (EDMConfig(), EDM), (FlowConfig(), Flow)])
def test_a_configuration_makes_its_schedule(config: DDPMConfig | EDMConfig | FlowConfig, kind: type) -> None:
    assert isinstance(make_schedule(config), kind)


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        (DDPMConfig, {"betas": "linear", "end": 2.0}),
        (DDPMConfig, {"start": 0.02, "end": 0.01}),
        (DDPMConfig, {"steps": 1}),
        (DDPMConfig, {"draw_exponent": 0.0}),
        (EDMConfig, {"sigma_min": 0.0}),
        (EDMConfig, {"sigma_min": 2.0, "sigma_max": 1.0}),
        (FlowConfig, {"scale": 1.0}),
        (FlowConfig, {"sigma_max": 1e-4}),
    ],
)
def test_numbers_that_make_no_schedule_are_refused(kind: type, entries: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"schedule\.\w+ .*: expected"):
        kind(**entries)


def test_a_cap_that_leaves_no_steps_says_what_would_leave_some() -> None:
    with pytest.raises(ValueError, match=r"sigma_max 0.0001 leaves 0 of 1000 steps; expected 0\.04\d+ or more"):
        DDPM(DDPMConfig(sigma_max=0.0001))
