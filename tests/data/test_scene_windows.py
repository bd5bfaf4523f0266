"""What upscalers learn from."""

import numpy as np
import pytest
import torch
from PIL import Image

from tintype.common.rng import generator
from tintype.data.samples import Sample
from tintype.data.scenes import SceneConfig, Scenes
from tintype.data.windows import REDUCTIONS, Remembered, SceneWindows, low


@pytest.fixture(scope="module")
def scenes() -> list[Scenes]:
    return [Scenes(SceneConfig(size=size)) for size in (64, 128)]


def test_windows_are_cut_from_one_kind_of_scene_after_another(scenes: list[Scenes]) -> None:
    windows = SceneWindows(scenes, 24, size=64, grid=8, seed=0, first=5)
    assert windows.sizes.tolist() == [[64, 64]] * 24
    places: set[tuple[int, int]] = set()
    for index in range(24):
        number, which = divmod(index, 2)
        whole, found = scenes[which][5 + number].picture, windows[index].picture
        assert found is not None
        cut = [
            (top, left)
            for top in range(0, len(whole) - 63, 8)
            for left in range(0, len(whole) - 63, 8)
            if np.array_equal(whole[top : top + 64, left : left + 64], found)
        ]
        assert cut
        places.add(cut[0])
    assert len(places) > 5
    assert np.array_equal(windows[3].picture, SceneWindows(scenes, 24, size=64, grid=8, seed=0, first=5)[3].picture)


def test_windows_larger_than_scenes_are_refused(scenes: list[Scenes]) -> None:
    with pytest.raises(
        ValueError, match="scenes of 64 pixels, windows of 128 on a grid of 8: expected scenes as large"
    ):
        SceneWindows(scenes, 4, size=128, grid=8, seed=0)


def test_pictures_are_made_once() -> None:
    made: list[int] = []

    class Costly:
        sizes = np.full((3, 2), 8, np.int32)

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int, /) -> Sample:
            made.append(index)
            return Sample(picture=np.full((8, 8, 3), index, np.uint8))

    remembered = Remembered(Costly())
    pictures = [remembered[index].picture for index in (2, 0, 2, 0)]
    assert made == [2, 0]
    assert [one is not None and int(one[0, 0, 0]) for one in pictures] == [2, 0, 2, 0]


def test_small_pictures_are_made_in_every_way() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 8, 3)).astype(np.uint8)
    found = low(4)([Sample(picture=picture)] * 64, generator(0, "test"))["low"]
    assert found.shape == (64, 3, 4, 2)
    expected = torch.stack(
        [
            torch.from_numpy(np.asarray(Image.fromarray(picture).resize((2, 4), how)).copy()).permute(2, 0, 1)
            for how in REDUCTIONS
        ]
    )
    near = (found[:, None] - (expected / 127.5 - 1)).abs().flatten(2).amax(dim=2) < 1e-6  # 64 ways
    assert near.any(dim=1).all()
    assert near.any(dim=0).all()
