"""Spacings against diffusers, for every step count there is, and the promises every spacing keeps."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from tintype.diffusion.schedule import DDPM, EDM, DDPMConfig, EDMConfig, Flow, FlowConfig, Schedule
from tintype.diffusion.spacing import SPACINGS, ddim_uniform, exponential, karras, leading, leading_open

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' and numpy's

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD = DDPM(DDPMConfig())
SCHEDULES: dict[str, Schedule] = {
    "sd": SD,
    "zero snr": DDPM(DDPMConfig(zero_terminal_snr=True)),
    "cosine": DDPM(DDPMConfig(betas="cosine")),
    "250 steps": DDPM(DDPMConfig(steps=250)),
    "edm": EDM(EDMConfig()),
    "flow": Flow(FlowConfig()),
}
OPEN = ("linspace_open", "leading_open")  # take one step more, of which they leave out the last
LEADING = ("leading", "leading_open", "ddim_uniform")  # count from below, and may not reach the noisiest
ROUND = ("trailing", "linspace", "linspace_open", "beta_steps", "simple", "turbo", "time_uniform")
WALKING = (*LEADING, *ROUND, "lcm")  # have as many steps as there are training steps, or taught ones
NEEDING = (*WALKING, "lcm_strides")  # training steps
ALL = ("leading", "trailing", "linspace", "beta_steps", "simple", "turbo")  # and can take all of them
COUNTING = ("ddim_uniform", "time_uniform")  # more steps than asked for where those do not divide the training steps
ALIGNED = ("ays_sd1", "ays_sdxl", "ays_sd1_least", "ays_sdxl_least")  # found for Stable Diffusion's schedule


def most(name: str, schedule: Schedule) -> int:
    """Steps that a spacing has of a schedule."""
    return 50 if name == "lcm" else round(schedule.t_max - schedule.t_min) if name in OPEN else 1000


@pytest.mark.parametrize(("name", "offset"), [("leading", 1), ("trailing", 0), ("linspace", 0)])
def test_training_steps_equal_diffusers_for_every_count(name: str, offset: int) -> None:
    theirs = DDIMScheduler(**STABLE, timestep_spacing=name, steps_offset=offset)
    for steps in range(2, 1000):
        theirs.set_timesteps(steps)
        ours = SD.t(SPACINGS[name](SD, steps)[:-1])
        # numpy's arange rounds one step too many into some trailing spacings: diffusers goes on to timestep -1
        assert ours.round().int().tolist() == theirs.timesteps.tolist()[:steps], steps
        assert (ours - ours.round()).abs().max() < 1e-6


@pytest.mark.parametrize("steps", [7, 20, 30, 50])
@pytest.mark.parametrize(("name", "offset"), [("leading", 1), ("trailing", 0)])
def test_levels_equal_diffusers(name: str, offset: int, steps: int) -> None:
    theirs = EulerDiscreteScheduler(**STABLE, timestep_spacing=name, steps_offset=offset)
    theirs.set_timesteps(steps)
    torch.testing.assert_close(SPACINGS[name](SD, steps), theirs.sigmas.double(), rtol=3e-5, atol=0)


@pytest.mark.parametrize("steps", [2, 7, 20, 30, 50])
@pytest.mark.parametrize("name", ["karras", "exponential"])
def test_karras_and_exponential_equal_diffusers(name: str, steps: int) -> None:
    # They take their ends from the timesteps they replace; only linspace's are the schedule's own ends.
    flag = {f"use_{name}_sigmas": True}
    theirs = EulerDiscreteScheduler(**STABLE, timestep_spacing="linspace", **flag)
    theirs.set_timesteps(steps)
    torch.testing.assert_close(SPACINGS[name](SD, steps), theirs.sigmas.double(), rtol=3e-5, atol=0)


@pytest.mark.parametrize("steps", [2, 18, 40])
def test_karras_and_exponential_equal_the_papers(steps: int) -> None:
    schedule, i = EDM(EDMConfig()), np.arange(steps) / (steps - 1)
    paper = (80 ** (1 / 7) + i * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(karras(schedule, steps)[:-1], paper, rtol=1e-11)
    np.testing.assert_allclose(exponential(schedule, steps)[:-1], 80 * (0.002 / 80) ** i, rtol=1e-11)
    np.testing.assert_allclose(karras(schedule, steps, rho=1.0)[:-1], 80 + i * (0.002 - 80), rtol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
@pytest.mark.parametrize("name", SPACINGS)
def test_levels_fall_to_zero(schedule: Schedule, name: str) -> None:
    if name in NEEDING and isinstance(schedule, EDM):
        with pytest.raises(ValueError, match="no training steps to walk; use karras"):
            SPACINGS[name](schedule, 20)
        return
    if name in ALIGNED and schedule is not SD:
        with pytest.raises(ValueError, match=r"found for a schedule that ends at sigma 14\.6.*use karras"):
            SPACINGS[name](schedule, 20)
        return
    for steps in (1, 2, 3, 7, 20, 30, 48, 103, 250):
        if steps > most(name, schedule):
            continue
        sigmas = SPACINGS[name](schedule, steps)
        assert sigmas.dtype == torch.float64
        assert sigmas.device.type == "cpu"
        assert len(sigmas) == steps + 1 or name in COUNTING
        assert float(sigmas[-1]) == pytest.approx(schedule.sigma_min if name == "kl_optimal_least" else 0, rel=1e-9)
        assert bool((sigmas.diff() < 0).all()), (steps, sigmas)
        below = 0.01 if name in ALIGNED else 1e-9  # whose levels were published to three digits
        assert schedule.sigma_min * (1 - below) <= sigmas[-2]
        assert sigmas[0] <= schedule.sigma_max * (1 + 1e-4)


@pytest.mark.parametrize("name", SPACINGS)
def test_all_thousand_steps_fall_too(name: str) -> None:
    sigmas = SPACINGS[name](SD, min(1000, most(name, SD)))
    assert bool((sigmas.diff() < 0).all())
    if name in ALL:  # there is one way to take them all
        torch.testing.assert_close(sigmas[:-1].flip(0), SD.sigmas, rtol=1e-12, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
@pytest.mark.parametrize("name", [name for name in SPACINGS if name not in LEADING])
def test_all_that_count_from_above_start_at_the_noisiest(schedule: Schedule, name: str) -> None:
    if (name in NEEDING and not isinstance(schedule, DDPM)) or (name in ALIGNED and schedule is not SD):
        return  # a flow's last whole step lies below the cap of its last sigma
    for steps in (1, 2, 13, 50):
        assert float(SPACINGS[name](schedule, steps)[0]) == pytest.approx(schedule.sigma_max, rel=1e-4)


@pytest.mark.parametrize("steps", [1, 7, 20, 30, 499])
def test_leading_open_is_that_of_the_multistep_solvers(steps: int) -> None:
    theirs = DPMSolverMultistepScheduler(**STABLE, timestep_spacing="leading", steps_offset=1)
    theirs.set_timesteps(steps)
    assert SD.t(leading_open(SD, steps)[:-1]).round().tolist() == theirs.timesteps.tolist()


@pytest.mark.parametrize(("steps", "numbers"), [(20, 20), (30, 31), (7, 8), (999, 999)])
def test_ddim_uniform_takes_as_many_steps_as_there_are(steps: int, numbers: int) -> None:
    """As LDM's range(0, T, T // steps) + 1 does."""
    t = SD.t(ddim_uniform(SD, steps)[:-1]).round().int().tolist()
    assert t == list(range(1, 1000, 1000 // steps))[::-1]
    assert len(t) == numbers


def test_leading_takes_its_offset() -> None:
    assert SD.t(leading(SD, 4, offset=0)[:-1]).round().tolist() == [750, 500, 250, 0]
    assert SD.t(leading(SD, 4, offset=100)[:-1]).round().tolist() == [850, 600, 350, 100]


@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(name: str, steps: int) -> None:
    with pytest.raises(ValueError, match=f"{steps} steps.*use 1"):
        SPACINGS[name](SD, steps)


@pytest.mark.parametrize("name", WALKING)
def test_more_steps_than_there_are_are_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"1001 steps.*: use 1 to 50|1001 steps: this schedule has 1000; use 1 to 1000"
    ):
        SPACINGS[name](SD, 1001)


# A1111's own (modules/sd_schedulers.py) and Forge's, in numpy


def a1111_aligned(found: list[float], steps: int) -> list[float]:
    """Interpolated from the least up, then turned; eleven are taken as they are."""
    upwards = np.interp(np.linspace(0, 1, steps), np.linspace(0, 1, len(found)), np.log(found[::-1]))
    return [*np.exp(upwards)[::-1], 0.0]


@pytest.mark.parametrize("steps", [2, 10, 11, 25])
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ays_sd1_least", [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]),
        ("ays_sdxl_least", [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]),
    ],
)
def test_align_your_steps_as_a1111_has_it(name: str, found: list[float], steps: int) -> None:
    np.testing.assert_allclose(SPACINGS[name](SD, steps), a1111_aligned(found, steps), rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_kl_optimal_ends_at_the_least_level_in_a1111_and_at_zero_in_comfyui(steps: int) -> None:
    share = np.arange(steps + 1) / steps
    a1111 = np.tan(share * np.arctan(SD.sigma_min) + (1 - share) * np.arctan(SD.sigma_max))
    np.testing.assert_allclose(SPACINGS["kl_optimal_least"](SD, steps), a1111, rtol=1e-9)
    if steps > 1:
        share = np.arange(steps) / (steps - 1)
        comfy = np.tan(share * np.arctan(SD.sigma_min) + (1 - share) * np.arctan(SD.sigma_max))
        np.testing.assert_allclose(SPACINGS["kl_optimal"](SD, steps), [*comfy, 0], rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 3, 16, 20, 48, 1000])
def test_turbo_is_forge_s(steps: int) -> None:
    t = [min(max(round(number * (1000.0 / steps) - 1), 0), 999) for number in range(steps, 0, -1)]
    assert SD.t(SPACINGS["turbo"](SD, steps)[:-1]).round().int().tolist() == t


def test_time_uniform_takes_as_many_strides_as_ddim_uniform_has_steps() -> None:
    t = SD.t(SPACINGS["time_uniform"](SD, 12)[:-1])
    np.testing.assert_allclose(t, np.linspace(999, 0, 14), atol=1e-9)  # range(0, 1000, 83) has 13


@pytest.mark.parametrize("steps", [1, 4, 7, 50])
def test_lcm_strides_is_a1111_s(steps: int) -> None:
    table = np.log(SD.sigmas.numpy()[19::20])
    expected = np.exp(np.interp(np.linspace(49, 0, steps), np.arange(50), table))
    np.testing.assert_allclose(SPACINGS["lcm_strides"](SD, steps), [*expected, 0], rtol=1e-9)
