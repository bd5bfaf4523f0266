"""The channels that some U-Nets take beside the noise: mask and masked picture, where all is new as well; a small
picture."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tintype.conditioning.low import enlarged
from tintype.families.base import LatentDiffusion
from tintype.tasks.pictures import encoded, in_rows
from tintype.tasks.request import Request
from tintype.tasks.steering import Steering
from tintype.tasks.windows import tiling_of


def has_mask(model: LatentDiffusion) -> bool:
    """Whether it is shown which part of a picture is known: a model made for inpainting."""
    return any("mask" in name for name in model.config.further)


def refuse_others(model: LatentDiffusion, request: Request) -> None:
    """Raises `ValueError` for a model that takes something else than a mask and a masked picture beside the noise."""
    config = model.config
    further = config.unet.in_channels - config.autoencoder.latent_channels
    if further and not has_mask(model):
        raise ValueError(
            f"{config.name} takes {further} channels beside the noise, made from a picture; {request.task} has none to "
            "give: expected a model without, or another task"
        )


def shown(model: LatentDiffusion, image: Tensor, mask: Tensor) -> Tensor:
    """The channels that say what is known: B C h w. image: B 3 H W; mask: 1 1 H W, 1 where all is new."""
    hard = (mask >= 0.5).to(image)
    cells = F.max_pool2d(hard, model.config.autoencoder.factor).expand(len(image), -1, -1, -1)
    parts = {
        "mask": lambda: cells,
        "masked": lambda: encoded(model, image * (1 - hard)),
        "signed_mask": lambda: cells * 2 - 1,
        "masked_black": lambda: encoded(model, (image + 1) * (1 - hard) - 1),
    }
    return torch.cat([parts[name]().to(model.device) for name in model.config.further], dim=1)


def all_new(model: LatentDiffusion, request: Request, steering: Steering, rows: int) -> Steering:
    """What steers a picture from nothing by a model that is shown what is known of it: nothing is. Steering that says
    it already, and that of other models, stays as it is."""
    said = any(cond.concat is not None for stage in steering.stages for _, cond in stage.conds)
    if said or not has_mask(model):
        return steering
    assert request.height is not None
    assert request.width is not None
    size = (request.height, request.width)
    return steering.beside(in_rows(shown(model, torch.zeros(1, 3, *size), torch.ones(1, 1, *size)), rows))


def small(model: LatentDiffusion, request: Request, low: Tensor) -> Tensor:
    """What stands beside the noise, as it is: the small picture, or the latent of it enlarged, made in tiles where all
    is."""
    if model.config.further == ("low",):
        return low
    scale, covered, tiling = model.config.enlargement, model.config.covered, tiling_of(model, request)
    if tiling is None:
        return encoded(model, enlarged(low, scale))
    cells = F.pixel_unshuffle(low, covered)  # so that a tile of the latent has its pixels with it
    return tiling.blended(cells, lambda tile: encoded(model, enlarged(F.pixel_shuffle(tile, covered), scale)))
