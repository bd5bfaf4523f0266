"""Guidance: from a denoiser and what steers it to one denoise function."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tintype.diffusion.denoiser import Conditioning, Denoise, Denoiser, stacked

Weighted = tuple[float, Conditioning]


@dataclass(frozen=True, kw_only=True, slots=True)
class Guidance:
    """How far to go from the unconditional answer, through the conditional one and beyond.

    scale: of classifier-free guidance; 1 is the conditional answer alone. rescale: share, 0 to 1, in which the result
    gets the conditional answer's standard deviation back. start, end: noise levels between which guidance acts (end <
    sigma <= start; elsewhere the conditional answer alone).
    """

    scale: float = 1.0
    rescale: float = 0.0
    start: float = math.inf
    end: float = 0.0


def guided(denoiser: Denoiser, conds: Sequence[Weighted], uncond: Conditioning | None, guidance: Guidance) -> Denoise:
    """uncond + scale * sum of weight * (cond - uncond), in x0 (Ho & Salimans 2022, eq. 6; Liu et al. 2022, eq. 11, for
    several conditionings: A1111's AND).

    Conditionings of equal shapes run as one batch. Where the unconditional answer has no share, or there is no
    `uncond`, it is not computed. Raises `ValueError` for several conditionings that need an `uncond` and have none.
    """
    inside = _guided(denoiser, conds, uncond, guidance)
    if guidance.start == math.inf and guidance.end <= 0:
        return inside
    outside = _guided(denoiser, conds, uncond, Guidance())
    return lambda x, sigma: (inside if guidance.end < sigma <= guidance.start else outside)(x, sigma)


def _guided(denoiser: Denoiser, conds: Sequence[Weighted], uncond: Conditioning | None, guidance: Guidance) -> Denoise:
    if not conds:
        raise ValueError("got no conditioning; expected at least one (weight, Conditioning)")
    weights, scale = [weight for weight, _ in conds], guidance.scale
    needs_uncond = scale != 1 or not math.isclose(sum(weights), 1)
    if needs_uncond and uncond is None and len(conds) > 1:
        raise ValueError(
            f"{len(conds)} conditionings of weights {weights}: give `uncond`, which they are measured from"
        )
    if uncond is None or not needs_uncond:
        only = _answers(denoiser, [cond for _, cond in conds])
        return lambda x, sigma: _weighted(only(x, sigma), weights if len(conds) > 1 else [1.0])
    every = _answers(denoiser, [uncond, *(cond for _, cond in conds)])

    def denoise(x: Tensor, sigma: float) -> Tensor:
        without, *found = every(x, sigma)
        result = _beyond(without, found, weights, scale)
        if guidance.rescale:
            kept = float(denoiser.scaling(torch.tensor(sigma, dtype=torch.float64)).skip) * x
            result = kept + rescaled(result - kept, _beyond(without, found, weights, 1) - kept, guidance.rescale)
        return result

    return denoise


def rescaled(result: Tensor, cond: Tensor, share: float) -> Tensor:
    """`result` with `share` of the way to the standard deviation of `cond`, per picture (Lin et al. 2023, eq. 15-16).

    Meant for what the network predicts, up to a factor: eps or v, not x0.
    """
    every = tuple(range(1, result.ndim))
    factor = cond.std(dim=every, keepdim=True) / result.std(dim=every, keepdim=True)
    return result * (share * factor + (1 - share))


def _beyond(without: Tensor, found: Sequence[Tensor], weights: Sequence[float], scale: float) -> Tensor:
    result = torch.lerp(without, found[0], scale * weights[0])
    for weight, one in zip(weights[1:], found[1:], strict=True):
        result = result + scale * weight * (one - without)
    return result


def _weighted(found: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    result = found[0] if weights[0] == 1 else weights[0] * found[0]
    for weight, one in zip(weights[1:], found[1:], strict=True):
        result = result + weight * one
    return result


def _answers(denoiser: Denoiser, conds: Sequence[Conditioning]) -> Callable[[Tensor, float], list[Tensor]]:
    """The x0 of each; those of equal shapes share a batch, in their order."""
    stacked(*(cond.map(lambda slot: slot.new_empty(0)) for cond in conds))  # refuses different slots
    groups: dict[tuple[torch.Size | None, ...], list[int]] = {}
    for number, cond in enumerate(conds):
        groups.setdefault(cond.shapes, []).append(number)
    calls = [(numbers, denoiser.bind(stacked(*(conds[number] for number in numbers)))) for numbers in groups.values()]

    def answer(x: Tensor, sigma: float) -> list[Tensor]:
        found = [x] * len(conds)
        for numbers, denoise in calls:
            together = x if len(numbers) == 1 else torch.cat([x] * len(numbers))
            for number, one in zip(numbers, denoise(together, sigma).chunk(len(numbers)), strict=True):
                found[number] = one
        return found

    return answer
