"""Kernel distance, class score, precision and recall: the figures of torch-fidelity and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from fidelity_oracle import isc_features_to_metric, kid_features_to_metric, poly_mmd, prc_features_to_metric
from torch import Tensor

from tintype.evaluation.class_score import ClassScore
from tintype.evaluation.kernel import kernel_distance, squared_mmd
from tintype.evaluation.manifold import precision_recall
from tintype.evaluation.reservoir import Reservoir

DIM = 16


def features(count: int, seed: int, *, away: float = 0.0) -> Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + away


# KID


def test_kernel_distance_is_that_of_torch_fidelity() -> None:
    x, y = features(60, 0), features(50, 1, away=0.3)
    told = kernel_distance(x, y, subsets=7, subset_size=40)
    theirs = kid_features_to_metric(x, y, kid_subsets=7, kid_subset_size=40, verbose=False)
    assert told.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-10)
    assert told.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)


def test_one_subset_is_torchmetrics_mmd() -> None:
    x, y = features(40, 0), features(40, 1, away=0.3)
    assert squared_mmd(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-10)


def test_kernel_distance_of_one_source_is_about_nought() -> None:
    told = kernel_distance(features(400, 0), features(400, 1), subsets=20, subset_size=100)
    assert abs(told.mean) < 3 * told.std / math.sqrt(4)
    assert kernel_distance(features(400, 0), features(400, 1, away=1), subsets=5, subset_size=100).mean > 10 * told.std


def test_subsets_larger_than_a_side_are_refused() -> None:
    with pytest.raises(ValueError, match="subsets of 1000 of 60 and 50 pictures; expected 2 to 50"):
        kernel_distance(features(60, 0), features(50, 1))


# Inception score


def test_class_score_is_that_of_torch_fidelity_with_the_same_groups() -> None:
    logits = 3 * features(70, 2)
    score = ClassScore(DIM, splits=7)
    for first in range(0, 70, 9):
        score.update(logits[first : first + 9], first)
    grouped = logits.reshape(10, 7, DIM).transpose(0, 1).reshape(70, DIM)  # theirs are runs of ten, ours every seventh
    theirs = isc_features_to_metric(grouped, splits=7, shuffle=False)
    assert score.score() == pytest.approx((theirs["inception_score_mean"], theirs["inception_score_std"]), rel=1e-11)


def test_class_scores_of_the_extremes() -> None:
    sure = ClassScore(5, splits=2)
    sure.update(1000 * torch.eye(5).repeat(4, 1), 0)  # each class as often, no doubt at all
    assert sure.score() == pytest.approx((5.0, 0.0))
    alike = ClassScore(5, splits=2)
    alike.update(torch.zeros(20, 5), 0)
    assert alike.score() == pytest.approx((1.0, 0.0))


def test_groups_without_pictures_are_refused() -> None:
    score = ClassScore(DIM)
    score.update(features(9, 0), 0)
    with pytest.raises(ValueError, match="9 pictures in 10 splits; expected 1 in each"):
        score.score()


# Precision and recall


@pytest.mark.parametrize("away", [0.0, 0.5, 30.0])
def test_precision_and_recall_are_those_of_torch_fidelity(away: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tintype.evaluation.manifold.CHUNK", 17)
    x, y = 0.6 * features(60, 0) + away, features(80, 1)
    theirs = prc_features_to_metric(x, y, prc_neighborhood=3, save_cpu_ram=False, verbose=False)
    assert precision_recall(x, y) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-7)
    if away == 0.0:  # narrower than the reference: within it, and not all of it
        precision, recall = precision_recall(x, y)
        assert precision > recall
    if away == 30.0:
        assert precision_recall(x, y) == (0, 0)


def test_a_reference_that_is_missing_a_half_costs_recall_alone() -> None:
    left, right = features(50, 0), features(50, 1, away=40.0)
    assert precision_recall(left, torch.cat([left, right])) == (1.0, 0.5)


def test_pictures_that_are_all_the_same_are_within_their_own_manifold() -> None:
    same = torch.ones(6, DIM)  # of radius 0, whose edge counts
    assert precision_recall(same, same) == (1.0, 1.0)


def test_too_few_for_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match="3 neighbours among 3; expected 1 to 2"):
        precision_recall(features(3, 0), features(9, 0))


# The reservoir


def filled(count: int, size: int, *, batch: int = 8, seed: int = 0) -> Reservoir:
    reservoir = Reservoir(1, size, seed=seed)
    for first in range(0, count, batch):
        last = min(first + batch, count)
        reservoir.update(torch.arange(first, last)[:, None].float(), first)
    return reservoir


def test_a_reservoir_keeps_whole_rows_whatever_the_batches() -> None:
    kept = filled(200, 20)
    assert torch.equal(kept.features[:, 0].long(), kept.positions)
    assert len(kept.positions.unique()) == 20
    assert torch.equal(kept.positions, filled(200, 20, batch=33).positions)
    assert not torch.equal(kept.positions, filled(200, 20, seed=1).positions)
    assert torch.equal(filled(15, 20).positions, torch.arange(15))


def test_a_reservoir_is_fair() -> None:
    """How often each tenth of the positions is kept, over many seeds: binomial, within four standard deviations."""
    kept = np.concatenate([filled(100, 10, batch=50, seed=seed).positions.numpy() for seed in range(300)])
    counts = np.bincount(kept // 10, minlength=10)
    assert abs(counts - 300).max() < 4 * math.sqrt(300)


def test_a_million_rows_take_no_more_room_than_a_thousand() -> None:
    def room(count: int) -> int:
        kept = filled(count, 100, batch=10_000)
        return kept.features.untyped_storage().nbytes() + kept.positions.untyped_storage().nbytes()

    assert room(1_000_000) == room(1_000)
