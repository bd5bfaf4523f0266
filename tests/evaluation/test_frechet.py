"""Fréchet distances: closed forms, the references' arithmetic, and statistics that come in pieces."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fidelity_oracle import fid_features_to_statistics, fid_statistics_to_metric, torchmetrics_frechet_distance
from torch import Tensor

from tintype.evaluation.frechet import FrechetStatistics, Gaussian, frechet_distance, load_gaussian, save_gaussian

DIM = 12


def features(count: int, seed: int, *, dim: int = DIM) -> Tensor:
    """Correlated, far from zero, so that a sloppy covariance shows."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return mixed @ torch.randn(dim, dim, generator=generator, dtype=torch.float64) + 30 + seed


def gaussian(x: Tensor, *, batch: int = 7) -> Gaussian:
    statistics = FrechetStatistics(x.shape[1])
    for part in x.split(batch):
        statistics.update(part)
    return statistics.gaussian()


def test_running_moments_are_those_of_all_at_once() -> None:
    x = features(100, 0)
    told = gaussian(x)
    assert told.count == 100
    np.testing.assert_allclose(told.mean, x.mean(dim=0), rtol=1e-13)
    np.testing.assert_allclose(told.covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-11, atol=1e-11)


def test_a_covariance_beside_a_huge_mean_keeps_its_digits() -> None:
    x = features(500, 1) + 1e6
    np.testing.assert_allclose(gaussian(x).covariance, np.cov((x - 1e6).numpy(), rowvar=False), rtol=1e-7)


def test_merged_statistics_are_those_of_both() -> None:
    x, parts = features(90, 2), (FrechetStatistics(DIM), FrechetStatistics(DIM))
    parts[0].update(x[:31])
    parts[1].update(x[31:])
    parts[0].merge(parts[1])
    parts[0].merge(FrechetStatistics(DIM))
    np.testing.assert_allclose(parts[0].gaussian().covariance, gaussian(x).covariance, rtol=1e-10, atol=1e-10)
    assert parts[0].count == 90


@pytest.mark.parametrize("counts", [(200, 300), (8, 300), (9, 7)])
def test_distances_are_those_of_torch_fidelity_and_torchmetrics(counts: tuple[int, int]) -> None:
    """Also where there are fewer samples than features: there the references' own root is good to 1e-6 or so."""
    x, y = (features(count, seed) for seed, count in enumerate(counts))
    got = frechet_distance(gaussian(x), gaussian(y))
    theirs = [fid_features_to_statistics(one) for one in (x, y)]
    loss = 1e-11 if min(counts) > DIM else 1e-6
    expected = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    assert got == pytest.approx(expected, rel=loss)
    a, b = gaussian(x), gaussian(y)
    assert got == pytest.approx(
        float(torchmetrics_frechet_distance(a.mean, a.covariance, b.mean, b.covariance)), rel=loss
    )


def test_distance_of_diagonal_gaussians_in_closed_form() -> None:
    a = Gaussian(mean=torch.tensor([0.0, 0.0]).double(), covariance=torch.diag(torch.tensor([4.0, 1.0]).double()))
    b = Gaussian(mean=torch.tensor([3.0, 4.0]).double(), covariance=torch.diag(torch.tensor([1.0, 9.0]).double()))
    assert frechet_distance(a, b) == pytest.approx(25 + (2 - 1) ** 2 + (1 - 3) ** 2, rel=1e-14)


def test_equal_sets_are_at_distance_nought_even_without_full_rank() -> None:
    """The usual root of the product is off by 1e-6 here."""
    told = gaussian(features(20, 3, dim=64))
    assert told.rank_deficient
    assert abs(frechet_distance(told, told)) < 1e-9
    assert not gaussian(features(14, 3)).rank_deficient
    assert gaussian(features(12, 3)).rank_deficient


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_no_numbers_are_refused(bad: float) -> None:
    x = features(5, 0)
    x[3, 2] = bad
    statistics = FrechetStatistics(DIM)
    with pytest.raises(ValueError, match=r"1 of 5 pictures are not numbers \(the first: 3\)"):
        statistics.update(x)
    assert statistics.count == 0


def test_statistics_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected B x 12"):
        FrechetStatistics(DIM).update(torch.zeros(3, 11))
    with pytest.raises(ValueError, match="statistics of 11 features; expected 12"):
        FrechetStatistics(DIM).merge(FrechetStatistics(11))
    with pytest.raises(ValueError, match="of 1 pictures; expected 2"):
        gaussian(features(1, 0))
    with pytest.raises(ValueError, match="12 and 13 features"):
        frechet_distance(gaussian(features(20, 0)), gaussian(features(20, 0, dim=13)))
    a = gaussian(features(20, 0))
    named = [Gaussian(mean=a.mean, covariance=a.covariance, extractor=name) for name in ("inception", "judge")]
    with pytest.raises(ValueError, match="by inception and by judge; expected one extractor"):
        frechet_distance(*named)
    assert abs(frechet_distance(a, named[1])) < 1e-9


def test_statistics_are_saved_and_opened(tmp_path: Path) -> None:
    a = gaussian(features(20, 0))
    told = Gaussian(mean=a.mean, covariance=a.covariance, count=20, extractor="inception-123")
    save_gaussian(tmp_path / "ref.safetensors", told)
    again = load_gaussian(tmp_path / "ref.safetensors")
    assert torch.equal(again.mean, told.mean)
    assert torch.equal(again.covariance, told.covariance)
    assert (again.count, again.extractor) == (20, "inception-123")
    np.savez(tmp_path / "ref.npz", mu=a.mean.numpy(), sigma=a.covariance.numpy())
    others = load_gaussian(tmp_path / "ref.npz")
    assert torch.equal(others.covariance, told.covariance)
    assert (others.count, others.extractor) == (None, None)


def test_files_without_statistics_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", mean=np.zeros(2))
    np.savez(tmp_path / "shape.npz", mu=np.zeros(2), sigma=np.zeros((3, 3)))
    np.savez(tmp_path / "pickle.npz", mu=np.array([{}], dtype=object), sigma=np.zeros((1, 1)))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut")
    for name in ("other", "shape", "pickle", "cut", "absent"):
        with pytest.raises(ValueError, match=name):
            load_gaussian(tmp_path / f"{name}.npz")
    weights = Path(__file__).parents[2] / "tintype" / "weights" / "judge.safetensors"
    with pytest.raises(ValueError, match="holds no statistics; expected what --save-statistics writes"):
        load_gaussian(weights)
