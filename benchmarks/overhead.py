"""Time of everything outside the network, per step, at the embedded model's size.

    python benchmarks/overhead.py

Each sampler runs with classifier-free guidance around a network that does nothing. Expected: at most 1 ms a step.
"""

import statistics
import time

import torch
from torch import Tensor

from tintype.common.rng import Noise
from tintype.diffusion.denoiser import Conditioning, Denoiser
from tintype.diffusion.guidance import Guidance, guided
from tintype.diffusion.samplers import SAMPLERS, sampler
from tintype.diffusion.scaling import SCALINGS
from tintype.diffusion.schedule import DDPM, DDPMConfig
from tintype.diffusion.spacing import trailing

STEPS, ROUNDS = 50, 20


def nothing(x: Tensor, t: Tensor, context: Tensor | None, vector: Tensor | None) -> Tensor:
    return x


def milliseconds_per_step(name: str) -> float:
    """The median over rounds, per step (Heun and PLMS call the network more often than once)."""
    schedule = DDPM(DDPMConfig(betas="cosine"))
    denoiser = Denoiser(nothing, schedule, SCALINGS["v"])
    context = Conditioning(context=torch.zeros(1, 32, 192), vector=torch.zeros(1, 192))
    sigmas = trailing(schedule, STEPS)
    found = []
    for _ in range(ROUNDS):
        noise = Noise([7])
        x = noise.normal((16, 8, 8)) * float(sigmas[0])
        started = time.perf_counter()
        denoise = guided(denoiser, [(1.0, context)], context, Guidance(scale=3.0))
        for _ in sampler(name, schedule)(denoise, x, sigmas, noise):
            pass
        found.append((time.perf_counter() - started) / STEPS * 1e3)
    return statistics.median(found)


def main() -> None:
    with torch.inference_mode():
        for name in SAMPLERS:
            print(f"{name:18}{milliseconds_per_step(name):.3f} ms a step")


if __name__ == "__main__":
    main()
