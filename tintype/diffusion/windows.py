"""Pictures larger than a network was taught: MultiDiffusion (Bar-Tal et al. 2023)."""

import torch
from torch import Tensor

from tintype.diffusion.denoiser import Denoise

Span = tuple[int, int]  # first cell, and the one after the last


def spans(length: int, window: int, stride: int) -> list[Span]:
    """Where windows lie along a side: a stride apart, the last one at its end, however short its stride becomes.

    Raises `ValueError` for a stride that would leave gaps.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"windows of {window} cells, {stride} apart: expected 1 to {window}, so that none is left out")
    window = min(window, length)
    starts = [*range(0, length - window, stride), length - window]
    return [(start, start + window) for start in starts]


def windowed(denoise: Denoise, *, window: int, stride: int) -> Denoise:
    """x0 as the mean of what is estimated in overlapping windows, in cells of the latent; along a side shorter than
    that, one window is as long as it.

    The paper averages what a step makes of each window (eq. 5 with weights of 1). A step of DDIM is linear in x0, so
    that is the same; other samplers walk along the averaged estimate as along any other.
    """

    def denoise_windows(x: Tensor, sigma: float) -> Tensor:
        height, width = x.shape[-2:]
        total, count = torch.zeros_like(x), x.new_zeros(1, 1, height, width)
        for top, bottom in spans(height, window, stride):
            for left, right in spans(width, window, stride):
                total[..., top:bottom, left:right] += denoise(x[..., top:bottom, left:right], sigma)
                count[..., top:bottom, left:right] += 1
        return total / count

    return denoise_windows
