"""What a network predicts, as (c_skip, c_out, c_in): x0 = c_skip * x + c_out * network(c_in * x).

x = x0 + sigma * noise throughout (Karras et al. 2022, eq. 7). Training inverts the same three numbers, so no
prediction type needs a formula of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Prediction = Literal["eps", "v", "x0", "flow", "edm"]
SIGMA_DATA = 0.5  # std of the data EDM's scaling assumes (Karras et al. 2022, table 1)


class Coefficients(NamedTuple):
    """Each of the shape of sigma."""

    skip: Tensor
    out: Tensor
    into: Tensor


Scaling = Callable[[Tensor], Coefficients]


def eps(sigma: Tensor) -> Coefficients:
    """The network predicts the noise (Ho et al. 2020)."""
    return Coefficients(torch.ones_like(sigma), -sigma, (1 + sigma**2) ** -0.5)


def v(sigma: Tensor) -> Coefficients:
    """The network predicts alpha * noise - sigma_vp * x0 (Salimans & Ho 2022, appendix D)."""
    alpha = (1 + sigma**2) ** -0.5
    return Coefficients(alpha**2, -sigma * alpha, alpha)


def x0(sigma: Tensor) -> Coefficients:
    """The network predicts the clean sample."""
    return Coefficients(torch.zeros_like(sigma), torch.ones_like(sigma), (1 + sigma**2) ** -0.5)


def flow(sigma: Tensor) -> Coefficients:
    """The network predicts noise - x0 at z = (x0 + sigma * noise) / (1 + sigma) (Liu et al. 2022)."""
    alpha = 1 / (1 + sigma)
    return Coefficients(alpha, -sigma * alpha, alpha)


def edm(sigma: Tensor) -> Coefficients:
    """Unit-variance input and target for data of std 0.5 (Karras et al. 2022, table 1). For data of std 1, as latents
    are, the same formulas are those of `v` with the sign of the network turned."""
    total = sigma**2 + SIGMA_DATA**2
    return Coefficients(SIGMA_DATA**2 / total, sigma * SIGMA_DATA * total**-0.5, total**-0.5)


def of_std(scaling: Scaling, std: float) -> Scaling:
    """The same for data of this std, where `scaling` is for data of std 1: everything counted in its units."""

    def scaled(sigma: Tensor) -> Coefficients:
        skip, out, into = scaling(sigma / std)
        return Coefficients(skip, out * std, into / std)

    return scaled


SCALINGS: dict[Prediction, Scaling] = {"eps": eps, "v": v, "x0": x0, "flow": flow, "edm": edm}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network of this scaling says at x (B C h w, of a level above 0), from x0 and to the slope dx/dsigma.
    Of `eps` both are the slope."""

    scaling: Scaling
    x: Tensor
    sigma: float

    def of(self, denoised: Tensor) -> Tensor:
        """The answer that means this x0."""
        skip, out, _ = self._coefficients
        return (denoised - skip * self.x) / out

    def slope(self, answer: Tensor) -> Tensor:
        """(x - x0) / sigma of an answer."""
        skip, out, _ = self._coefficients
        return (1 - skip) / self.sigma * self.x - out / self.sigma * answer

    @property
    def _coefficients(self) -> tuple[float, float, float]:
        skip, out, into = (float(one) for one in self.scaling(torch.tensor(self.sigma, dtype=torch.float64)))
        return skip, out, into
