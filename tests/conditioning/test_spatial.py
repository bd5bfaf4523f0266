"""Class maps; that they are CompVis's SpatialRescaler stands in tests/models/test_compvis.py."""

import pytest
import torch

from tintype.conditioning.spatial import SpatialConditioner, SpatialConfig

SMALL = SpatialConfig(num_classes=3, out_channels=2, halvings=1)


@torch.inference_mode()
def test_each_place_is_the_mean_of_its_classes_vectors() -> None:
    conditioner = SpatialConditioner(SMALL)
    labels = torch.tensor([[[0, 0, 1, 2], [0, 0, 2, 2]]])
    concat = conditioner(labels).concat
    assert concat is not None
    vectors = conditioner.channel_mapper.weight[:, :, 0, 0].t()
    expected = torch.stack([vectors[0], vectors[1] / 4 + 3 * vectors[2] / 4])
    torch.testing.assert_close(concat[0, :, 0].t(), expected)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_class_that_there_is_not(wrong: int) -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[0, 1, 2] = wrong
    with pytest.raises(ValueError, match=rf"classes {min(wrong, 0)} to {max(wrong, 0)}: expected 0 to 2"):
        SpatialConditioner(SMALL)(labels)


def test_sides_that_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="class map of 6 x 8: both sides must be multiples of 4"):
        SpatialConditioner(SpatialConfig())(torch.zeros(1, 8, 6, dtype=torch.int64))


def test_there_is_no_empty_map() -> None:
    with pytest.raises(ValueError, match="never trained without a map; expected cfg_scale 1"):
        SpatialConditioner(SMALL).empty(1)
