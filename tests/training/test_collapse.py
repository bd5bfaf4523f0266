"""A network that tells nothing apart is warned of while it trains; one that learns is not."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_contrastive import KINDS, Kind, eight, make
from tiny_training import CONFIG
from torch import Tensor

from tintype.objectives.contrastive import ContrastiveObjective, loss_at_chance
from tintype.training.collapse import CollapseWatch
from tintype.training.loop import train


class Eight:
    """The same eight pairs at every step."""

    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        assert (first % 8, count) == (0, 8)
        return eight()


@torch.no_grad()
def one_picture(objective: ContrastiveObjective) -> None:
    """All pictures have one feature: the norm before the projection has nothing of them left."""
    norm = objective.clip.image.norm
    norm.weight.zero_()
    norm.bias.fill_(0.5)


@torch.no_grad()
def one_text(objective: ContrastiveObjective) -> None:
    norm = objective.clip.text.norm
    norm.weight.zero_()
    norm.bias.fill_(0.5)


def said(
    kind: Kind, spoil: Callable[[ContrastiveObjective], None], out: Path, caplog: pytest.LogCaptureFixture
) -> list[str]:
    objective = make(kind)
    spoil(objective)
    still = spoil in (one_picture, one_text)
    config = dataclasses.replace(
        CONFIG, steps=35, batch_size=8, warmup=1, learning_rate=1e-9 if still else 5e-3, weight_decay=0.0
    )
    watch = CollapseWatch(chance=loss_at_chance(kind, 8), after=15, every=10)
    out.mkdir(exist_ok=True)
    with caplog.at_level(logging.WARNING, logger="tintype.training"):
        train(objective, Eight(), config, out, hooks=[watch])
    return [record.getMessage() for record in caplog.records]


def test_one_feature_for_all_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, at the first look."""
    [warning] = said("softmax", one_picture, tmp_path, caplog)
    assert warning.startswith("step 25: the mean cosine between different images is 1.0000; the loss is ")
    assert "is what guessing gives" in warning
    assert "lower train.learning_rate" in warning
    assert "texts" not in warning


def test_one_feature_for_all_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    [warning] = said("sigmoid", one_text, tmp_path, caplog)
    assert "the mean cosine between different texts is 1.0000" in warning


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_learns(kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert said(kind, lambda objective: None, tmp_path, caplog) == []
