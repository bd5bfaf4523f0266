"""A learned distance between pictures: differences of the features of a network trained here (after Zhang et al. 2018).

`models.lpips.LPIPS` has the same face; here every channel weighs the same, and no weights of others are needed.
"""

from typing import Protocol, Self

from torch import Tensor, nn


class FeatureNetwork(Protocol):
    """A module (`Classifier`, CLIP's image tower) that shows what it finds in pictures on the way."""

    def features(self, image: Tensor) -> list[Tensor]:
        """image: B 3 H W in [-1, 1] -> maps B C h w, one per level, finest first."""
        ...

    def eval(self) -> Self: ...
    def requires_grad_(self, requires_grad: bool = True) -> Self: ...


class FeatureDistance(nn.Module):
    """(a, b: B 3 H W in [-1, 1]) -> B: squared difference of channel-normalised features, summed over levels. The
    network is frozen; the gradient reaches the pictures."""

    def __init__(self, network: FeatureNetwork) -> None:
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
