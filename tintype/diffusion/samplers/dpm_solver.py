"""DPM-Solver (Lu et al. 2022, algorithms 1, 2 and "DPM-Solver-12/23") as k-diffusion has it: levels of its own choice.

Of `sigmas` both take the first and the last above zero; where those end, the picture ends: the last noise stays.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tintype.diffusion.denoiser import Denoise
from tintype.diffusion.step import Normal, Step, ancestral


def dpm_fast(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Normal, *, eta: float = 0.0) -> Iterator[Step]:
    """As many evaluations as `sigmas` has steps, in third-order steps equal in log sigma, the last ones lower."""
    first, last = _ends(sigmas)
    calls = len(sigmas) - 1
    orders = [3] * (calls // 3 - 1) + [2, 1] if calls % 3 == 0 else [3] * (calls // 3) + [calls % 3]
    levels = [first * (last / first) ** (index / len(orders)) for index in range(len(orders) + 1)]
    for index, order in enumerate(orders):
        sigma, to = levels[index], levels[index + 1]
        down, up = _split(sigma, to, eta, last)
        look = _Look(denoise, x, sigma)
        x = look.at_order(order, down)
        if up > 0:
            x = x + up * noise.normal(x.shape[1:])
        yield Step(index, len(orders), to, x, look.denoised)


def dpm_adaptive(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    noise: Normal,
    *,
    eta: float = 0.0,
    rtol: float = 0.05,
    atol: float = 0.0078,
) -> Iterator[Step]:
    """DPM-Solver-23: steps of log sigma as long as second and third order agree. The whole batch shares them."""
    sigma, last = _ends(sigmas)
    h, index, before = 0.05, 0, x
    while math.log(sigma / last) > 1e-5:
        to = max(last, sigma * math.exp(-h))
        down, up = _split(sigma, to, eta, last)
        look = _Look(denoise, x, sigma)
        low, high = look.second(down, 1 / 3), look.third(down)
        allowed = torch.maximum(rtol * torch.maximum(low.abs(), before.abs()), torch.tensor(atol))
        error = float((((low - high) / allowed) ** 2).mean().sqrt())
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / (1.5 if eta else 3)) - 1)
        h *= factor
        if factor < 0.81:
            continue
        before, x, sigma = low, high, to
        if up > 0:
            x = x + up * noise.normal(x.shape[1:])
        left = math.ceil(math.log(sigma / last) / h) if sigma > last else 0
        yield Step(index, index + 1 + left, to, x, look.denoised)
        index += 1


def _ends(sigmas: Tensor) -> tuple[float, float]:
    first, last = float(sigmas[0]), float(sigmas[sigmas > 0][-1])
    if first == last:
        raise ValueError("one step: this sampler walks between the first and the last level above 0; use 2 or more")
    return first, last


def _split(sigma: float, to: float, eta: float, last: float) -> tuple[float, float]:
    down = max(last, ancestral(sigma, to, eta)[0])
    return down, max(to**2 - down**2, 0.0) ** 0.5


class _Look:
    """One look at x, and steps of rising order that begin with it; what they share is evaluated once."""

    def __init__(self, denoise: Denoise, x: Tensor, sigma: float) -> None:
        self.denoise, self.x, self.sigma = denoise, x, sigma
        self.denoised = denoise(x, sigma)
        self.slope = (x - self.denoised) / sigma
        self._partway: dict[float, Tensor] = {}

    def at_order(self, order: int, to: float) -> Tensor:
        return self.first(to) if order == 1 else self.second(to) if order == 2 else self.third(to)

    def first(self, to: float) -> Tensor:
        return self.x + (to - self.sigma) * self.slope

    def second(self, to: float, part: float = 1 / 2) -> Tensor:
        ahead = self._slope_at(to, part)
        return self.first(to) + (to - self.sigma) / (2 * part) * (ahead - self.slope)

    def third(self, to: float) -> Tensor:
        h = math.log(self.sigma / to)
        ahead = self._slope_at(to, 1 / 3)
        level = self.sigma * math.exp(-2 / 3 * h)
        bent = 2 * ((self.sigma - level) / (2 / 3 * h) - level)
        guess = self.first(level) - bent * (ahead - self.slope)
        farther = (guess - self.denoise(guess, level)) / level
        return self.first(to) - 1.5 * ((self.sigma - to) / h - to) * (farther - self.slope)

    def _slope_at(self, to: float, part: float) -> Tensor:
        """After Euler over `part` of the step, in log sigma."""
        if part not in self._partway:
            level = self.sigma * (to / self.sigma) ** part
            guess = self.first(level)
            self._partway[part] = (guess - self.denoise(guess, level)) / level
        return self._partway[part]
