"""Samplers, all of the registry: exact solutions, diffusers step by step, and the promises every one keeps."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_lms_discrete
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler
from torch import Tensor

from tintype.common.rng import Noise
from tintype.diffusion.denoiser import Conditioning, Denoise, Denoiser
from tintype.diffusion.samplers import SAMPLERS
from tintype.diffusion.scaling import SCALINGS, Prediction
from tintype.diffusion.schedule import DDPM, DDPMConfig, Flow, FlowConfig
from tintype.diffusion.spacing import SPACINGS
from tintype.diffusion.step import Step

Network = Callable[[Tensor, Tensor], Tensor]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' and numpy's

# --- what each sampler claims -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """order: of convergence, None where fresh noise enters by default (linear multistep methods have order 4 within but
    begin with a lower one, which is what remains). exact: the slope dx/dsigma is integrated exactly where it is a
    polynomial of sigma of this degree (on equal steps, once the history is full). calls: of the denoiser in n steps to
    zero. own: it chooses its own levels. distilled: it takes x0 for a picture, which only a distilled network gives.
    stops: where the last level above zero is, with its noise. paced: as many steps as it needs, the same for a batch.
    """

    order: int | None
    exact: int | None = None
    calls: Callable[[int], int] = lambda n: n
    own: bool = False
    distilled: bool = False
    stops: bool = False
    paced: bool = False


CLAIMS = {
    "ddim": Claim(1, exact=0),
    "ddpm": Claim(None),
    "deis": Claim(2, exact=0),
    "dpm_2": Claim(2, exact=0, calls=lambda n: 2 * n - 1),
    "dpm_2_ancestral": Claim(None, calls=lambda n: 2 * n - 1),
    "dpm_adaptive": Claim(0, own=True, stops=True, paced=True),
    "dpm_fast": Claim(3, own=True, stops=True),
    "dpmpp_2m": Claim(2, exact=0),
    "dpmpp_2m_sde": Claim(None),
    "dpmpp_2m_sde_heun": Claim(None),
    "dpmpp_2s": Claim(2, exact=0),
    "dpmpp_2s_ancestral": Claim(None, calls=lambda n: 2 * n - 1),
    "dpmpp_3m_sde": Claim(None),
    "dpmpp_sde": Claim(None, calls=lambda n: 2 * n - 1),
    "euler": Claim(1, exact=0),
    "euler_ancestral": Claim(None),
    "heun": Claim(2, exact=1, calls=lambda n: 2 * n - 1),
    "ipndm": Claim(2, exact=3),
    "lcm": Claim(None, distilled=True),
    "lms": Claim(2, exact=3),
    "plms": Claim(2, exact=3, calls=lambda n: n + 1),
    "pndm": Claim(2, exact=3, calls=lambda n: n + 9),
    "restart": Claim(None, calls=lambda n: 2 * n - 1, own=True),
    "tcd": Claim(None, distilled=True),
    "unipc": Claim(2, exact=0),
    "unipc_bh1": Claim(2, exact=0),
    "unipc_bh2": Claim(2, exact=0),
}


def claim(name: str) -> Claim:
    if name not in CLAIMS:
        pytest.fail(f"sampler {name!r} claims nothing: add its order (None if it draws noise) to CLAIMS in {__file__}")
    return CLAIMS[name]


every = pytest.mark.parametrize("name", SAMPLERS)
steady = pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in CLAIMS or CLAIMS[name].order])


def sampled(name: str, denoise: Denoise, x: Tensor, sigmas: Tensor, seed: int = 0, **options: float) -> list[Step]:
    noise = Noise([seed + row for row in range(len(x))])
    return list(SAMPLERS[name](denoise, x, sigmas, noise, **clock(name), **options))


def clock(name: str) -> dict[str, DDPM]:
    """The schedule, for samplers that walk its time."""
    return {"schedule": SD} if "schedule" in SAMPLERS[name].__annotations__ else {}


def falling(first: float, last: float, steps: int) -> Tensor:
    """Equal strides of log sigma that stop above zero."""
    return torch.linspace(math.log(first), math.log(last), steps + 1, dtype=torch.float64).exp()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- exact solutions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, std^2): denoiser and probability-flow ODE in closed form."""

    mean: Tensor
    std: Tensor

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self.mean + self.std**2 / (self.std**2 + sigma**2) * (x - self.mean)

    def carried(self, x: Tensor, sigma: float, to: float) -> Tensor:
        return self.mean + (x - self.mean) * ((self.std**2 + to**2) / (self.std**2 + sigma**2)).sqrt()


FOUR = Gaussian(mean=torch.tensor([-1.0, 0.0, 0.5, 2.0]).double(), std=torch.tensor([0.3, 0.7, 1.0, 2.0]).double())


FOUR_WIDE = Gaussian(mean=torch.tensor(0.5).double(), std=torch.tensor(0.8).double())


def error_of(name: str, steps: int) -> float:
    first, last = 14.0, 0.05
    x = FOUR.mean + normal(1, 1, 1, 4, seed=3) * (FOUR.std**2 + first**2).sqrt()
    found = sampled(name, FOUR.denoise, x, falling(first, last, steps))[-1].x
    assert found.dtype == torch.float64  # a sampler that rounds to float32 would hide its order
    return float((found - FOUR.carried(x, first, last)).abs().max())


@steady
def test_error_falls_with_the_order_claimed(name: str) -> None:
    order = claim(name).order
    assert order is not None
    few, many = error_of(name, 401), error_of(name, 803)  # the same remainder by 3, which dpm_fast steps by
    assert math.log2(few / many) == pytest.approx(order, abs=0.15), (few, many)


@steady
def test_slopes_that_are_polynomials_of_sigma_are_integrated_exactly(name: str) -> None:
    degree = claim(name).exact
    if degree is None:
        pytest.skip("claims no degree")
    sigmas = torch.linspace(3, 1, 12, dtype=torch.float64)
    steps = sampled(name, lambda x, sigma: x - sigma * sigma**degree, normal(1, 1, 2, 2), sigmas)
    for before, after in itertools.pairwise(steps[3:]):  # four slopes are known from here on
        moved = (after.sigma ** (degree + 1) - before.sigma ** (degree + 1)) / (degree + 1)
        torch.testing.assert_close(after.x - before.x, torch.full_like(after.x, moved), rtol=1e-11, atol=0)


def test_lms_is_exact_on_unequal_steps_where_plms_is_not() -> None:
    sigmas = falling(3, 1, 8)
    moved = float(sigmas[8] ** 4 - sigmas[7] ** 4) / 4
    last = {
        name: sampled(name, lambda x, sigma: x - sigma * sigma**3, torch.zeros(1, 1, 1, 1).double(), sigmas)
        for name in ("lms", "plms")
    }
    assert float(last["lms"][-1].x - last["lms"][-2].x) == pytest.approx(moved, rel=1e-11)
    assert float(last["plms"][-1].x - last["plms"][-2].x) != pytest.approx(moved, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in SAMPLERS]
    + [(name, {"eta": eta}) for name in SAMPLERS for eta in (0.3, 0.8) if "eta" in SAMPLERS[name].__annotations__],
    ids=str,
)
def test_noise_around_a_known_picture_stays_noise_of_that_level(name: str, options: dict[str, float]) -> None:
    """If the denoiser always knows x0, x - x0 must have variance sigma^2 after every step, and vanish at 0."""
    x0, sigmas = torch.full((1, 4, 50, 50), 1.3).double(), torch.cat((falling(14, 0.05, 9), torch.zeros(1)))
    drawn = normal(1, 4, 50, 50)
    for step in sampled(name, lambda x, sigma: x0, x0 + 14 * drawn, sigmas, **options):
        if claim(name).order is not None and not options:
            torch.testing.assert_close(step.x, x0 + step.sigma * drawn, rtol=1e-12, atol=1e-12)
        elif step.sigma:
            z = (step.x - x0) / step.sigma
            assert abs(float(z.mean())) < 4 / 100
            assert abs(float(z.var()) - 1) < 4 * (2 / 10_000) ** 0.5
    if not claim(name).stops:
        torch.testing.assert_close(step.x, x0, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in CLAIMS if CLAIMS[name].order is None and not CLAIMS[name].distilled])
def test_noise_drawing_samplers_reach_the_data_distribution(name: str) -> None:
    data, side = Gaussian(torch.tensor(1.3).double(), torch.tensor(0.7).double()), 200
    sigmas = torch.cat((falling(14, 0.05, 200), torch.zeros(1)))
    x = 1.3 + normal(1, 1, side, side) * (0.7**2 + 14**2) ** 0.5
    [*_, last] = sampled(name, data.denoise, x, sigmas)
    error = 0.7 / side
    assert float(last.x.mean()) == pytest.approx(1.3, abs=4 * error)
    assert float(last.x.std()) == pytest.approx(0.7, abs=4 * error / 2**0.5 + 0.007)  # 1 %: 200 steps are not infinite
    z = (last.x - last.x.mean()) / last.x.std()
    assert float((z**3).mean()) == pytest.approx(0, abs=4 * (6 / side**2) ** 0.5)
    assert float((z**4).mean()) == pytest.approx(3, abs=4 * (24 / side**2) ** 0.5)


# --- diffusers, step by step ------------------------------------------------------------------------------------------

SD = DDPM(DDPMConfig())
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NAMES: dict[Prediction, str] = {"eps": "epsilon", "v": "v_prediction"}
Scheduler = diffusers.SchedulerMixin

# DDIM and PNDM take every step to be 1000 // steps long, so only spacings of that stride are right in them. linspace is
# rounded in DDIM and DPM-Solver alone, so for the others its step counts are those that need no rounding.
STRIDES = [("leading", 20), ("leading", 30), ("leading", 7), ("trailing", 10), ("trailing", 50)]
WHOLE = [("leading", 20), ("leading", 30), ("trailing", 7), ("trailing", 12), ("linspace", 10), ("linspace", 28)]
LEVELS = [*WHOLE, ("karras", 12), ("exponential", 15)]


def network(x: Tensor, t: Tensor) -> Tensor:
    """Bounded, curved in x and t, mixing channels: nothing a solver gets right by accident."""
    mix = torch.tensor([[0.9, -0.3, 0.0, 0.2], [0.1, 0.8, 0.4, 0.0], [0.0, -0.2, 0.7, 0.5], [0.3, 0.0, -0.4, 0.9]])
    mixed = torch.einsum("oc,bchw->bohw", mix.to(x.dtype), x)
    return torch.tanh(mixed + 0.3 * torch.cos(t.to(x.dtype) / 150).reshape(-1, 1, 1, 1))


@dataclass
class Recorded:
    """Noise that can be given to another sampler."""

    source: Noise
    draws: list[Tensor] = field(default_factory=list)

    def normal(self, shape: Sequence[int]) -> Tensor:
        self.draws.append(self.source.normal(shape))
        return self.draws[-1]

    def brownian(self, shape: Sequence[int], low: float, high: float) -> Callable[[float, float], Tensor]:
        path = self.source.brownian(shape, low, high)

        def increment(sigma: float, to: float) -> Tensor:
            self.draws.append(path(sigma, to))
            return self.draws[-1]

        return increment


@dataclass(frozen=True)
class Case:
    """One request for both sides."""

    spacing: str
    steps: int
    prediction: Prediction
    last: float = 0.0

    def __str__(self) -> str:
        return f"{self.spacing} {self.steps} {self.prediction}"

    @property
    def sigmas(self) -> Tensor:
        sigmas = SPACINGS[self.spacing](SD, self.steps)
        sigmas[-1] = self.last
        return sigmas

    @property
    def start(self) -> Tensor:
        return normal(2, 4, 6, 6) * float(1 + self.sigmas[0] ** 2) ** 0.5

    def ours(self, name: str, **options: object) -> tuple[list[Tensor], list[Tensor]]:
        """x after each step, and noise for theirs: what ours drew, zeros where it drew none."""
        denoiser = Denoiser(lambda x, t, context, vector: network(x, t), SD, SCALINGS[self.prediction])
        noise, x = Recorded(Noise([5, 6])), self.start.float()
        denoise = denoiser.bind(Conditioning())
        found = [step.x for step in SAMPLERS[name](denoise, x, self.sigmas, noise, **clock(name), **options)]
        assert {one.dtype for one in found} == {torch.float32}
        return found, [*noise.draws, *[torch.zeros_like(x)] * (self.steps - len(noise.draws))]

    def scheduler(self, kind: type[Scheduler], **extra: object) -> Scheduler:
        """Theirs, set to the same levels."""
        if self.spacing in ("karras", "exponential", "beta"):
            extra |= {f"use_{self.spacing}_sigmas": True, "timestep_spacing": "linspace"}
        else:
            theirs = self.spacing.removesuffix("_open")  # of which DPM-Solver's kin take the first of steps + 1
            extra |= {"timestep_spacing": theirs, "steps_offset": int(self.spacing == "leading")}
        made = kind(**STABLE, prediction_type=NAMES[self.prediction], **extra)
        if kind is diffusers.DPMSolverMultistepScheduler:  # its own leading and linspace are those of steps + 1
            made.set_timesteps(timesteps=SD.t(self.sigmas[:-1]).round().int().tolist())
        else:
            made.set_timesteps(self.steps)
        return made


def cases(settings: list[tuple[str, int]]) -> pytest.MarkDecorator:
    both: tuple[Prediction, ...] = ("eps", "v")
    return pytest.mark.parametrize("case", [Case(*one, prediction) for one in settings for prediction in both], ids=str)


def outputs(
    scheduler: Scheduler,
    x: Tensor,
    *,
    answer: Network = network,
    noises: list[Tensor] | None = None,
    **extra: object,
) -> Iterator[Tensor]:
    """Everything the scheduler's own loop makes of x."""
    for index, t in enumerate(scheduler.timesteps):
        given = {} if noises is None else {"variance_noise": noises[index]}
        x = scheduler.step(answer(scheduler.scale_model_input(x, t), t), t, x, **given, **extra).prev_sample
        yield x


def from_unit(scheduler: Scheduler, x: Tensor, sigmas: Tensor, **extra: object) -> list[Tensor]:
    """The outputs of a scheduler whose signal and noise variances add up to one, brought to x0 + sigma * noise."""
    factors = [float(1 + sigma**2) ** 0.5 for sigma in sigmas]
    found = list(outputs(scheduler, x / factors[0], **extra))
    found = found[len(found) - len(factors) + 1 :]  # PNDM's first output is only a guess
    return [one * factor for one, factor in zip(found, factors[1:], strict=True)]


def same(mine: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-5) -> None:
    """Each step's largest difference, relative to its largest value."""
    gaps = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(mine, theirs, strict=True)]
    assert all(gap < tolerance for gap in gaps), gaps


@cases(STRIDES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_equals_diffusers(case: Case, eta: float) -> None:
    mine, noises = case.ours("ddim", eta=eta)
    theirs = case.scheduler(diffusers.DDIMScheduler, clip_sample=False)
    same(mine, from_unit(theirs, case.start.float(), case.sigmas, eta=eta, noises=noises))


@cases(LEVELS)
def test_euler_equals_diffusers(case: Case) -> None:
    mine, _ = case.ours("euler")
    same(mine, list(outputs(case.scheduler(diffusers.EulerDiscreteScheduler), case.start.float())))


@cases(WHOLE)
def test_euler_ancestral_equals_diffusers(case: Case) -> None:
    mine, _ = case.ours("euler_ancestral")
    streams = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    theirs = case.scheduler(diffusers.EulerAncestralDiscreteScheduler)
    same(mine, list(outputs(theirs, case.start.float(), generator=streams)))


@cases(LEVELS)
def test_heun_equals_diffusers(case: Case) -> None:
    mine, _ = case.ours("heun")
    every_half = list(outputs(case.scheduler(diffusers.HeunDiscreteScheduler), case.start.float()))
    same(mine, [*every_half[1::2], every_half[-1]])


@cases(LEVELS)
def test_lms_equals_diffusers(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(scheduling_lms_discrete, "integrate"):  # scipy's quad, where there is no scipy; exact to degree 15
        points, weights = np.polynomial.legendre.leggauss(8)

        def quad(f: Callable[[float], Tensor], a: Tensor, b: Tensor, epsrel: float) -> tuple[float]:
            middle, half = float(a + b) / 2, float(b - a) / 2
            return (half * sum(w * float(f(middle + half * u)) for u, w in zip(points, weights, strict=True)),)

        monkeypatch.setattr(scheduling_lms_discrete, "integrate", SimpleNamespace(quad=quad), raising=False)
    mine, _ = case.ours("lms")
    same(mine, list(outputs(case.scheduler(scheduling_lms_discrete.LMSDiscreteScheduler), case.start.float())))


@cases(WHOLE)
@pytest.mark.parametrize(("name", "kind"), [("dpmpp_2m", "dpmsolver++"), ("dpmpp_2m_sde", "sde-dpmsolver++")])
def test_dpmpp_2m_equals_diffusers(case: Case, name: str, kind: str) -> None:
    mine, noises = case.ours(name)
    theirs = case.scheduler(diffusers.DPMSolverMultistepScheduler, algorithm_type=kind)
    same(mine, from_unit(theirs, case.start.float(), case.sigmas, noises=noises))


def noise_said(case: Case) -> Network:
    """The case's network, its answer turned into eps."""

    def answer(x: Tensor, t: Tensor) -> Tensor:
        alpha = float(1 + SD.sigmas[t] ** 2) ** -0.5
        return network(x, t) if case.prediction == "eps" else alpha * network(x, t) + (1 - alpha**2) ** 0.5 * x

    return answer


@cases(STRIDES)
def test_plms_of_eps_equals_pndm_of_eps(case: Case) -> None:
    """Stability's own PLMS turns v into eps first."""
    mine, _ = case.ours("plms")
    theirs = Case(case.spacing, case.steps, "eps").scheduler(
        diffusers.PNDMScheduler, skip_prk_steps=True, set_alpha_to_one=True
    )
    same(mine, from_unit(theirs, case.start.float(), case.sigmas, answer=noise_said(case)))


@cases(STRIDES)
def test_plms_of_what_a_network_predicts_equals_diffusers_pndm(case: Case) -> None:
    mine, _ = case.ours("plms", averaged=SCALINGS[case.prediction])
    theirs = case.scheduler(diffusers.PNDMScheduler, skip_prk_steps=True, set_alpha_to_one=True)
    same(mine, from_unit(theirs, case.start.float(), case.sigmas))


@pytest.mark.parametrize("to_zero", [True, False], ids=["to 0", "to the first training step"])
@pytest.mark.parametrize(
    ("name", "kind", "extra"),
    [
        ("ddim", diffusers.DDIMScheduler, {"clip_sample": False}),
        ("plms", diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    ],
)
def test_transfer_of_eps_is_a_step_in_sigma_to_rounding(
    name: str, kind: type[Scheduler], extra: dict[str, bool], to_zero: bool
) -> None:
    """Equation 9 of PNDM (and 12 of DDIM) is x + (to - sigma) * eps, whatever the average in eps: given our float64
    table, nothing but rounding is left between the two."""
    case = Case("leading", 20, "eps")
    sigmas = case.sigmas
    sigmas[-1] = 0.0 if to_zero else SD.sigma_min
    theirs = case.scheduler(kind, set_alpha_to_one=to_zero, **extra)
    theirs.alphas_cumprod = 1 / (1 + SD.sigmas**2)
    theirs.final_alpha_cumprod = 1 / (1 + sigmas[-1] ** 2)

    def denoise(x: Tensor, sigma: float) -> Tensor:  # the denoiser in float64
        level = torch.tensor(sigma, dtype=torch.float64)
        return x - sigma * network(x * SCALINGS["eps"](level).into, SD.t(level))

    mine = [step.x for step in sampled(name, denoise, case.start, sigmas)]
    same(mine, from_unit(theirs, case.start, sigmas), tolerance=1e-11)


@cases(STRIDES)
def test_ddpm_equals_diffusers(case: Case) -> None:
    mine, _ = case.ours("ddpm")
    theirs = case.scheduler(diffusers.DDPMScheduler, clip_sample=False, variance_type="fixed_small")
    streams = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    same(mine, from_unit(theirs, case.start.float(), case.sigmas, generator=streams))


UNROUNDED = [one for one in LEVELS if one[0] != "karras"]  # KDPM2 rounds the times of Karras' levels


@cases([*UNROUNDED, ("beta", 12)])
def test_dpm_2_equals_diffusers(case: Case) -> None:
    mine, _ = case.ours("dpm_2")
    halves = list(outputs(case.scheduler(diffusers.KDPM2DiscreteScheduler), case.start.float()))
    same(mine, [*halves[1::2], halves[-1]])


@cases(UNROUNDED)
def test_dpm_2_ancestral_equals_diffusers(case: Case) -> None:
    mine, _ = case.ours("dpm_2_ancestral")
    streams = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    theirs = case.scheduler(diffusers.KDPM2AncestralDiscreteScheduler)
    halves = list(outputs(theirs, case.start.float(), generator=streams))
    same(mine, [*halves[1::2], halves[-1]])


@cases(LEVELS)
def test_dpmpp_sde_equals_diffusers(case: Case) -> None:
    mine, noises = case.ours("dpmpp_sde")
    theirs, path = case.scheduler(diffusers.DPMSolverSDEScheduler), iter(noises)
    theirs.noise_sampler = lambda sigma, to: next(path)
    halves = list(outputs(theirs, case.start.float()))
    same(mine, [*halves[1::2], halves[-1]])


def test_brownian_noise_is_that_of_diffusers() -> None:
    """To the tolerance torchsde resolves a path to, which float32 levels fall on either side of."""
    levels = [14.6, 9.1, 5.2, 1.0, 0.03]
    theirs = BrownianTreeNoiseSampler(torch.zeros(2, 3, 4, 4), levels[-1], levels[0], seed=[5, 6])
    ours = Noise([5, 6]).brownian((3, 4, 4), levels[-1], levels[0])
    for sigma, to in itertools.pairwise(levels):
        torch.testing.assert_close(ours(sigma, to), theirs(sigma, to), rtol=0, atol=0.01)


OPEN = [("linspace_open", 10), ("linspace_open", 28), ("trailing", 7), ("trailing", 12)]


@cases([("linspace_open", 10), ("linspace_open", 27), ("karras", 12), ("karras", 11)])
@pytest.mark.parametrize("last", [0.0, SD.sigma_min], ids=["to 0", "to the least level"])
def test_dpmpp_2s_equals_diffusers(case: Case, last: float) -> None:
    case = dataclasses.replace(case, last=last)
    mine, _ = case.ours("dpmpp_2s")
    theirs = diffusers.DPMSolverSinglestepScheduler(
        **STABLE,
        prediction_type=NAMES[case.prediction],
        use_karras_sigmas=case.spacing == "karras",
        final_sigmas_type="sigma_min" if last else "zero",
    )
    theirs.set_timesteps(case.steps)
    theirs.timesteps = SD.t(case.sigmas[:-1])  # of karras' levels theirs rounds them
    same(mine, from_unit(theirs, case.start.float(), case.sigmas))


@cases(OPEN)
@pytest.mark.parametrize("last", [0.0, SD.sigma_min], ids=["to 0", "to the least level"])
@pytest.mark.parametrize(
    ("name", "order", "kind"), [("unipc", 2, "bh2"), ("unipc_bh1", 3, "bh1"), ("unipc_bh2", 3, "bh2")]
)
def test_unipc_equals_diffusers(case: Case, name: str, order: int, kind: str, last: float) -> None:
    case = dataclasses.replace(case, last=last)
    mine, _ = case.ours(name)
    final = "sigma_min" if last else "zero"
    theirs = case.scheduler(
        diffusers.UniPCMultistepScheduler, solver_order=order, solver_type=kind, final_sigmas_type=final
    )
    expected = from_unit(theirs, case.start.float(), case.sigmas)
    if kind == "bh1" and not last:  # their B(h) is infinite there
        expected[-1] = mine[-1] = expected[-2]
    same(mine, expected)


@pytest.mark.parametrize("name", ["unipc", "unipc_bh1", "unipc_bh2"])
def test_unipc_is_of_third_order_at_least_before_its_end(name: str) -> None:
    """The last step, first order and uncorrected, is what makes the whole a second-order method."""

    def error(steps: int) -> float:
        x = FOUR.mean + normal(1, 1, 1, 4, seed=3) * (FOUR.std**2 + 14.0**2).sqrt()
        step = sampled(name, FOUR.denoise, x, falling(14.0, 0.05, steps))[steps - 1 - steps // 10]
        return float((step.x - FOUR.carried(x, 14.0, step.sigma)).abs().max())

    assert math.log2(error(400) / error(800)) > 2.85


@cases(OPEN)
def test_deis_equals_diffusers(case: Case) -> None:
    case = dataclasses.replace(case, last=SD.sigma_min)
    mine, _ = case.ours("deis")
    same(mine, from_unit(case.scheduler(diffusers.DEISMultistepScheduler), case.start.float(), case.sigmas))


@cases([("leading", 20), ("leading", 50), ("leading", 10)])
@pytest.mark.parametrize("of", ["eps", "prediction"])
def test_pndm_equals_diffusers(case: Case, of: str) -> None:
    if of == "prediction":
        mine, _ = case.ours("pndm", averaged=SCALINGS[case.prediction])
        theirs, answer = case.scheduler(diffusers.PNDMScheduler, set_alpha_to_one=True), network
    else:
        mine, _ = case.ours("pndm")
        theirs = Case(case.spacing, case.steps, "eps").scheduler(diffusers.PNDMScheduler, set_alpha_to_one=True)
        answer = noise_said(case)
    same(mine[3:], from_unit(theirs, case.start.float(), case.sigmas, answer=answer)[3:])


@cases([("lcm", 4), ("lcm", 8), ("lcm", 50)])
def test_lcm_equals_diffusers(case: Case) -> None:
    mine, _ = case.ours("lcm")
    theirs = diffusers.LCMScheduler(**STABLE, prediction_type=NAMES[case.prediction], clip_sample=False)
    theirs.set_timesteps(case.steps)
    streams = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    same(mine, from_unit(theirs, case.start.float(), case.sigmas, generator=streams), tolerance=1e-4)


@cases([("lcm", 4), ("lcm", 8), ("lcm", 50)])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_tcd_equals_diffusers(case: Case, eta: float) -> None:
    theirs = diffusers.TCDScheduler(**STABLE, prediction_type=NAMES[case.prediction], clip_sample=False)
    theirs.set_timesteps(case.steps)
    mine, _ = case.ours("tcd", eta=eta)
    streams = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    sigmas = case.sigmas
    found = from_unit(theirs, case.start.float(), sigmas, eta=eta, generator=streams)
    same(mine[:-1], found[:-1])  # theirs ends at the first training step, not at zero


def test_euler_on_a_flow_equals_flow_matching() -> None:
    schedule = Flow(FlowConfig())
    s = torch.linspace(0.999, 0.05, 15, dtype=torch.float64)
    sigmas = torch.cat((s / (1 - s), torch.zeros(1)))
    theirs = diffusers.FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=s.tolist())
    z = normal(2, 4, 6, 6).float()
    expected: list[Tensor] = []
    for index, t in enumerate(theirs.timesteps):
        z = theirs.step(network(z, t), t, z).prev_sample
        expected.append(z * float(1 + sigmas[index + 1]))
    denoiser = Denoiser(lambda x, t, context, vector: network(x, t), schedule, SCALINGS["flow"])
    x = normal(2, 4, 6, 6).float() * float(1 + sigmas[0])
    same([step.x for step in sampled("euler", denoiser.bind(Conditioning()), x, sigmas)], expected)


# --- promises ---------------------------------------------------------------------------------------------------------


def elementwise(x: Tensor, sigma: float) -> Tensor:
    return torch.tanh(x / (1 + sigma)) + 0.1 * torch.sin(3 * x)


def pictures(count: int, steps: int = 8) -> tuple[Tensor, Tensor]:
    sigmas = SPACINGS["karras"](SD, steps)
    return normal(count, 3, 5, 5, seed=9).float() * float(sigmas[0]), sigmas


@every
def test_the_steps_are_numbered_and_carry_their_level(name: str) -> None:
    x, sigmas = pictures(2)
    asked: list[tuple[Tensor, float]] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        assert isinstance(sigma, float)
        asked.append((x, sigma))
        return elementwise(x, sigma)

    steps = sampled(name, denoise, x, sigmas)
    assert [step.index for step in steps] == list(range(len(steps)))
    assert steps[-1].count == len(steps)
    if not claim(name).paced:
        assert {step.count for step in steps} == {len(steps)}
    assert steps[-1].sigma == pytest.approx(float(sigmas[-2]) if claim(name).stops else 0, rel=1e-9)
    began = [float(sigmas[0]), *[step.sigma for step in steps]]
    if not claim(name).own:
        assert began == sigmas.tolist()
        assert len(asked) == claim(name).calls(8)
    answers = [elementwise(*one) for one in asked]
    for step, sigma in zip(steps, began, strict=False):
        assert step.x.shape == step.denoised.shape == x.shape
        there = [answer for answer, (_, level) in zip(answers, asked, strict=True) if level == sigma]
        assert any(torch.equal(step.denoised, one) for one in there), "denoised is not an answer at the step's start"


@every
def test_the_same_seeds_give_the_same_picture_and_nothing_global_is_touched(name: str) -> None:
    x, sigmas = pictures(2, steps=20)  # fewer, and restart goes back nowhere
    kept, state = x.clone(), torch.get_rng_state()
    first, again = (sampled(name, elementwise, x, sigmas, seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, kept)
    torch.manual_seed(1234)
    third = sampled(name, elementwise, x, sigmas, seed=3)
    torch.set_rng_state(state)
    for steps in zip(first, again, third, strict=True):
        assert len({step.x.numpy().tobytes() for step in steps}) == 1
    other = sampled(name, elementwise, x, sigmas, seed=4)
    assert torch.equal(other[-1].x, first[-1].x) == (claim(name).order is not None)


@every
def test_steps_already_yielded_do_not_change(name: str) -> None:
    x, sigmas = pictures(1)
    lazily = SAMPLERS[name](elementwise, x, sigmas, Noise([0]), **clock(name))
    seen = [(step, step.x.clone(), step.denoised.clone()) for step in lazily]
    for step, x_then, denoised_then in seen:
        assert torch.equal(step.x, x_then)
        assert torch.equal(step.denoised, denoised_then)


@every
def test_nothing_is_computed_before_it_is_asked_for(name: str) -> None:
    x, sigmas = pictures(1)
    asked: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return elementwise(x, sigma)

    steps = SAMPLERS[name](denoise, x, sigmas, Noise([0]), **clock(name))
    assert asked == []
    next(steps)
    assert 1 <= len(asked) <= 4


@pytest.mark.parametrize("name", [name for name in SAMPLERS if not claim(name).paced])
def test_four_at_once_are_four_alone_bit_for_bit(name: str) -> None:
    x, sigmas = pictures(4)
    together = sampled(name, elementwise, x, sigmas, seed=20)
    for row in range(4):
        alone = sampled(name, elementwise, x[row : row + 1], sigmas, seed=20 + row)
        for one, all_four in zip(alone, together, strict=True):
            assert torch.equal(one.x[0], all_four.x[row])


@every
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_one_step_to_zero_is_the_denoised(name: str, sigma: float) -> None:
    x = normal(2, 3, 5, 5).float() * sigma
    if claim(name).stops:
        with pytest.raises(ValueError, match=r"one step.*use 2 or more"):
            sampled(name, elementwise, x, torch.tensor([sigma, 0.0], dtype=torch.float64))
        return
    [step] = sampled(name, elementwise, x, torch.tensor([sigma, 0.0], dtype=torch.float64))
    assert step.sigma == 0
    assert (step.x - step.denoised).abs().max() <= 1e-6 * max(1, sigma)
    assert torch.equal(step.denoised, elementwise(x, sigma))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_euler_ancestral_is_euler(eta: float) -> None:
    x, sigmas = pictures(2)
    found = [sampled(name, elementwise, x, sigmas, eta=eta)[-1].x for name in ("ddim", "euler_ancestral", "euler")]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_without_noise_the_sde_solver_is_the_ode_solver() -> None:
    x, sigmas = pictures(2)
    assert torch.equal(
        sampled("dpmpp_2m_sde", elementwise, x, sigmas, eta=0.0)[-1].x,
        sampled("dpmpp_2m", elementwise, x, sigmas)[-1].x,
    )


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"])
def test_a_brownian_path_gives_nearly_the_same_picture_whatever_the_steps(name: str) -> None:
    """Fresh normals at every step would give another picture."""
    x = normal(1, 4, 8, 8) * 14
    found = {
        (steps, seed): sampled(name, FOUR_WIDE.denoise, x, torch.cat((falling(14, 0.05, steps), torch.zeros(1))), seed)[
            -1
        ].x
        for steps, seed in ((30, 0), (45, 0), (45, 1))
    }
    nearby, other = ((found[45, 0] - found[one]).std() for one in ((30, 0), (45, 1)))
    assert nearby < 0.15 * other


@pytest.mark.parametrize("eta", [0.25, 0.5])
def test_the_same_eta_is_the_same_noise_in_ddim_and_in_the_sde_solver(eta: float) -> None:
    """Over a short step both put in eta^2 * (sigma^2 - to^2) of variance."""
    first, to = 1.0, 0.999
    for name in ("ddim", "dpmpp_2m_sde"):
        [quiet] = sampled(name, lambda x, sigma: 0 * x, torch.zeros(1, 1, 100, 100), torch.tensor([first, to]), eta=eta)
        assert float(quiet.x.var()) == pytest.approx(eta**2 * (first**2 - to**2), rel=4 * (2 / 10_000) ** 0.5)


def test_the_registry_lists_functions_of_the_sampler_files_alone() -> None:
    assert set(SAMPLERS) == set(CLAIMS)
    assert all(function.__name__ == name and function.__doc__ for name, function in SAMPLERS.items())
