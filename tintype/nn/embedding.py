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


def guidance_embedding(scale: float, dim: int, *, device: torch.device) -> Tensor:
    """A guidance scale -> 1 dim, float32, as latent consistency models are told it (Luo et al. 2023, appendix): sines
    first, then cosines, of 1000 (scale - 1), the frequencies' last one included. `dim` must be even."""
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=device)
    angles = 1000 * (scale - 1) * torch.exp(steps * (-math.log(10_000.0) / (half - 1)))
    return torch.cat((angles.sin(), angles.cos()))[None]
