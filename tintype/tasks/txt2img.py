"""Text to image: from noise, steered by a prompt; wide pictures window by window, large ones in two passes."""

import dataclasses

from tintype.common.rng import Noise
from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.windows import windowed
from tintype.families.base import LatentDiffusion
from tintype.tasks.further import all_new, refuse_others
from tintype.tasks.hires import check, second_pass
from tintype.tasks.plan import Plan, from_noise, prompted
from tintype.tasks.request import Request
from tintype.tasks.task import Task

STRIDES = 4  # to a window, where the stride is not said


def prepare(model: LatentDiffusion, request: Request) -> Request:
    refuse_others(model, request)
    check(model, request)
    if request.window is not None and request.hires_scale is not None:
        raise ValueError(f"window {request.window}: not with hires_scale; leave out one of them")
    return with_stride(request, model.config.autoencoder.factor)


def with_stride(request: Request, factor: int) -> Request:
    """With the stride of its windows. Raises `ValueError` for windows that do not fit the latent's cells, that leave
    gaps, or that would each be tiled by itself."""
    window, stride = request.window, request.window_stride
    if window is None:
        if stride is not None:
            raise ValueError(f"window_stride {stride}: there are no windows; expected a window as well")
        return request
    if request.tiling:
        raise ValueError(f"window {window}: with tiling each window would be a tile of its own; leave out one of them")
    stride = max(window // STRIDES // factor, 1) * factor if stride is None else stride
    for name, pixels in (("window", window), ("window_stride", stride)):
        if pixels % factor:
            low = max(pixels // factor, 1) * factor
            raise ValueError(f"{name} {pixels} is not a multiple of {factor}; use {low} or {low + factor}")
    if stride > window:
        raise ValueError(f"window_stride {stride}: windows of {window} would leave gaps; expected {window} at most")
    return dataclasses.replace(request, window_stride=stride)


def plan(model: LatentDiffusion, request: Request, noise: Noise) -> Plan:
    shown = all_new(model, _seen(request), prompted(model, request, noise), len(noise.seeds))
    begun = from_noise(model, request, noise, shown)
    drawn = dataclasses.replace(begun, then=second_pass(model, request, noise))
    if request.window is None or request.window_stride is None:
        return drawn
    factor = model.config.autoencoder.factor
    window, stride = request.window // factor, request.window_stride // factor

    def in_windows(denoise: Denoise) -> Denoise:
        return windowed(denoise, window=window, stride=stride)

    return dataclasses.replace(drawn, wrap=in_windows)


def _seen(request: Request) -> Request:
    """The same, of the size that the network sees at once."""
    if request.window is None:
        return request
    assert request.width is not None
    assert request.height is not None
    return dataclasses.replace(
        request, width=min(request.width, request.window), height=min(request.height, request.window)
    )


TASK = Task(plan=plan, prepare=prepare)
