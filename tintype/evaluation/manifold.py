"""Precision and recall of one set of features against another (Kynkäänniemi et al. 2019, section 3)."""

import torch
from torch import Tensor

from tintype.evaluation.frechet import checked

CHUNK = 1000  # rows of distances at a time


def precision_recall(features: Tensor, reference: Tensor, *, neighbours: int = 3) -> tuple[float, float]:
    """features: N D of pictures, reference: M D -> the share of pictures within the reference's manifold, and the share
    of the reference within the pictures'. A manifold is all that is as near to one of its samples as that one's
    k-th nearest neighbour. Distances in float64. Raises `ValueError` for fewer samples than k + 1.
    """
    check_neighbours(neighbours, len(features), len(reference))
    x, y = (checked(side, features.shape[1]).double().cpu() for side in (features, reference))
    return _share_within(x, y, _radii(y, neighbours)), _share_within(y, x, _radii(x, neighbours))


def check_neighbours(neighbours: int, *counts: int) -> None:
    """Raise `ValueError` where a set of so many samples is too small."""
    if not 1 <= neighbours < (fewest := min(counts)):
        raise ValueError(f"{neighbours} neighbours among {fewest}; expected 1 to {fewest - 1}: give more pictures")


def _radii(samples: Tensor, neighbours: int) -> Tensor:
    """Of each sample the distance to its k-th nearest other: N."""
    parts = [torch.cdist(part, samples).kthvalue(neighbours + 1).values for part in samples.split(CHUNK)]  # 1st: itself
    return torch.cat(parts)


def _share_within(samples: Tensor, centres: Tensor, radii: Tensor) -> float:
    inside = [(torch.cdist(part, centres) <= radii).any(dim=1) for part in samples.split(CHUNK)]
    return float(torch.cat(inside).double().mean())
