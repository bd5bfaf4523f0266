"""Boxes as tokens. The numbers are worked out by hand from taming's rule: a corner is the nearest point of a square
grid of isqrt(vocabulary) points a side, as row * side + column."""

import dataclasses

import pytest
import torch

from tintype.conditioning.layout import Box, LayoutConditioner, LayoutConfig, Region, layout_ids
from tintype.models.token_transformer import TokenTransformerConfig

ENCODER = TokenTransformerConfig(vocabulary_size=200, context_length=11, width=16, num_layers=1)
SMALL = LayoutConfig(encoder=ENCODER, objects=3, num_classes=7)  # a grid of 14 points a side, none = 199
OPENIMAGES = LayoutConfig(
    encoder=TokenTransformerConfig(vocabulary_size=8192, context_length=92, width=8, num_layers=1)
)
HALF = Region(left=0.5, top=0.0, width=0.5, height=0.5)


def test_openimages_layout_is_92_tokens_on_a_grid_of_90() -> None:
    assert (OPENIMAGES.length, OPENIMAGES.grid, OPENIMAGES.none) == (92, 90, 8191)
    ids = layout_ids([Box(label=339, region=HALF), Box(label=0, region=Region())], OPENIMAGES)
    # 0.5 * 89 = 44.5, and Python's round goes to the even number, here as there
    assert ids[:6] == (339, 44, 44 * 90 + 89, 0, 0, 8099)
    assert ids[6:90] == (8191,) * 84
    assert ids[90:] == (0, 8099)


def test_corners_go_to_the_nearest_point_of_the_grid() -> None:
    """48.95 across and 31.15 down, to 75.65 and 48.95."""
    box = Box(label=0, region=Region(left=0.55, top=0.35, width=0.3, height=0.2))
    assert layout_ids([box], OPENIMAGES)[1:3] == (31 * 90 + 49, 49 * 90 + 76)


def test_marks_are_multiples_of_the_number_of_classes() -> None:
    marked = {"group": 1, "occluded": 2, "depiction": 4, "inside": 8}
    for name, mark in marked.items():
        box = dataclasses.replace(Box(label=5, region=HALF), **{name: True})
        assert layout_ids([box], SMALL)[0] == 5 + 7 * mark
    assert layout_ids([Box(label=6, region=HALF, **dict.fromkeys(marked, True))], SMALL)[0] == 6 + 7 * 15


def test_a_crop_is_written_and_leaves_out_what_it_does_not_show() -> None:
    boxes = [Box(label=1, region=Region(left=0.0, top=0.0, width=0.5, height=1.0)), Box(label=2, region=HALF)]
    ids = layout_ids(boxes, SMALL, crop=HALF)
    right_middle, top_middle = 6 * 14 + 13, 6  # round(6.5) is 6
    assert ids == (2, top_middle, right_middle, *[199] * 6, top_middle, right_middle)


def test_sums_of_fractions_may_end_a_little_outside() -> None:
    box = Box(label=0, region=Region(left=0.7, top=0.1, width=0.1 + 0.2, height=0.9 + 1e-9))
    assert layout_ids([box], SMALL)[1:3] == (1 * 14 + 9, 13 * 14 + 13)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"left": -0.1}, r"width 0\.5 from -0\.1"),
        ({"top": 0.6}, r"height 0\.5 from 0\.6: .* expected a height above 0 that ends within the picture"),
        ({"width": 0.0}, r"width 0\.0 from 0\.5: .* expected a width above 0"),
        ({"height": float("nan")}, "height nan"),
    ],
)
def test_a_box_outside_the_picture_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(HALF, **changes)


def test_too_many_boxes_and_unknown_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="4 boxes: this model reads 3 at most; leave some out"):
        layout_ids([Box(label=0, region=HALF)] * 4, SMALL)
    for wrong in (-1, 7):
        with pytest.raises(ValueError, match=f"class {wrong}: this model has the classes 0 to 6"):
            layout_ids([Box(label=wrong, region=HALF)], SMALL)


def test_a_configuration_that_does_not_fit_its_encoder() -> None:
    with pytest.raises(ValueError, match="4 objects make 14 tokens, the encoder reads 11"):
        LayoutConfig(encoder=ENCODER, objects=4)
    with pytest.raises(ValueError, match="13 classes with marks are 208 labels; expected 199 at most"):
        LayoutConfig(encoder=ENCODER, objects=3, num_classes=13)


@torch.inference_mode()
def test_layouts_to_context() -> None:
    torch.manual_seed(0)
    conditioner = LayoutConditioner(SMALL).eval()
    layouts = [[Box(label=1, region=HALF)], [Box(label=2, region=Region()), Box(label=3, region=HALF)]]
    context = conditioner(layouts).context
    assert context is not None
    assert context.shape == (2, 11, 16)
    ids = torch.tensor([layout_ids(boxes, SMALL) for boxes in layouts])
    assert torch.equal(context, conditioner.encoder(ids))
    empty = conditioner.empty(2).context
    assert empty is not None
    corner = 13 * 14 + 13
    torch.testing.assert_close(empty, conditioner.encoder(torch.tensor([[199] * 9 + [0, corner]] * 2)))
