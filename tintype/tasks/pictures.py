"""The pictures that a request names: read, brought to size, encoded; and told apart by their pixels."""

import base64
import binascii
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tintype.data.pictures import Limits, Refused, encode, read_classes, read_picture
from tintype.families.base import LatentDiffusion
from tintype.tasks.loras import given_again, told_loras
from tintype.tasks.request import LARGEST_SIDE, NAMED, Request

LIMITS = Limits(max_pixels=LARGEST_SIDE**2)
NUMBERS = ("map",)  # those whose pixels are numbers of classes, whatever they look like
BY_DIGEST = "sha256:"


def read(request: Request, name: str) -> Image.Image:
    """The RGB picture in this field of a request, or the L one of class numbers. Raises `ValueError` where there is
    none that can be read."""
    source: str | None = getattr(request, name)
    if source is None:
        wanted = "begins with a picture" if name == "image" else f"needs a {name}"
        raise ValueError(f"{request.task} {wanted}; expected one: --{name} FILE")
    if source.startswith(BY_DIGEST):
        raise ValueError(f"{name}: the picture it was made from is not stored in it; give it: --{name} FILE")
    shown = f"{source[:20]}…" if source.startswith("data:") else source
    try:
        content = _content(source)
        if name in NUMBERS:
            return Image.fromarray(read_classes(content, LIMITS))
        return read_picture(content, LIMITS).image
    except OSError as error:
        raise ValueError(f"{name} {shown}: {error.strerror}; expected a picture") from error
    except Refused as error:
        raise ValueError(f"{name} {shown} is no picture that can be used ({error})") from error


def _content(source: str) -> bytes:
    if not source.startswith("data:"):
        return Path(source).read_bytes()
    head, _, text = source.partition(",")
    try:
        if not head.endswith(";base64"):
            raise binascii.Error("no ;base64, in it")
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Refused("not a data URL", f"{error}; expected data:image/png;base64,…") from error


def data_url(picture: Image.Image) -> str:
    """A picture as a request names one that is in no file."""
    return "data:image/png;base64," + base64.b64encode(encode(picture, "png")).decode()


def digest(picture: Image.Image) -> str:
    """Of its size and pixels, however it is stored."""
    told = f"{picture.mode} {picture.width} {picture.height} ".encode()
    return BY_DIGEST + hashlib.sha256(told + picture.tobytes()).hexdigest()[:32]


def referred(request: Request) -> Request:
    """The request as a picture tells it: other pictures and LoRAs by their digests, so that no path of a user's and no
    picture of his travels in it."""
    pictures = {name: digest(read(request, name)) for name in NAMED if getattr(request, name) is not None}
    return dataclasses.replace(request, **pictures, lora=told_loras(request.lora))


def repeated_with(told: Request, given: Request) -> Request:
    """A request that tells its pictures and LoRAs by digests, with these given again. Raises `ValueError` for one that
    is another."""
    for name in NAMED:
        expected: str | None = getattr(told, name)
        if expected is None:
            continue
        if getattr(given, name) is None:
            raise ValueError(f"{name}: the picture it was made from is not stored in it; give it: --{name} FILE")
        if (got := digest(read(given, name))) != expected:
            raise ValueError(f"{name} {getattr(given, name)} is another picture ({got}); expected {expected}")
    pictures = {name: getattr(given, name) for name in NAMED}
    return dataclasses.replace(told, **pictures, lora=given_again(told.lora, given.lora))


def sized_as(request: Request, picture: Image.Image) -> Request:
    """Width and height where they are not asked for."""
    return dataclasses.replace(request, width=request.width or picture.width, height=request.height or picture.height)


def fitted(picture: Image.Image, request: Request) -> Image.Image:
    """The picture at the request's size: stretched to it, its middle cut to its shape, or whole in it with its edges
    drawn out."""
    assert request.width is not None
    assert request.height is not None
    size = (request.width, request.height)
    if picture.size == size:
        return picture
    match request.resize:
        case "stretch":
            return picture.resize(size, Image.Resampling.LANCZOS)
        case "crop":
            return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        case "fill":
            inside = ImageOps.contain(picture, size, Image.Resampling.LANCZOS)
            across, down = ((size[axis] - inside.size[axis]) // 2 for axis in (0, 1))
            beyond = ((down, size[1] - inside.height - down), (across, size[0] - inside.width - across))
            more = (*beyond, (0, 0)) if len(inside.getbands()) > 1 else beyond
            return Image.fromarray(np.pad(np.asarray(inside), more, mode="edge"))


def pixels(picture: Image.Image) -> Tensor:
    """An RGB picture as 1 3 H W in [-1, 1]."""
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]  # 1 3 H W
    return values.float() / 127.5 - 1


def encoded(model: LatentDiffusion, image: Tensor) -> Tensor:
    """image: B 3 H W in [-1, 1] -> latents B C h w, wrapped: the posterior's mean, so that the same picture is always
    the same latent."""
    return model.space.wrap(posterior_mean(model, image)).contiguous(memory_format=torch.channels_last)


def posterior_mean(model: LatentDiffusion, image: Tensor) -> Tensor:
    """The same, raw: as the autoencoder gives it."""
    weight = model.autoencoder.post_quant_conv.weight
    return model.autoencoder.encode(image.to(weight)).mean.float()


def in_rows(latent: Tensor, count: int) -> Tensor:
    """One row, `count` times."""
    return latent.expand(count, *latent.shape[1:])
