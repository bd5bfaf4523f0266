"""Text to image: from noise, steered by a prompt."""

from tintype.common.rng import Noise
from tintype.diffusion.denoiser import repeated
from tintype.families.base import LatentDiffusion
from tintype.tasks.plan import Plan, pure_noise, spaced, unchanged
from tintype.tasks.request import Request


def text_to_image(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    """request: resolved; one picture per seed of `noise`."""
    sigmas = spaced(model, request)
    count = len(noise.seeds)
    return Plan(
        x=pure_noise(model, request, noise, float(sigmas[0])),
        sigmas=sigmas,
        cond=repeated(model.reads([request.prompt]), count),
        uncond=None if request.cfg_scale == 1 else repeated(model.reads([request.negative_prompt]), count),
        wrap=unchanged,
    )
