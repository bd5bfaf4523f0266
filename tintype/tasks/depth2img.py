"""Depth to image: a picture is made noisy and drawn anew from there, by a model that is shown how far all of it is."""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.tasks.img2img import finish
from tintype.tasks.pictures import encoded, fitted, in_rows, pixels, read, sized_as
from tintype.tasks.plan import Plan, from_latent, prompted, refuse_unless_shown
from tintype.tasks.request import Request
from tintype.tasks.task import Task

STRENGTH = 0.8


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_unless_shown(model, request, "depth", "Stable Diffusion 2's depth model")
    strength = STRENGTH if request.strength is None else request.strength
    request = dataclasses.replace(sized_as(request, read(request, "image")), strength=strength)
    shown(model, request)
    return request


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    rows = len(noise.seeds)
    latent = encoded(model, pixels(fitted(read(request, "image"), request)))
    depth = in_rows(shown(model, request).to(latent), rows)
    steering = prompted(model, request, noise).beside(depth)
    return from_latent(model, request, noise, in_rows(latent, rows), steering)


def shown(model: LatentDiffusion, request: Request) -> Tensor:
    """The depth map at the latent's size: 1 1 h w, from -1 where it is darkest (far, as MiDaS's inverse depth) to 1.
    It covers the picture, whatever its own size. Raises `ValueError` for a map that is all one gray."""
    depth = read(request, "depth").convert("L")
    if request.resize != "stretch":  # what is cut from the picture is cut from the map
        size = read(request, "image").size
        depth = fitted(depth.resize(size, Image.Resampling.BICUBIC), request)
    factor = model.config.autoencoder.factor
    size = tuple(max(side or 1, factor) // factor for side in (request.height, request.width))
    near = torch.from_numpy(np.array(depth)).float()[None, None] / 255
    near = F.interpolate(near, size=size, mode="bicubic", align_corners=False)
    least, most = near.amin(), near.amax()
    if least == most:
        raise ValueError("depth: all of it is one gray; expected a map, light where it is near and dark where far")
    return 2 * (near - least) / (most - least) - 1


TASK = Task(plan=plan, prepare=prepare, finish=finish)
