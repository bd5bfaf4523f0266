"""The denoising loss of samples that training does not see, at fixed noise levels and with fixed noise."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from tintype.common.device import sent
from tintype.common.rng import generator
from tintype.objectives.base import Batch
from tintype.objectives.denoising import DenoisingObjective


def validation_losses(
    objective: DenoisingObjective, batches: Iterable[Batch], sigmas: Sequence[float], *, seed: int
) -> Tensor:
    """The mean distance of answers from targets at each level (K, float64), nothing left out and every level alone.

    A sample's noise is a function of seed, its number and the level, so that losses of two models, or of one at two
    steps, differ by the models alone.
    """
    sums, count = torch.zeros(len(sigmas), dtype=torch.float64), 0
    with torch.inference_mode():
        for batch in batches:
            mean, std = objective.posterior(batch)
            cond = objective.conditioning(batch)
            numbers = range(count, count + len(mean))
            x0 = mean + std * _normal(mean, [(seed, "posterior", number) for number in numbers])
            for place, sigma in enumerate(sigmas):
                noise = _normal(mean, [(seed, place, number) for number in numbers])
                levels = torch.full((len(mean),), sigma, dtype=torch.float64)
                each = objective.distances(x0, levels, noise, cond).flatten(1).mean(dim=1)
                sums[place] += each.double().sum().cpu()
            count += len(mean)
    return sums / count


def _normal(like: Tensor, keys: Sequence[tuple[int | str, ...]]) -> Tensor:
    each = [torch.randn(like.shape[1:], generator=generator(*key)) for key in keys]
    return sent(torch.stack(each), like.device)
