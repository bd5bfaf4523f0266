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

    scale: of classifier-free guidance; 1 is the conditional answer alone. pag_scale: of perturbed attention guidance, 0
    is none. rescale: share, 0 to 1, in which the result gets the conditional answer's standard deviation back.
    threshold: the quantile of sizes that dynamic thresholding brings back to the conditional answer's. start, end:
    noise levels between which guidance acts (end < sigma <= start; elsewhere the conditional answer alone).
    """

    scale: float = 1.0
    pag_scale: float = 0.0
    rescale: float = 0.0
    threshold: float | None = None
    start: float = math.inf
    end: float = 0.0


def guided(
    denoiser: Denoiser,
    conds: Sequence[Weighted],
    uncond: Conditioning | None,
    guidance: Guidance,
    away: Weighted | None = None,
) -> Denoise:
    """uncond + scale * sum of weight * (cond - uncond), in x0 (Ho & Salimans 2022, eq. 6; Liu et al. 2022, eq. 11, for
    several conditionings: A1111's AND).

    `away`: what the unconditional answer itself is led away from, adding weight * (uncond - away): with the picture
    alone as `uncond`, nothing as `away` and the picture's scale less 1, this is InstructPix2Pix's guidance (Brooks et
    al. 2023, eq. 3). Conditionings of equal shapes run as one batch. Where the unconditional answer has no share, or
    there is no `uncond`, it is not computed. Raises `ValueError` for several conditionings that need an `uncond` and
    have none, and for a `pag_scale` that the network cannot serve.
    """
    inside = _guided(denoiser, conds, uncond, guidance, away)
    if guidance.start == math.inf and guidance.end <= 0:
        return inside
    outside = _guided(denoiser, conds, uncond, Guidance(), None)
    return lambda x, sigma: (inside if guidance.end < sigma <= guidance.start else outside)(x, sigma)


def _guided(
    denoiser: Denoiser,
    conds: Sequence[Weighted],
    uncond: Conditioning | None,
    guidance: Guidance,
    away: Weighted | None,
) -> Denoise:
    if not conds:
        raise ValueError("got no conditioning; expected at least one (weight, Conditioning)")
    weights, given = [weight for weight, _ in conds], [cond for _, cond in conds]
    assert away is None or uncond is not None
    needs_uncond = guidance.scale != 1 or not math.isclose(sum(weights), 1) or away is not None
    if needs_uncond and uncond is None and len(conds) > 1:
        raise ValueError(
            f"{len(conds)} conditionings of weights {weights}: give `uncond`, which they are measured from"
        )
    first = [uncond] if uncond is not None and needs_uncond else []
    answers = _answers(denoiser.bind, [*first, *given, *([] if away is None else [away[1]])])
    perturbed = _answers(denoiser.bind_perturbed, given) if guidance.pag_scale else None

    def denoise(x: Tensor, sigma: float) -> Tensor:
        found = answers(x, sigma)
        farther = None if away is None else away[0] * (found[0] - found.pop())
        result = _combined(found, weights, guidance.scale)
        if farther is not None:
            result = result + farther
        if perturbed is not None:
            result = result + guidance.pag_scale * _distance(found[len(first) :], perturbed(x, sigma), weights)
        if not guidance.rescale and guidance.threshold is None:
            return result
        said = _combined(found, weights, 1.0)
        if guidance.rescale:
            kept = float(denoiser.scaling(torch.tensor(sigma, dtype=torch.float64)).skip) * x
            result = kept + rescaled(result - kept, said - kept, guidance.rescale)
        return result if guidance.threshold is None else brought_back(result, said, guidance.threshold)

    return denoise


def rescaled(result: Tensor, cond: Tensor, share: float) -> Tensor:
    """`result` with `share` of the way to the standard deviation of `cond`, per picture (Lin et al. 2023, eq. 15-16).

    Meant for what the network predicts, up to a factor: eps or v, not x0.
    """
    every = tuple(range(1, result.ndim))
    factor = cond.std(dim=every, keepdim=True) / result.std(dim=every, keepdim=True)
    return result * (share * factor + (1 - share))


def brought_back(result: Tensor, cond: Tensor, quantile: float) -> Tensor:
    """Dynamic thresholding for latents, which have no range of their own: sizes are cut at the quantile and scaled to
    that of `cond`, per picture; where the quantile is no larger, they are only cut there."""
    limit = _quantile(cond, quantile)
    size = torch.maximum(_quantile(result, quantile), limit)
    return result.clamp(-size, size) * (limit / size)


def clipped(denoise: Denoise, limit: float = 1.0) -> Denoise:
    """x0 cut to [-limit, limit], the range of pictures (static thresholding of Saharia et al. 2022)."""
    return lambda x, sigma: denoise(x, sigma).clamp(-limit, limit)


def thresholded(denoise: Denoise, quantile: float = 0.995, largest: float = 1.0) -> Denoise:
    """Dynamic thresholding (Saharia et al. 2022, section 2.3): x0 cut to [-s, s] and divided by s, where s is the
    quantile of its sizes, per picture; s is 1 at least and `largest` at most."""

    def denoise_within(x: Tensor, sigma: float) -> Tensor:
        found = denoise(x, sigma)
        size = _quantile(found, quantile).clamp(1.0, largest)
        return found.clamp(-size, size) / size

    return denoise_within


def autoguided(denoise: Denoise, worse: Denoise, scale: float) -> Denoise:
    """Away from what a worse model says of the same (Karras et al. 2024, eq. 3): a smaller or less trained network with
    the same conditioning. At scale 1 the worse one is not asked."""
    if scale == 1:
        return denoise
    return lambda x, sigma: torch.lerp(worse(x, sigma), denoise(x, sigma), scale)


def _quantile(x: Tensor, quantile: float) -> Tensor:
    """Of the sizes in each picture: B 1 1 1."""
    return x.abs().flatten(1).quantile(quantile, dim=1).reshape(-1, *[1] * (x.ndim - 1))


def _combined(found: Sequence[Tensor], weights: Sequence[float], scale: float) -> Tensor:
    """`found`: the unconditional answer and those of the weights; or the latter alone, where it has no share."""
    if len(found) == len(weights):
        return found[0] if len(found) == 1 else _sum(found, weights)
    without, *conds = found
    result = torch.lerp(without, conds[0], scale * weights[0])
    for weight, one in zip(weights[1:], conds[1:], strict=True):
        result = result + scale * weight * (one - without)
    return result


def _distance(found: Sequence[Tensor], others: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return _sum([one - other for one, other in zip(found, others, strict=True)], weights)


def _sum(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = weights[0] * terms[0]
    for weight, term in zip(weights[1:], terms[1:], strict=True):
        total = total + weight * term
    return total


def _answers(
    bind: Callable[[Conditioning], Denoise], conds: Sequence[Conditioning]
) -> Callable[[Tensor, float], list[Tensor]]:
    """The x0 of each; those of equal shapes share a batch, in their order."""
    stacked(*(cond.map(lambda slot: slot.new_empty(0)) for cond in conds))  # refuses different slots
    groups: dict[tuple[torch.Size | None, ...], list[int]] = {}
    for number, cond in enumerate(conds):
        groups.setdefault(cond.shapes, []).append(number)
    calls = [(numbers, bind(stacked(*(conds[number] for number in numbers)))) for numbers in groups.values()]

    def answer(x: Tensor, sigma: float) -> list[Tensor]:
        found = [x] * len(conds)
        for numbers, denoise in calls:
            together = x if len(numbers) == 1 else torch.cat([x] * len(numbers))
            for number, one in zip(numbers, denoise(together, sigma).chunk(len(numbers)), strict=True):
                found[number] = one
        return found

    return answer
