"""Numbers as vectors."""

import math

import torch
from torch import Tensor


def timestep_embedding(t: Tensor, dim: int, *, max_period: float = 10_000.0) -> Tensor:
    """t: any shape, in steps (may be fractional) -> the same shape + `dim`, float32: cosines first, then sines.

    Attention Is All You Need, section 3.5, in the order of latent-diffusion (diffusers: flip_sin_to_cos, shift 0).
    `dim` must be even.
    """
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[..., None] * torch.exp(steps * (-math.log(max_period) / half))
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
