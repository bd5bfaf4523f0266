"""A name means its program's picture: the whole way from a request to the latents that are decoded, against diffusers'
schedulers driven as its pipelines drive them, made from Stable Diffusion's own scheduler file.

They fail when the first noise is of another size, a time is rounded where theirs is not (or the reverse), the last step
leads elsewhere, a spacing starts or ends elsewhere, or the latents that are decoded have another scale.
"""

import dataclasses
import inspect
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar

import diffusers
import numpy as np
import pytest
import torch
from karras_oracle import k_diffusion_samplers
from torch import Tensor

import tintype
from tintype.common.rng import Noise
from tintype.diffusion.denoiser import Denoiser
from tintype.diffusion.names import A1111, COMFY, DIFFUSERS, spacing_label
from tintype.diffusion.samplers import SAMPLERS
from tintype.diffusion.scaling import SCALINGS, Prediction
from tintype.diffusion.schedule import DDPM, DDPMConfig
from tintype.families.base import LatentDiffusion
from tintype.families.stable_diffusion import SDXL
from tintype.generation import latents
from tintype.tasks import plan
from tintype.tasks.task import resolve

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' and numpy's

THEIRS = k_diffusion_samplers()
SEEDS = (5, 6)
MIX = torch.eye(16) * 0.7 + 0.15 * torch.randn(16, 16, generator=torch.Generator().manual_seed(2))
# huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5, scheduler/scheduler_config.json
FILE = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
SAID: dict[Prediction, str] = {"eps": "epsilon", "v": "v_prediction"}


def network(x: Tensor, t: Tensor) -> Tensor:
    """Bounded, curved in x and t, mixing channels."""
    mixed = torch.einsum("oc,bchw->bohw", MIX, x)
    return torch.tanh(mixed + 0.3 * torch.cos(t.float() / 150).reshape(-1, 1, 1, 1))


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "Noise", Recorded)
    Recorded.kept.clear()


@pytest.fixture(scope="module")
def default() -> LatentDiffusion:
    return tintype.load("default")


def stable(default: LatentDiffusion, prediction: Prediction, spacing: str | None = None) -> LatentDiffusion:
    """A model that samples as Stable Diffusion does, around the network above; `spacing` as SDXL's file has one."""
    unet = dataclasses.replace(default.config.unet, in_channels=16)  # no mask beside the noise
    config = dataclasses.replace(
        default.config,
        unet=unet,
        further=(),
        conventions="diffusers",
        scheduler=None,
        schedule=DDPMConfig(),
        spacing=spacing,
    )
    denoiser = Denoiser(lambda x, t, context, vector: network(x, t), DDPM(DDPMConfig()), SCALINGS[prediction])
    return dataclasses.replace(default, config=config, denoiser=denoiser)


def ours(default: LatentDiffusion, prediction: Prediction, *, spacing: str | None = None, **asked: object) -> Tensor:
    model = stable(default, prediction, spacing)
    request = resolve(model, tintype.Request(seed=SEEDS[0], batch_size=2, width=32, height=32, cfg_scale=1.0, **asked))
    return latents(model, request, deque(tintype.steps(model, request), maxlen=1).pop())


def theirs(
    kind: type[diffusers.SchedulerMixin], prediction: Prediction, steps: int, draws: list[Tensor], **settings: object
) -> Tensor:
    loaded = diffusers.PNDMScheduler.from_config(FILE | {"prediction_type": SAID[prediction]})
    scheduler = kind.from_config(loaded.config, **settings)
    scheduler.set_timesteps(steps)
    streams = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    seeded = "generator" in kind.step.__code__.co_varnames
    x = torch.cat([torch.randn(1, 16, 4, 4, generator=stream) for stream in streams]) * scheduler.init_noise_sigma
    if kind is diffusers.DPMSolverSDEScheduler:
        scheduler.noise_sampler = given(draws[1:])
    left = iter(draws[1:])
    for t in scheduler.timesteps:
        said = network(scheduler.scale_model_input(x, t), t)
        extra: dict[str, object] = {"generator": streams} if seeded else {}
        if settings.get("algorithm_type") == "sde-dpmsolver++":  # theirs draws at every step, and ours from a path
            extra["variance_noise"] = next(left, torch.zeros_like(x))
        x = scheduler.step(said, t, x, **extra).prev_sample
    return x


def given(draws: list[Tensor]) -> Callable[[object, object], Tensor]:
    left = iter(draws)
    return lambda sigma, to: next(left)


def same(mine: Tensor, other: Tensor, tolerance: float = 1e-5) -> None:
    assert float((mine - other).abs().max() / other.abs().max()) < tolerance


class Recorded(Noise):
    """What was drawn and what Brownian paths did, kept for theirs (torchsde resolves levels to six digits, and float32
    levels fall on either side)."""

    kept: ClassVar[list[Tensor]] = []

    def first(self, shape: Sequence[int]) -> Tensor:
        self.kept.append(super().first(shape))
        return self.kept[-1]

    def normal(self, shape: Sequence[int]) -> Tensor:
        self.kept.append(super().normal(shape))
        return self.kept[-1]

    def brownian(self, shape: Sequence[int], low: float, high: float) -> Callable[[float, float], Tensor]:
        path = super().brownian(shape, low, high)

        def increment(sigma: float, to: float) -> Tensor:
            self.kept.append(path(sigma, to))
            return self.kept[-1]

        return increment


EULER = ("leading", "trailing", "linspace", "karras", "exponential", "beta")
SPACINGS = {  # DDIM, DDPM and PNDM are right in strides of 1000 // steps alone
    "DDIMScheduler": ("leading", "trailing"),
    "DDPMScheduler": ("leading", "trailing"),
    "PNDMScheduler": ("leading", "trailing"),
    "EulerAncestralDiscreteScheduler": ("leading", "trailing", "linspace"),
    "DPMSolverSinglestepScheduler": ("linspace", "karras", "exponential", "beta"),
    "DPMSolverMultistepScheduler": (*EULER, "lu_lambdas"),
    "LCMScheduler": (),
    "TCDScheduler": (),
}
OF_OURS: dict[str, tuple[type[diffusers.SchedulerMixin], dict[str, object]]] = {
    **{one.sampler: (getattr(diffusers, name), {}) for name, one in DIFFUSERS.items()},
    "dpmpp_2m_sde": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": False}),
    "unipc_bh2": (diffusers.UniPCMultistepScheduler, {"solver_order": 3}),
}
CASES = [(name, spacing, 10) for name in DIFFUSERS for spacing in (None, *SPACINGS.get(name, EULER))]
CASES += [("DPMSolverSinglestepScheduler", None, 11)]
CASES += [(name, None, 20) for name in DIFFUSERS if "step" in name]  # some lower their order below 15 alone
predictions = pytest.mark.parametrize("prediction", ["eps", "v"])


def settings_of(spacing: str | None) -> dict[str, object]:
    if spacing is None:
        return {}
    named = spacing in ("leading", "trailing", "linspace")
    flag = "use_lu_lambdas" if spacing == "lu_lambdas" else f"use_{spacing}_sigmas"
    return {"timestep_spacing": spacing} if named else {flag: True}


@predictions
@pytest.mark.parametrize(("name", "spacing", "steps"), CASES)
def test_a_class_of_diffusers_means_its_picture(
    default: LatentDiffusion, name: str, spacing: str | None, steps: int, prediction: Prediction
) -> None:
    mine = ours(default, prediction, sampler=name, scheduler=spacing, steps=steps)
    other = theirs(getattr(diffusers, name), prediction, steps, Recorded.kept, **settings_of(spacing))
    # Half-way of an ancestral step is the next level itself, which theirs rounds only when it comes to it
    same(mine, other, tolerance=1e-4 if (name, spacing) == ("KDPM2AncestralDiscreteScheduler", "karras") else 1e-5)


WITHIN = [name for name in DIFFUSERS if "karras" in SPACINGS.get(name, EULER)]


@pytest.mark.parametrize(
    ("spacing", "walked"), [("karras", "leading"), ("beta", "leading"), ("exponential", "trailing")]
)
@pytest.mark.parametrize("name", WITHIN)
def test_levels_lie_where_the_class_lays_them_on_a_model_of_other_training_steps(
    default: LatentDiffusion, name: str, spacing: str, walked: str
) -> None:
    """Euler's kin lay Karras' levels between the ends of SDXL's leading steps, the multistep solvers do not."""
    mine = ours(default, "eps", spacing=walked, sampler=name, scheduler=spacing, steps=5)
    settings = settings_of(walked) | settings_of(spacing)
    if name == "DPMSolverSinglestepScheduler":
        del settings["timestep_spacing"]  # which it does not know
    other = theirs(getattr(diffusers, name), "eps", 5, Recorded.kept, **settings)
    same(mine, other, tolerance=1e-4)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name in OF_OURS])
def test_our_name_means_the_picture_of_the_class_that_has_it(default: LatentDiffusion, name: str) -> None:
    mine = ours(default, "eps", sampler=name, steps=10)
    kind, settings = OF_OURS[name]
    same(mine, theirs(kind, "eps", 10, Recorded.kept, **settings))


def test_the_spacing_comes_from_the_request_the_name_or_the_family(default: LatentDiffusion) -> None:
    def taken(name: str | None, asked: str | None = None, **settings: object) -> str | None:
        model = stable(default, "eps")
        model = dataclasses.replace(model, config=dataclasses.replace(model.config, **settings))
        return resolve(model, tintype.Request(sampler=name, scheduler=asked)).scheduler

    settings = {"sampler": "dpmpp_2m", "scheduler": "karras"}
    assert taken(None, **settings) == "karras"  # the default sampler's, and no other's
    assert taken("euler", **settings) == taken("EulerDiscreteScheduler", **settings) == "linspace"
    sdxl: dict[str, object] = settings | {"spacing": "leading"}  # as its scheduler file says
    assert taken("euler", **sdxl) == taken("EulerDiscreteScheduler", **sdxl) == "leading"
    assert taken("Euler", **sdxl) == "uniform"
    assert taken("lcm", **sdxl) == "lcm"
    assert taken("euler", "Karras", **sdxl) == taken("Euler Karras", **sdxl) == "karras"
    assert taken("euler", conventions="plain", **settings) == "karras"
    assert taken("Euler", conventions="plain", **settings) == "uniform"


def test_two_spacings_are_refused_and_unknown_names_are_told_the_nearest(default: LatentDiffusion) -> None:
    with pytest.raises(ValueError, match=r"'DPM\+\+ 2M Karras' and scheduler 'exponential': two spacings; name one"):
        resolve(default, tintype.Request(sampler="DPM++ 2M Karras", scheduler="exponential"))
    assert resolve(default, tintype.Request(sampler="dpm++ 2m karras", scheduler="Karras")).sampler == "DPM++ 2M"
    for wrong, near in ({"sampler": "DPM++ 2N"}, r"DPM\+\+ 2M"), ({"scheduler": "karas"}, "karras"):
        with pytest.raises(ValueError, match=f"unknown {next(iter(wrong))} .*{near}"):
            resolve(default, tintype.Request(**wrong))


# --- A1111 ------------------------------------------------------------------------------------------------------------

TABLE: list[float] = DDPM(DDPMConfig()).sigmas.tolist()
LOW, HIGH = TABLE[0], TABLE[-1]


def denoise(x: Tensor, sigma: float | Tensor, **_: object) -> Tensor:
    """CompVisDenoiser: the time is not rounded."""
    level = float(torch.as_tensor(sigma).flatten()[0])
    t = torch.tensor([np.interp(np.log(level), np.log(TABLE), np.arange(1000))])
    return x - level * network(x / (1 + level**2) ** 0.5, t)


def levels_of(schedule: str, steps: int) -> Tensor:
    match schedule:
        case "Karras":
            return THEIRS.get_sigmas_karras(steps, LOW, HIGH)
        case "Exponential":
            return THEIRS.get_sigmas_exponential(steps, LOW, HIGH)
        case _:  # CompVisDenoiser.get_sigmas
            t = np.linspace(999, 0, steps)
            return THEIRS.append_zero(torch.from_numpy(np.exp(np.interp(t, np.arange(1000), np.log(TABLE))))).float()


def a1111(function: str, sigmas: Tensor, **options: object) -> Tensor:
    first, *draws = Recorded.kept
    if "noise_sampler" in inspect.signature(getattr(THEIRS, function)).parameters:
        options["noise_sampler"] = given(draws)
    return getattr(THEIRS, function)(denoise, first * sigmas[0], sigmas, disable=True, **options)


@pytest.mark.parametrize(
    ("name", "function", "schedule", "skipped", "options"),
    [
        ("Euler a", "euler_ancestral", "", False, {}),
        ("Euler", "euler", "", False, {}),
        ("LMS", "lms", "", False, {}),
        ("Heun", "heun", "", False, {}),
        ("DPM2", "dpm_2", "Karras", True, {}),
        ("DPM2 a", "dpm_2_ancestral", "Karras", True, {}),
        ("DPM++ 2S a", "dpmpp_2s_ancestral", "Karras", False, {}),
        ("DPM++ 2M", "dpmpp_2m", "Karras", False, {}),
        ("DPM++ SDE", "dpmpp_sde", "Karras", False, {}),
        ("DPM++ 2M SDE", "dpmpp_2m_sde", "Exponential", False, {}),
        ("DPM++ 2M SDE Heun", "dpmpp_2m_sde", "Exponential", False, {"solver_type": "heun"}),
        ("DPM++ 3M SDE", "dpmpp_3m_sde", "Exponential", True, {}),
        ("DPM++ 2M SDE Heun Exponential", "dpmpp_2m_sde", "Exponential", False, {"solver_type": "heun"}),
        ("Euler a Karras", "euler_ancestral", "Karras", False, {}),
        ("DPM2 Exponential", "dpm_2", "Exponential", True, {}),
    ],
)
def test_a_name_of_a1111_means_its_picture(
    default: LatentDiffusion, name: str, function: str, schedule: str, skipped: bool, options: dict[str, object]
) -> None:
    mine = ours(default, "eps", sampler=name, steps=12)
    sigmas = levels_of(schedule, 12 + skipped)
    if skipped:  # discard_next_to_last_sigma
        sigmas = torch.cat((sigmas[:-2], sigmas[-1:]))
    same(mine, a1111(f"sample_{function}", sigmas, **options), tolerance=1e-4)


def test_a1111_s_dpm_fast_draws_noise(default: LatentDiffusion) -> None:
    """It gives eta 1 to every sampler that takes one, also to those whose own is 0."""
    mine = ours(default, "eps", sampler="DPM fast", steps=12)
    first, *draws = Recorded.kept
    assert draws
    noise = given([*draws, torch.zeros_like(first)])  # theirs asks once more, and takes none of it
    other = THEIRS.sample_dpm_fast(denoise, first * HIGH, LOW, HIGH, 12, disable=True, eta=1.0, noise_sampler=noise)
    same(mine, other, tolerance=1e-4)


@pytest.mark.parametrize(("steps", "walked"), [(10, 9), (30, 30)])
def test_a1111_s_ddim_never_takes_the_last_step(default: LatentDiffusion, steps: int, walked: int) -> None:
    """From one training step 1, 1 + 1000 // steps, ... to the one before, in the coordinates of its own loop."""
    mine = ours(default, "eps", sampler="DDIM", steps=steps)
    numbers = list(range(1, 1000, 1000 // steps))
    assert len(numbers) == walked + 1
    kept, x = [1 / (1 + sigma**2) for sigma in TABLE], Recorded.kept[0]
    for number, before in reversed(list(itertools.pairwise(numbers))):  # from `before` down to `number`
        said = network(x, torch.tensor([before]))
        x0 = (x - (1 - kept[before]) ** 0.5 * said) / kept[before] ** 0.5
        x = kept[number] ** 0.5 * x0 + (1 - kept[number]) ** 0.5 * said
    same(mine, x)
    with pytest.raises(ValueError, match=r"1 steps: .*use 2 or more"):
        ours(default, "eps", sampler="DDIM", steps=1)


def unipc_along(sigmas: np.ndarray, t: np.ndarray, kind: str, first: Tensor) -> Tensor:
    """diffusers' UniPC of order 3 made to walk these levels, on signal and noise of unit variance."""
    theirs = diffusers.UniPCMultistepScheduler(solver_order=3, solver_type=kind, final_sigmas_type="sigma_min")
    theirs.set_timesteps(len(t))
    theirs.sigmas, theirs.timesteps = torch.from_numpy(sigmas).float(), torch.from_numpy(t)
    x = first
    for time in theirs.timesteps:
        x = theirs.step(network(x, time), time, x).prev_sample
    return x


@pytest.mark.parametrize(("steps", "walked"), [(10, 10), (12, 13)])
def test_a1111_s_unipc_walks_continuous_time_to_its_least(default: LatentDiffusion, steps: int, walked: int) -> None:
    """NoiseScheduleVP's own: log alpha linear between training steps 1/1000, ..., 1."""
    mine = ours(default, "eps", sampler="UniPC", steps=steps)
    t = np.linspace(1, 1 / 1000, walked + 1)
    log_alpha = np.interp(t, np.arange(1, 1001) / 1000, -0.5 * np.log1p(np.square(TABLE)))
    sigmas = np.sqrt(np.expm1(-2 * log_alpha))
    same(mine, unipc_along(sigmas, t[:-1] * 1000 - 1, "bh1", Recorded.kept[0]), tolerance=1e-4)


@pytest.mark.parametrize(("name", "kind"), [("uni_pc", "bh1"), ("uni_pc_bh2", "bh2")])
def test_comfyui_s_unipc_ends_at_a_thousandth(default: LatentDiffusion, name: str, kind: str) -> None:
    mine = ours(default, "eps", sampler=name, scheduler="normal", steps=12)
    t = np.linspace(999, 0, 12)
    sigmas = np.append(np.exp(np.interp(t, np.arange(1000), np.log(TABLE))), 0.001)
    same(mine, unipc_along(sigmas, t, kind, Recorded.kept[0]))


def test_a1111_s_lcm_tells_the_network_the_nearest_taught_step(default: LatentDiffusion) -> None:
    """LCMCompVisDenoiser: its levels lie between those of the fifty taught steps."""
    mine = ours(default, "eps", sampler="LCM", steps=6)
    taught = np.log(TABLE[19::20])
    sigmas = [*np.exp(np.interp(np.linspace(49, 0, 6), np.arange(50), taught)), 0.0]
    first, *draws = Recorded.kept
    x = first * sigmas[0]
    for sigma, to, drawn in zip(sigmas, sigmas[1:], [*draws, torch.zeros_like(x)], strict=False):
        t = int(np.abs(np.log(sigma) - taught).argmin()) * 20 + 19
        skip = 0.25 / ((10 * t) ** 2 + 0.25)
        eps = network(x / (1 + sigma**2) ** 0.5, torch.tensor([t]))
        x = (1 - skip) ** 0.5 * (x - sigma * eps) + skip * x + to * drawn
    same(mine, x, tolerance=1e-4)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("k_euler_a", ("Euler a", "uniform")),
        ("k_dpmpp_2m_ka", ("DPM++ 2M", "karras")),
        ("K_DPM_AD", ("DPM adaptive", "uniform")),
        ("DPM++ 2M Align Your Steps", ("DPM++ 2M", "ays_sd1_least")),
        ("Euler SGMUniform", ("Euler", "sgm_uniform")),
        ("Euler KL Optimal", ("Euler", "kl_optimal_least")),
        ("DPM++ 2M SDE Turbo", ("DPM++ 2M SDE", "turbo")),
    ],
)
def test_a1111_s_other_names(default: LatentDiffusion, name: str, meant: tuple[str, str]) -> None:
    request = resolve(stable(default, "eps"), tintype.Request(sampler=name))
    assert (request.sampler, request.scheduler) == meant


def test_align_your_steps_is_that_of_the_family(default: LatentDiffusion) -> None:
    model = stable(default, "eps")
    xl = dataclasses.replace(model, config=dataclasses.replace(model.config, conditioner=SDXL.conditioner))
    for asked in ({"sampler": "DPM++ 2M Align Your Steps"}, {"sampler": "Euler", "scheduler": "align your steps"}):
        assert resolve(model, tintype.Request(**asked)).scheduler == "ays_sd1_least"
        resolved = resolve(xl, tintype.Request(**asked))
        assert resolved.scheduler == "ays_sdxl_least"
        assert resolve(xl, resolved) == resolved
    assert spacing_label("ays_sdxl_least") == spacing_label("ays_sd1_least") == "Align Your Steps"


def test_every_name_resolves_and_stays_what_it_is(default: LatentDiffusion) -> None:
    model = stable(default, "eps")
    for name in [*SAMPLERS, *DIFFUSERS, *A1111, *COMFY]:
        resolved = resolve(model, tintype.Request(sampler=name, seed=1, prompt="a frog"))
        assert resolved.sampler == name
        assert resolve(model, resolved) == resolved
