"""A sampling step outside the network costs less than a millisecond, whichever the sampler."""

import time

import pytest
import torch
from torch import Tensor

from tintype.common.rng import Noise
from tintype.diffusion.denoiser import Conditioning, Denoiser
from tintype.diffusion.guidance import Guidance, guided
from tintype.diffusion.samplers import SAMPLERS, sampler
from tintype.diffusion.scaling import SCALINGS
from tintype.diffusion.schedule import DDPM, DDPMConfig
from tintype.diffusion.spacing import trailing

STEPS, ROUNDS = 50, 5
ON_A_PATH = (
    "dpmpp_sde",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun",
    "dpmpp_3m_sde",
)  # torchsde resolves a Brownian path in Python: 7 ms a step on a quiet machine
BROWNIAN = 0.1


def nothing(x: Tensor, t: Tensor, context: Tensor | None, vector: Tensor | None) -> Tensor:
    return x


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_costs_less_than_a_millisecond_outside_the_network(name: str) -> None:
    """With guidance, at the embedded model's sizes. Processor time of the best round: what else the machine does
    counts little (`benchmarks/overhead.py` has the time by the clock)."""
    schedule = DDPM(DDPMConfig(betas="cosine", sigma_max=40.0))
    sigmas = trailing(schedule, STEPS)
    cond = Conditioning(context=torch.zeros(1, 32, 192), vector=torch.zeros(1, 192))
    denoise = guided(Denoiser(nothing, schedule, SCALINGS["v"]), [(1.0, cond)], cond, Guidance(scale=3.0))
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            noise = Noise([1])
            x = noise.normal((16, 8, 8)) * float(sigmas[0])
            started = time.thread_time()
            steps = sum(1 for _ in sampler(name, schedule)(denoise, x, sigmas, noise))
            times.append((time.thread_time() - started) / STEPS)
            assert steps > 0
    assert min(times) < (BROWNIAN if name in ON_A_PATH else 1e-3)
