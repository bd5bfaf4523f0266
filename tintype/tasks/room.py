"""Whether a picture fits into memory, before any work is done for it."""

from tintype.common.room import free_memory
from tintype.families.base import LatentDiffusion
from tintype.tasks.request import Request

# Measured by benchmarks/upscaling.py, in float32
MAPS = 8.0  # feature maps of the decoder's finest level that are there at once
PICTURE = 10.0  # numbers that each pixel of the result takes, as floats, bytes and picture


def needed(model: LatentDiffusion, request: Request) -> int:
    """Bytes that decoding a resolved request's pictures takes: the decoder works on a tile, or on all of them."""
    assert request.width is not None
    assert request.height is not None
    pixels, count = request.width * request.height, request.batch_size
    at_once = pixels * (1 if request.exact else count)
    if request.tile is not None:
        side = request.tile * model.config.enlargement
        at_once = min(side, request.width) * min(side, request.height)
    first_stage = model.config.autoencoder
    cells = at_once / first_stage.patch_size**2  # of the decoder's finest level
    elsewhere = request.tile is not None and model.device.type == "cuda"  # put together in the computer's own memory
    result = 0 if elsewhere else PICTURE * pixels * count
    each = model.autoencoder.post_quant_conv.weight.element_size()
    return int(each * MAPS * first_stage.width * cells + 4 * result)


def refuse_without_room(model: LatentDiffusion, request: Request) -> Request:
    """The request. Raises `ValueError` for one that needs more memory than there is."""
    need, free = needed(model, request), free_memory(model.device)
    if need > free:
        smaller = "--tile 64" if request.tile is None else f"a smaller tile than {request.tile}"
        raise ValueError(
            f"a picture of {request.width} x {request.height} at once takes about {need / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} are free; expected work in tiles, {smaller}, or a smaller batch or picture"
        )
    return request
