"""Pictures that go on at their opposite sides: the model as it draws them, and the sizes that come round."""

import dataclasses

from tintype.families.base import LatentDiffusion
from tintype.models.unet import UNet
from tintype.nn.circular import circular
from tintype.tasks.request import Request


def endless(model: LatentDiffusion, request: Request) -> LatentDiffusion:
    """The model as it draws this request: itself, or with `tiling` a copy of the same weights whose convolutions see
    the opposite side of a picture beyond its edges."""
    if not request.tiling:
        return model
    network = model.denoiser.network
    assert isinstance(network, UNet)
    denoiser = dataclasses.replace(model.denoiser, network=circular(network))
    return dataclasses.replace(model, denoiser=denoiser, autoencoder=circular(model.autoencoder))


def multiple(model: LatentDiffusion, request: Request) -> int:
    """Of what a picture's sides must be multiples, in pixels. What is halved along an odd side and doubled again does
    not come round, so with `tiling` every halving of the U-Net counts."""
    factor = model.config.autoencoder.factor
    return factor * 2 ** (len(model.config.unet.mult) - 1) if request.tiling else factor
