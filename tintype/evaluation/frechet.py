"""Fréchet distance between two sets of features, each taken for a Gaussian (Heusel et al. 2017, section 2).

With features of the Inception network of 2015 it is FID. Means and covariances are running sums in float64: a million
pictures take no more memory than a thousand, and what was summed apart can be joined.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from tintype.common.files import load_metadata, load_tensors, save_tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class Gaussian:
    """mean: D, covariance: D D (divided by count - 1), both float64. count, extractor: None where a file of others does
    not tell how many pictures it was made of, and by which network."""

    mean: Tensor
    covariance: Tensor
    count: int | None = None
    extractor: str | None = None

    @property
    def rank_deficient(self) -> bool:
        """Fewer pictures than features (plus one) leave directions in which nothing was ever seen to vary."""
        return self.count is not None and self.count <= len(self.mean)


def too_few(gaussian: Gaussian) -> str | None:
    """A warning where there are fewer pictures than a covariance of these features needs."""
    if not gaussian.rank_deficient:
        return None
    dim = len(gaussian.mean)
    return (
        f"{gaussian.count} pictures for {dim} features, so the covariance has not full rank and the distance is too "
        f"large; give {dim + 1} or more (papers give 5,000 to 50,000)"
    )


class FrechetStatistics:
    """Mean and scatter of features that come in batches; its size does not depend on how many come."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)  # sum of (x - mean)(x - mean)^T

    def update(self, features: Tensor) -> None:
        """features: B D, any precision, any device. Raises `ValueError` for another D and for what is no number."""
        x = checked(features, len(self.mean)).to("cpu", torch.float64)
        if len(x):
            mean = x.mean(dim=0)
            self._join(len(x), mean, (x - mean).T @ (x - mean))

    def merge(self, other: "FrechetStatistics") -> None:
        """As if the other's batches had come here as well."""
        if len(other.mean) != len(self.mean):
            raise ValueError(f"statistics of {len(other.mean)} features; expected {len(self.mean)}, as those here")
        if other.count:
            self._join(other.count, other.mean, other.scatter)

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Chan, Golub and LeVeque 1979, eq. 2.1: nothing large is subtracted from something large."""
        total = self.count + count
        away = mean - self.mean
        self.scatter += scatter + torch.outer(away, away) * (self.count * count / total)
        self.mean = self.mean + away * (count / total)
        self.count = total

    def gaussian(self, extractor: str | None = None) -> Gaussian:
        """Raises `ValueError` below two pictures, which have no covariance."""
        if self.count < 2:
            raise ValueError(f"statistics of {self.count} pictures; expected 2 or more, for a covariance: add pictures")
        return Gaussian(
            mean=self.mean, covariance=self.scatter / (self.count - 1), count=self.count, extractor=extractor
        )


def checked(features: Tensor, dim: int) -> Tensor:
    """The features. Raises `ValueError` when they are not B dim, or not numbers."""
    if features.ndim != 2 or features.shape[1] != dim:
        raise ValueError(f"features of shape {tuple(features.shape)}; expected B x {dim}: use one extractor for all")
    if not (finite := features.isfinite().all(dim=1)).all():
        raise ValueError(
            f"features of {int((~finite).sum())} of {len(features)} pictures are not numbers (the first: "
            f"{int((~finite).nonzero()[0])}); expected finite ones: is the extractor damaged, or in half precision?"
        )
    return features


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """||m_a - m_b||² + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Dowson and Landau 1982, eq. 4).

    The trace of that root is the sum of the singular values of L_a^T L_b, where L L^T = C. So no root of a product
    that is not symmetric is taken, and covariances without full rank lose no digits.
    Raises `ValueError` for features of two sizes or two extractors.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"statistics of {len(a.mean)} and {len(b.mean)} features; expected those of one extractor")
    if None not in (a.extractor, b.extractor) and a.extractor != b.extractor:
        raise ValueError(f"statistics by {a.extractor} and by {b.extractor}; expected one extractor: measure again")
    overlap = torch.linalg.svdvals(_factor(a.covariance).T @ _factor(b.covariance)).sum()
    return float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * overlap)


def _factor(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()


# On disk


def save_gaussian(path: Path, gaussian: Gaussian) -> None:
    """A safetensors file of `mean` and `covariance`; the rest travels in its header."""
    metadata = {"kind": "statistics", "count": gaussian.count, "extractor": gaussian.extractor}
    save_tensors(path, {"mean": gaussian.mean, "covariance": gaussian.covariance}, metadata)


def load_gaussian(path: Path) -> Gaussian:
    """What `save_gaussian` wrote, or the .npz of pytorch-fid and torch-fidelity (arrays `mu` and `sigma`).

    Raises `ValueError` for anything else.
    """
    if path.suffix == ".npz":
        mean, covariance = _arrays(path)
        return _fitting(path, mean, covariance, None, None)
    match load_metadata(path):
        case {"kind": "statistics", "count": int() | None as count, "extractor": str() | None as extractor}:
            tensors = load_tensors(path)
            if tensors.keys() == {"mean", "covariance"}:
                return _fitting(path, tensors["mean"], tensors["covariance"], count, extractor)
        case _:
            pass
    raise ValueError(f"{path} holds no statistics; expected what --save-statistics writes, or .npz of mu and sigma")


def _arrays(path: Path) -> tuple[Tensor, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return torch.from_numpy(np.array(arrays["mu"])), torch.from_numpy(np.array(arrays["sigma"]))
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise ValueError(f"{path} cannot be read ({error}); expected a .npz of the arrays mu and sigma") from error


def _fitting(path: Path, mean: Tensor, covariance: Tensor, count: int | None, extractor: str | None) -> Gaussian:
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"{path}: mean {tuple(mean.shape)}, covariance {tuple(covariance.shape)}; expected D and D x D"
        )
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise ValueError(f"{path}: its statistics are not all numbers; make them again")
    return Gaussian(mean=mean.double(), covariance=covariance.double(), count=count, extractor=extractor)
