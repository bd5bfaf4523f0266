"""Text to image: from noise, steered by a prompt."""

from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.tasks.plan import Plan, around, pure_noise, spaced, unchanged
from tintype.tasks.request import Request
from tintype.tasks.steering import Steering, steer


def text_to_image(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    """request: resolved; one picture per seed of `noise`. Raises `ValueError` for a model that needs a picture too."""
    config = model.config
    if extra := config.unet.in_channels - config.autoencoder.latent_channels:
        raise ValueError(
            f"{config.name} takes {extra} channels beside the noise, made from a picture; expected one without"
        )
    sigmas = spaced(model, request)
    return from_noise(model, request, noise, steer(model.reads, around(model, request), sigmas, len(noise.seeds)))


def from_noise(model: LatentDiffusion, request: Request, noise: Noise, steering: Steering) -> Plan:
    """A picture from nothing, whatever steers it."""
    sigmas = spaced(model, request)
    return Plan(
        x=pure_noise(model, request, noise, float(sigmas[0])),
        sigmas=sigmas,
        steering=steering,
        wrap=unchanged,
    )
