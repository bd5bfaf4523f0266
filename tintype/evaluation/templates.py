"""Which emoji is in a picture, by comparing it with every drawing at every place: a judge that learned nothing."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tintype.data.emoji import Emoji
from tintype.data.glyphs import Glyphs

POOL = 2  # pictures are compared at half resolution


class Templates:
    """All emoji at the given longer sides (even numbers of pixels), ready to be slid over pictures."""

    def __init__(self, glyphs: Glyphs, emoji: Sequence[Emoji], sides: Sequence[int]) -> None:
        self.count = len(emoji)
        self._banks = [self._bank(glyphs, emoji, side) for side in sides]

    @staticmethod
    def _bank(glyphs: Glyphs, emoji: Sequence[Emoji], side: int) -> Tensor:
        """N 4 s s premultiplied RGBA in [0, 1], centred, at half resolution."""
        bank = torch.zeros(len(emoji), 4, side, side)
        for number, one in enumerate(emoji):
            glyph = torch.from_numpy(np.array(glyphs.draw(one.character, side))).permute(2, 0, 1) / 255
            top, left = (side - glyph.shape[1]) // 2, (side - glyph.shape[2]) // 2
            bank[number, :, top : top + glyph.shape[1], left : left + glyph.shape[2]] = glyph
        return F.avg_pool2d(bank, POOL)

    def distances(self, image: Tensor, background: Tensor) -> Tensor:
        """image: B 3 H W in [-1, 1] (H and W at least the largest side), background: B 3 in [0, 1] -> B N: the least
        squared error, over sides and places, of `drawing over background` (up to a constant per picture)."""
        small = F.avg_pool2d(image / 2 + 0.5, POOL)
        found: list[Tensor] = []
        for picture, ground in zip(small, background, strict=True):
            residue = (picture - ground[:, None, None])[None]  # 1 3 h w
            each: list[Tensor] = []
            for bank in self._banks:
                drawn = bank[:, :3] - bank[:, 3:] * ground[:, None, None]  # N 3 s s: what the drawing adds
                error = drawn.square().sum(dim=(1, 2, 3))[:, None] - 2 * F.conv2d(residue, drawn)[0].flatten(1)
                each.append(error.amin(dim=1))
            found.append(torch.stack(each).amin(dim=0))
        return torch.stack(found)


def border_colour(image: Tensor) -> Tensor:
    """image: B 3 H W in [-1, 1] -> B 3 in [0, 1]: the median of the two outermost rings of pixels."""
    ring = torch.ones(image.shape[-2:], dtype=torch.bool)
    ring[2:-2, 2:-2] = False
    return (image[..., ring] / 2 + 0.5).median(dim=-1).values
