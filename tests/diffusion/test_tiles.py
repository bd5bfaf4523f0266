"""Tiles: what is said of every place alike is said by all of them together."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tintype.diffusion.tiles import Tiled, Tiling

SIZES = st.integers(1, 40)


@given(length=SIZES, size=st.integers(2, 24), data=st.data())
def test_tiles_cover_a_side_and_their_shares_are_one(length: int, size: int, data: st.DataObject) -> None:
    tiling = Tiling(size, data.draw(st.integers(0, size // 2)))
    total = torch.zeros(length)
    for start, share in tiling.shares(length, torch.device("cpu")).items():
        assert 0 <= start < start + len(share) <= length
        assert len(share) == min(size, length)
        assert (share > 0).all()
        total[start : start + len(share)] += share
    torch.testing.assert_close(total, torch.ones(length))


def test_shares_fall_linearly_over_what_two_tiles_share() -> None:
    first, second = Tiling(8, 4).shares(12, torch.device("cpu")).values()
    falling = torch.tensor([0.875, 0.625, 0.375, 0.125])
    torch.testing.assert_close(first, torch.cat((torch.ones(4), falling)))
    torch.testing.assert_close(second, torch.cat((falling.flip(0), torch.ones(4))))


@given(height=SIZES, width=SIZES, size=st.integers(2, 24), factor=st.sampled_from([1, 4]), data=st.data())
def test_what_sees_one_cell_sees_no_tiles(height: int, width: int, size: int, factor: int, data: st.DataObject) -> None:
    tiling = Tiling(size, data.draw(st.integers(0, size // 2)))
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))

    def answer(tile: Tensor) -> Tensor:
        assert max(tile.shape[-2:]) <= size
        return tile.sin().repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)

    expected = x.sin().repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    torch.testing.assert_close(tiling.blended(x, answer, factor=factor), expected)


class Blurring:
    """A network that sees one cell around each, and what it is bound to."""

    def __init__(self, seen: list[torch.Size]) -> None:
        self.seen = seen

    def __call__(self, x: Tensor, t: Tensor, context: Tensor | None, vector: Tensor | None) -> Tensor:
        assert context is not None
        self.seen.append(x.shape)
        return torch.nn.functional.avg_pool2d(x[:, :2] * x[:, 2:], 3, 1, 1) + context.mean() * t[:, None, None, None]

    def bind(self, context: Tensor | None, vector: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: self(x, t, context, vector)


@pytest.mark.parametrize("bound", [True, False])
def test_a_network_in_tiles_is_itself_but_for_their_edges(bound: bool) -> None:
    seen: list[torch.Size] = []
    network, context = Blurring(seen), torch.ones(2, 3, 4)
    x, t = torch.randn(2, 4, 20, 28, generator=torch.Generator().manual_seed(0)), torch.tensor([3.0, 4.0])
    whole = network(x, t, context, None)
    seen.clear()
    tiled = Tiled(network, Tiling(12, 4))
    found = tiled.bind(context, None)(x, t) if bound else tiled(x, t, context, None)
    assert seen == [(2, 4, 12, 12)] * 6
    torch.testing.assert_close(found[..., :8, :8], whole[..., :8, :8])
    inside = torch.ones(20, 28, dtype=torch.bool)
    for edge in (8, 11):  # the outermost cells of tiles see zeros beyond; the farther within the less they count
        inside[edge] = False
    for edge in (8, 11, 16, 19):
        inside[:, edge] = False
    torch.testing.assert_close(found[..., inside], whole[..., inside])
    assert (found - whole).abs().max() < 0.2 * whole.std()
