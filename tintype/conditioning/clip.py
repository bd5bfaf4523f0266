"""A CLIP that can be asked: pictures and captions in, features of length 1 and their likeness out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tintype.conditioning.text import TextConfig, TextReader, Tokens
from tintype.models.clip_pair import CLIP, CLIPConfig

T = TypeVar("T")
Picture = Image.Image | NDArray[np.uint8]  # an array: H W 3
Scale = Literal["hessel", "percent"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CLIPModelConfig:
    """words: those it was taught (see `TextConfig`); none: all of CLIP's vocabulary."""

    clip: CLIPConfig
    words: tuple[str, ...] = ()

    @property
    def text(self) -> TextConfig:
        return TextConfig(clip=self.clip.text, words=self.words, pooled=True)


class CLIPModel:
    """A network, its vocabulary and how it wants pictures. Features are B D float32, on the CPU."""

    def __init__(self, network: CLIP, words: tuple[str, ...] = (), *, batch_size: int = 64) -> None:
        self.network = network.eval()
        self.config = CLIPModelConfig(clip=network.config, words=words)
        self.batch_size = batch_size
        self._reader = TextReader(self.config.text)

    def tokens(self, captions: Sequence[str]) -> Tokens:
        return self._reader.tokens(captions)

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[Picture]) -> Tensor:
        """Each resized and cropped as the network wants it."""
        size, device = self.network.config.image.image_size, self.network.logit_scale.device
        found = [
            self.network.encode_image(torch.stack([to_pixels(one, size) for one in some]).to(device)).cpu()
            for some in _batches(pictures, self.batch_size)
        ]
        return torch.cat(found)

    @torch.inference_mode()
    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        device = self.network.logit_scale.device
        every = (self.tokens(some) for some in _batches(captions, self.batch_size))
        return torch.cat([self.network.encode_text(ids.to(device), end.to(device)).cpu() for ids, end in every])

    def likeness(self, pictures: Sequence[Picture], captions: Sequence[str]) -> Tensor:
        """The cosine of each picture and its caption: B, from -1 to 1."""
        if len(pictures) != len(captions) or not captions:
            raise ValueError(f"{len(pictures)} pictures, {len(captions)} captions; expected as many, one or more")
        return (self.encode_pictures(pictures) * self.encode_captions(captions)).sum(dim=1)

    def score(self, pictures: Sequence[Picture], captions: Sequence[str], *, scale: Scale = "hessel") -> Tensor:
        """CLIP score of each picture and its caption: B. See `clip_score`."""
        return clip_score(self.likeness(pictures, captions), scale=scale)


def clip_score(cosines: Tensor, *, scale: Scale = "hessel") -> Tensor:
    """hessel: 2.5 * max(cos, 0) (Hessel et al. 2021, CLIPScore, section 3). percent: 100 * cos, whose mean over a data
    set torchmetrics reports (as 0 where it is below)."""
    return 2.5 * cosines.clamp(min=0) if scale == "hessel" else 100 * cosines


def to_pixels(picture: Picture, size: int) -> Tensor:
    """3 S S in [-1, 1]: the shorter side resized to S (bicubic) and the middle cut out, as OpenAI's CLIP does."""
    image = (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).convert("RGB")
    width, height = image.size
    short = min(width, height)
    if short != size:
        image = image.resize((int(size * width / short), int(size * height / short)), Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in image.size)
    image = image.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def _batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    if not items:
        raise ValueError("nothing to read; expected one or more pictures or captions")
    return [items[first : first + size] for first in range(0, len(items), size)]
