"""The windows or tiles in which a request's picture is drawn, where it asks for such."""

import dataclasses
from collections.abc import Callable

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.tiles import Tiling
from tintype.diffusion.windows import windowed
from tintype.families.base import LatentDiffusion
from tintype.tasks.request import Request
from tintype.tasks.sides import check_multiple

STRIDES = 4  # to a window, where the stride is not said


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
        check_multiple(name, pixels, factor)
    if stride > window:
        raise ValueError(f"window_stride {stride}: windows of {window} would leave gaps; expected {window} at most")
    return dataclasses.replace(request, window_stride=stride)


def with_overlap(request: Request, covered: int) -> Request:
    """With the overlap of its tiles, in whole cells of `covered` pixels a side. Raises `ValueError` for tiles that
    overlap more than by half, or that would each be tiled by itself."""
    if request.tile is None:
        if request.overlap is not None:
            raise ValueError(f"overlap {request.overlap}: without tile there is none; give tile, or leave it out")
        return request
    if request.tiling:
        raise ValueError(f"tile {request.tile}: with tiling each would be made to meet itself; leave out one of them")
    overlap = request.tile // 4 // covered * covered if request.overlap is None else request.overlap
    if 2 * overlap > request.tile:
        raise ValueError(f"overlap {overlap}: expected at most half of tile {request.tile}: {request.tile // 2}")
    for name, count in (("tile", request.tile), ("overlap", overlap)):
        check_multiple(name, count, covered)
    return dataclasses.replace(request, overlap=overlap)


def tiling_of(model: LatentDiffusion, request: Request) -> Tiling | None:
    """Of a resolved request, in cells of the latent."""
    if request.tile is None:
        return None
    assert request.overlap is not None
    return Tiling(request.tile // model.config.covered, request.overlap // model.config.covered)


def seen(request: Request) -> Request:
    """A resolved request of the size that the network sees at once."""
    if request.window is None:
        return request
    assert request.width is not None
    assert request.height is not None
    return dataclasses.replace(
        request, width=min(request.width, request.window), height=min(request.height, request.window)
    )


def in_windows(request: Request, factor: int) -> Callable[[Denoise], Denoise]:
    """What makes of a denoise function one that works in the windows of a resolved request, if it has any."""
    if request.window is None or request.window_stride is None:
        return lambda denoise: denoise
    window, stride = request.window // factor, request.window_stride // factor
    return lambda denoise: windowed(denoise, window=window, stride=stride)
