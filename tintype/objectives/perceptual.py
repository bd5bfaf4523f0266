"""A learned distance between pictures: differences of a classifier's features (after Zhang et al. 2018, LPIPS).

Not LPIPS itself: no VGG weights, and every channel weighs the same.
"""

from torch import Tensor, nn

from tintype.models.classifier import Classifier


class FeatureDistance(nn.Module):
    """(a, b: B 3 H W in [-1, 1]) -> B: squared difference of channel-normalised features, summed over levels."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(self.network.features(a), self.network.features(b), strict=True)
        levels = [(_normalised(x) - _normalised(y)).square().sum(dim=1).mean(dim=(1, 2)) for x, y in pairs]
        total = levels[0]
        for level in levels[1:]:
            total = total + level
        return total


def _normalised(x: Tensor) -> Tensor:
    x = x.float()
    return x / (x.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
