"""Kernel distance between two sets of features; with Inception's it is KID (Bińkowski et al. 2018, section 4)."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tintype.evaluation.frechet import checked

DEGREE = 3
SEED = 2020  # torch-fidelity's, so that the same features give the same subsets and so the same figure


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelDistance:
    """Over `subsets` draws of `subset_size` from each side: the mean, and how far single draws are from it."""

    mean: float
    std: float
    subsets: int
    subset_size: int


def kernel_distance(
    features: Tensor, reference: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = SEED
) -> KernelDistance:
    """features: N D, reference: M D. The mean of unbiased estimates of MMD² for the kernel (x·y / D + 1)³, in float64.

    It may fall a little below 0 where both are alike. Raises `ValueError` when a side has not a subset's size.
    """
    fewest = min(len(features), len(reference))
    if not 2 <= subset_size <= fewest:
        raise ValueError(
            f"subsets of {subset_size} of {len(features)} and {len(reference)} pictures; expected 2 to {fewest} a "
            "subset: give a smaller size, or more pictures"
        )
    if subsets < 1:
        raise ValueError(f"{subsets} subsets; expected 1 or more")
    x, y = (checked(side, features.shape[1]).double().cpu() for side in (features, reference))
    draw = np.random.RandomState(seed)
    estimates: list[float] = []
    for _ in range(subsets):
        chosen, other = (draw.choice(len(side), subset_size, replace=False) for side in (x, y))
        estimates.append(squared_mmd(x[chosen], y[other]))
    return KernelDistance(
        mean=float(np.mean(estimates)), std=float(np.std(estimates)), subsets=subsets, subset_size=subset_size
    )


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased (Gretton et al. 2012, eq. 3), of N D and N D: no sample is compared with itself."""
    count = len(x)
    within = sum(float(k.sum() - k.diagonal().sum()) for k in (_kernel(x, x), _kernel(y, y)))
    return within / (count * (count - 1)) - 2 * float(_kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** DEGREE
