"""CompVis's own first-stage losses: of ldm-fix (latent-diffusion's), with what they take from taming-transformers.

Their LPIPS would fetch its weights: any other distance takes its place (ours is compared in test_lpips_files.py).
"""

import sys
from types import ModuleType
from unittest.mock import patch

from torch import Tensor, nn


def compvis_losses(distance: nn.Module) -> tuple[type[nn.Module], type[nn.Module]]:
    """LPIPSWithDiscriminator and VQLPIPSWithDiscriminator with this perceptual distance, (a, b) -> B."""

    class Distance(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return distance(a, b)[:, None, None, None]

    vision = {"torchvision": ModuleType("torchvision"), "torchvision.models": ModuleType("torchvision.models")}
    vision["torchvision"].models = vision["torchvision.models"]
    with patch.dict(sys.modules, vision):
        from ldm.modules.losses import contperceptual, vqperceptual

    for module in (contperceptual, vqperceptual):
        module.LPIPS = Distance
    vqperceptual.exists = lambda value: value is not None  # which it forgets to import
    return contperceptual.LPIPSWithDiscriminator, vqperceptual.VQLPIPSWithDiscriminator
