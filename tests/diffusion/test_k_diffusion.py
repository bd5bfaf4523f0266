"""k-diffusion's samplers, given our denoiser and our noise, come to our pictures."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from karras_oracle import k_diffusion_samplers
from torch import Tensor

from tintype.diffusion.samplers import SAMPLERS
from tintype.diffusion.schedule import DDPM, DDPMConfig
from tintype.diffusion.spacing import SPACINGS
from tintype.diffusion.step import Step

THEIRS = k_diffusion_samplers()
SD = DDPM(DDPMConfig())
DRAWS = torch.randn(80, 2, 4, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 14.6


class Given:
    """The same draws for both sides, as ours ask for them and as theirs do."""

    def __init__(self) -> None:
        self.draws: Iterator[Tensor] = iter(DRAWS)

    def normal(self, shape: Sequence[int]) -> Tensor:
        return next(self.draws)

    def brownian(self, shape: Sequence[int], low: float, high: float) -> Callable[[float, float], Tensor]:
        return self

    def __call__(self, sigma: float, to: float) -> Tensor:
        return next(self.draws)


def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
    """Curved in x and sigma: nothing a solver gets right by accident. sigma: ours one number, theirs one a picture."""
    level = torch.as_tensor(sigma).flatten()[0]
    return torch.tanh(x / (1 + level)) + 0.1 * torch.sin(3 * x) * torch.cos(level)


def walked(name: str, sigmas: Tensor, **options: float) -> list[Step]:
    return list(SAMPLERS[name](denoise, X, sigmas, Given(), **options))


def same(ours: Tensor, theirs: Tensor) -> None:
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5  # their levels pass through float32


@pytest.mark.parametrize("spacing", ["karras", "exponential", "trailing"])
@pytest.mark.parametrize(
    ("name", "theirs", "eta", "extra"),
    [
        ("euler", "euler", None, {}),
        ("euler_ancestral", "euler_ancestral", 1.0, {}),
        ("euler_ancestral", "euler_ancestral", 0.4, {}),
        ("heun", "heun", None, {}),
        ("lms", "lms", None, {}),
        ("dpm_2", "dpm_2", None, {}),
        ("dpm_2_ancestral", "dpm_2_ancestral", 1.0, {}),
        ("dpmpp_2s_ancestral", "dpmpp_2s_ancestral", 1.0, {}),
        ("dpmpp_2s_ancestral", "dpmpp_2s_ancestral", 0.5, {}),
        ("dpmpp_sde", "dpmpp_sde", 1.0, {}),
        ("dpmpp_sde", "dpmpp_sde", 0.5, {}),
        ("dpmpp_2m", "dpmpp_2m", None, {}),
        ("dpmpp_2m_sde", "dpmpp_2m_sde", 1.0, {}),
        ("dpmpp_2m_sde", "dpmpp_2m_sde", 0.6, {}),
        ("dpmpp_2m_sde_heun", "dpmpp_2m_sde", 1.0, {"solver_type": "heun"}),
        ("dpmpp_3m_sde", "dpmpp_3m_sde", 1.0, {}),
        ("dpmpp_3m_sde", "dpmpp_3m_sde", 0.6, {}),
    ],
)
def test_a_sampler_equals_k_diffusions(
    name: str, theirs: str, eta: float | None, extra: dict[str, str], spacing: str
) -> None:
    sigmas = SPACINGS[spacing](SD, 12)
    ours = walked(name, sigmas, **({} if eta is None else {"eta": eta}))
    variance = name.endswith(("m_sde", "sde_heun"))  # their eta is a share of variance in these, ours of its root
    given: dict[str, object] = {} if eta is None else {"eta": eta**2 if variance else eta, "noise_sampler": Given()}
    same(ours[-1].x, getattr(THEIRS, f"sample_{theirs}")(denoise, X, sigmas, disable=True, **given, **extra))


@pytest.mark.parametrize("steps", [4, 12, 13, 14, 20])
def test_dpm_fast_equals_k_diffusions(steps: int) -> None:
    sigmas = SPACINGS["karras"](SD, steps)
    for eta in (0.0, 0.6):
        theirs = THEIRS.sample_dpm_fast(
            denoise, X, float(sigmas[-2]), float(sigmas[0]), steps, disable=True, eta=eta, noise_sampler=Given()
        )
        same(walked("dpm_fast", sigmas, eta=eta)[-1].x, theirs)


@pytest.mark.parametrize("rtol", [0.05, 0.005])
def test_dpm_adaptive_equals_k_diffusions_and_takes_its_steps(rtol: float) -> None:
    sigmas = SPACINGS["karras"](SD, 20)
    for eta in (0.0, 0.6):
        theirs, info = THEIRS.sample_dpm_adaptive(
            denoise, X, float(sigmas[-2]), float(sigmas[0]), disable=True, eta=eta, rtol=rtol, atol=rtol / 6,
            noise_sampler=Given(), return_info=True,
        )  # fmt: skip
        ours = walked("dpm_adaptive", sigmas, eta=eta, rtol=rtol, atol=rtol / 6)
        assert len(ours) == info["n_accept"]
        same(ours[-1].x, theirs)


@pytest.mark.parametrize(("steps", "spent", "times"), [(20, 9, 1), (35, 9, 1), (36, 9, 2), (50, 12, 2)])
def test_restart_is_heun_with_ways_back(steps: int, spent: int, times: int) -> None:
    """A1111's walk, put together from k-diffusion's Heun and its Karras levels."""
    ends = SPACINGS["karras"](SD, steps)
    levels = THEIRS.get_sigmas_karras(steps - spent * times, float(ends[-2]), float(ends[0]))
    low, high = (int((levels - level).abs().argmin()) for level in (0.1, 2.0))
    again = THEIRS.get_sigmas_karras(spent + 1, float(levels[low]), float(levels[high]))[:-1]
    given, x = Given(), X
    for walk in (levels[: low + 1], *[again] * times, levels[low:]):
        if walk is again:
            x = x + (walk[0] ** 2 - levels[low] ** 2) ** 0.5 * given.normal(x.shape)
        x = THEIRS.sample_heun(denoise, x, walk, disable=True)
    ours = walked("restart", ends)
    assert len(ours) == steps
    assert sum(a.sigma < b.sigma for a, b in itertools.pairwise(ours)) == times
    same(ours[-1].x, x)
