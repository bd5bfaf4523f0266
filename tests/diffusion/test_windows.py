"""Windows by hand, on functions whose mean is known."""

import pytest
import torch
from torch import Tensor

from tintype.diffusion.windows import spans, windowed


@pytest.mark.parametrize(
    ("length", "window", "stride", "expected"),
    [
        (8, 4, 2, [(0, 4), (2, 6), (4, 8)]),
        (9, 4, 3, [(0, 4), (3, 7), (5, 9)]),  # the last one ends where the side does
        (4, 4, 1, [(0, 4)]),
        (3, 4, 4, [(0, 3)]),
        (8, 4, 4, [(0, 4), (4, 8)]),
    ],
)
def test_windows_lie_a_stride_apart_and_cover_the_side(
    length: int, window: int, stride: int, expected: list[tuple[int, int]]
) -> None:
    assert spans(length, window, stride) == expected


@pytest.mark.parametrize("stride", [0, 5])
def test_gaps_are_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"windows of 4 cells, {stride} apart: expected 1 to 4"):
        spans(8, 4, stride)


def test_what_overlaps_is_the_mean() -> None:
    numbers = iter(range(1, 10))

    def numbered(x: Tensor, sigma: float) -> Tensor:
        assert sigma == 3.0
        return torch.full_like(x, float(next(numbers)))

    found = windowed(numbered, window=2, stride=1)(torch.zeros(1, 1, 3, 3), 3.0)
    expected = [[1, 1.5, 2], [2, 2.5, 3], [3, 3.5, 4]]  # windows 1 and 2 above, 3 and 4 below
    assert found[0, 0].tolist() == expected
