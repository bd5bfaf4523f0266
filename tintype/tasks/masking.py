"""The part of a picture that is drawn anew: which it is, what the network is shown of it, how it comes back."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor

from tintype.common.rng import Noise, generator
from tintype.families.base import LatentDiffusion
from tintype.tasks.further import has_mask, shown
from tintype.tasks.pictures import encoded, fitted, in_rows, pixels, read, sized_as
from tintype.tasks.plan import Plan, from_latent, keeping, prompted
from tintype.tasks.request import Request

Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Area:
    """An RGB picture and an L mask of its size, white where it is drawn anew; `box` is the part that is worked on."""

    picture: Image.Image
    mask: Image.Image
    box: Box

    def worked(self, request: Request) -> "Area":
        """The part alone, at the request's size. It is stretched there and back, whatever `resize` says of pictures."""
        stretched = dataclasses.replace(request, resize="stretch")
        picture, mask = (fitted(one.crop(self.box), stretched) for one in (self.picture, self.mask))
        return Area(picture, mask, (0, 0, *picture.size))

    def composed(self, drawn: Image.Image) -> Image.Image:
        """The picture with what was drawn in its place. Where the mask is black every pixel is the picture's own."""
        left, top, right, bottom = self.box
        drawn = drawn.resize((right - left, bottom - top), Image.Resampling.LANCZOS) if self._other(drawn) else drawn
        result = self.picture.copy()
        result.paste(drawn, (left, top), self.mask.crop(self.box))
        return result

    def _other(self, drawn: Image.Image) -> bool:
        left, top, right, bottom = self.box
        return drawn.size != (right - left, bottom - top)


def masked_area(request: Request) -> Area:
    """What a request with picture and mask means. Raises `ValueError` for a mask of another size, or of nothing."""
    picture, mask = read(request, "image"), read(request, "mask").convert("L")
    if mask.size != picture.size:
        got, expected = (f"{one.width} x {one.height}" for one in (mask, picture))
        raise ValueError(f"mask: got {got} pixels; expected {expected}, as the picture has")
    if request.mask_invert:
        mask = ImageChops.invert(mask)
    if mask.getbbox() is None:
        colour, other = ("white", "leave out") if request.mask_invert else ("black", "add")
        raise ValueError(
            f"mask: all of it is {colour}, so nothing is painted anew; change some, or {other} mask_invert"
        )
    if request.mask_blur:
        mask = mask.filter(ImageFilter.GaussianBlur(request.mask_blur))
    if not request.only_masked:
        sized = sized_as(request, picture)
        picture, mask = fitted(picture, sized), fitted(mask, sized)
    if mask.getbbox() is None:
        raise ValueError(
            f"mask: nothing is left of it at the picture's size, faded by {request.mask_blur} pixels; expected a "
            "larger one, a smaller mask_blur, or a resize that keeps it"
        )
    return Area(picture, mask, _around(mask, request) if request.only_masked else (0, 0, *picture.size))


def _around(mask: Image.Image, request: Request) -> Box:
    """The masked part with its padding, made longer along one side to the shape that is worked at, within the
    picture."""
    bounds = mask.getbbox()
    assert bounds is not None
    wanted = (request.width or 1, request.height or 1)
    low = [max(bounds[axis] - request.padding, 0) for axis in (0, 1)]
    high = [min(bounds[axis + 2] + request.padding, mask.size[axis]) for axis in (0, 1)]
    sides = [high[axis] - low[axis] for axis in (0, 1)]
    for axis, other in ((0, 1), (1, 0)):
        side = min(max(sides[axis], round(sides[other] * wanted[axis] / wanted[other])), mask.size[axis])
        first = min(max(low[axis] - (side - sides[axis]) // 2, 0), mask.size[axis] - side)
        low[axis], high[axis] = first, first + side
    return (low[0], low[1], high[0], high[1])


def repainted(model: LatentDiffusion, request: Request, noise: Noise, area: Area) -> Plan:
    """The plan of drawing anew what is under the mask of an area, from the request's strength on."""
    area, rows = area.worked(request), len(noise.seeds)
    image, mask = pixels(area.picture), levels(area.mask)
    cells = F.max_pool2d(mask, model.config.autoencoder.factor)  # 1 1 h w: anew where any of its pixels is
    known, steering = in_rows(encoded(model, image), rows), prompted(model, request, noise)
    if has_mask(model):
        steering = steering.beside(in_rows(shown(model, image, mask), rows))
    filled = _filled(model, request, area, known, cells)
    begun = from_latent(model, request, noise, filled, steering)
    if has_mask(model):
        return begun
    return keeping(model, request, begun, known, cells.to(known))


def _filled(model: LatentDiffusion, request: Request, area: Area, known: Tensor, cells: Tensor) -> Tensor:
    """What is under the mask before anything is drawn there, as latents. Noise for it has streams of its own: what is
    added to start with stays what the seeds say."""
    cells = cells.to(known)
    match request.fill:
        case "original":
            return known
        case "colours":
            return in_rows(encoded(model, pixels(spread(area.picture, area.mask))), len(known))
        case "noise":
            drawn = [torch.randn(known.shape[1:], generator=generator(seed, "fill")) for seed in request.seeds]
            return known * (1 - cells) + torch.stack(drawn).to(known) * cells
        case "nothing":
            return known * (1 - cells)


def spread(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with the colours around the mask drawn into it, the farther from its edge the smoother."""
    known = picture.convert("RGBA")
    known.putalpha(ImageChops.invert(mask))
    result = Image.new("RGBA", picture.size)
    premultiplied = known.convert("RGBa")
    for radius in (256, 64, 16, 4, 1):
        blurred = premultiplied.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        whole = np.asarray(blurred).copy()
        whole[..., 3] = np.minimum(whole[..., 3].astype(np.int32) * 8, 255).astype(np.uint8)
        result.alpha_composite(Image.fromarray(whole, "RGBA"))
    result.alpha_composite(known)
    return result.convert("RGB")


def levels(mask: Image.Image) -> Tensor:
    """An L picture as 1 1 H W in [0, 1]."""
    return torch.from_numpy(np.array(mask))[None, None].float() / 255


def composed(request: Request, drawn: Sequence[Image.Image], area: Area) -> list[Image.Image]:
    """The pictures with what was drawn in its place; without a step nothing is."""
    return [area.composed(one) for one in drawn] if drawn else [area.picture.copy() for _ in request.seeds]
