"""A small picture beside the noise of a model that draws a larger one (Ho et al. 2021; LDM's super-resolution)."""

import torch.nn.functional as F
from torch import Tensor


def noised(low: Tensor, noise: Tensor, sigma: float | Tensor) -> Tensor:
    """The small picture, or its latent, with noise of this level, as large as without: conditioning augmentation."""
    return (low + sigma * noise) / (1 + sigma**2) ** 0.5


def enlarged(low: Tensor, scale: int) -> Tensor:
    """low: B 3 H W in [-1, 1] -> B 3 H*scale W*scale, by bicubic weights."""
    return F.interpolate(low, scale_factor=scale, mode="bicubic").clamp(-1, 1)
