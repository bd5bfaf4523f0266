"""Which parts of pictures training draws anew, and what it says is there."""

import numpy as np
import pytest
import torch

from tintype.common.rng import generator
from tintype.conditioning.layout import Box, Region
from tintype.conditioning.objects import ObjectsConfig
from tintype.data.holes import objects, repainted
from tintype.data.samples import Sample

BOXES = (
    Box(label=3, region=Region(left=0.25, top=0.5, width=0.25, height=0.5)),
    Box(label=1, region=Region(left=0.5, top=0.0, width=0.5, height=0.25)),
)


def samples(count: int) -> list[Sample]:
    return [Sample(picture=np.full((64, 64, 3), 51, np.uint8), boxes=BOXES)] * count


def test_a_share_of_the_pictures_is_known_in_part() -> None:
    batch = repainted(0.25)(samples(2000), generator(1))
    partly = (batch["mask"] == 0).flatten(1).any(dim=1)
    assert partly.float().mean() == pytest.approx(0.25, abs=0.03)
    assert batch["image"].shape == (2000, 3, 64, 64)
    assert batch["image"].unique().tolist() == pytest.approx([-0.6])


def test_parts_are_around_objects_rectangles_and_sides() -> None:
    masks = repainted(1.0)(samples(600), generator(2))["mask"].bool()
    share = masks.float().mean(dim=(1, 2))
    assert share.min() > 0
    assert share.max() < 1
    first = masks[:, 33:63, 17:31].flatten(1).all(dim=1)  # within the first box, without its rounded edges
    second = masks[:, 1:15, 33:63].flatten(1).all(dim=1)
    assert first.float().mean() > 0.15
    assert second.float().mean() > 0.15
    for side in range(4):
        turned = masks.rot90(side, dims=(1, 2))
        assert turned[:, :8].flatten(1).all(dim=1).float().mean() > 0.08  # a whole side: 1 in 8


def test_masks_are_a_function_of_the_generator() -> None:
    one, same, other = (repainted(0.5)(samples(20), generator(seed))["mask"] for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        repainted(1.5)


def test_objects_are_told_in_any_order_and_the_rest_is_empty() -> None:
    config = ObjectsConfig(num_classes=5, width=8, count=3)
    batch = objects(config)(samples(50), generator(3))
    told = {3: [0.25, 0.5, 0.5, 1.0], 1: [0.5, 0.0, 1.0, 0.25]}
    firsts = set()
    for labels, places in zip(batch["labels"].tolist(), batch["places"].tolist(), strict=True):
        assert sorted(labels) == [1, 3, 5]
        assert labels[2] == config.none
        assert places[2] == [-1] * 4
        assert [told[label] for label in labels[:2]] == places[:2]
        firsts.add(labels[0])
    assert firsts == {1, 3}


def test_of_more_objects_than_are_read_some_are_left_out() -> None:
    batch = objects(ObjectsConfig(num_classes=5, width=8, count=1))(samples(50), generator(3))
    assert set(batch["labels"].flatten().tolist()) == {1, 3}
