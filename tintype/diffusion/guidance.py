"""Guidance: from a denoiser and two conditionings to one denoise function."""

import torch
from torch import Tensor

from tintype.diffusion.denoiser import Conditioning, Denoise, Denoiser, stacked


def cfg(denoiser: Denoiser, cond: Conditioning, uncond: Conditioning | None, scale: float) -> Denoise:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6, in x0): uncond + scale * (cond - uncond).

    Both halves run as one batch; at scale 1, or without `uncond`, only the conditional one runs.
    """
    if scale == 1 or uncond is None:
        return denoiser.bind(cond)
    both = denoiser.bind(stacked(uncond, cond))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        without, with_cond = both(torch.cat((x, x)), sigma).chunk(2)
        return torch.lerp(without, with_cond, scale)

    return denoise
