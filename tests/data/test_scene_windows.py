"""What upscalers learn from."""

import numpy as np
import pytest
import torch
from PIL import Image

from tintype.common.rng import generator
from tintype.conditioning.low import enlarged
from tintype.data.samples import Beside, Sample, latents_beside
from tintype.data.scenes import SceneConfig, Scenes
from tintype.data.windows import REDUCTIONS, Enlarged, SceneWindows
from tintype.tasks.pictures import pixels


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


def test_pictures_are_made_small_in_every_way_and_large_as_an_upscaler_is_shown_them(scenes: list[Scenes]) -> None:
    windows = SceneWindows(scenes, 8, size=64, grid=8, seed=0)
    shown = Enlarged(windows, 4)
    assert len(shown) == 8
    assert np.array_equal(shown.sizes, windows.sizes)
    for index in range(8):
        picture, found = windows[index].picture, shown[index].picture
        assert picture is not None
        assert found is not None
        assert found.shape == (64, 64, 3)
        small = Image.fromarray(picture).resize((16, 16), REDUCTIONS[index % 4])
        expected = enlarged(pixels(small), 4)[0].permute(1, 2, 0).add(1).mul(127.5).numpy()
        assert np.abs(found - expected).max() <= 0.5 + 1e-3
    picture = windows[0].picture
    assert picture is not None
    ways = [np.asarray(Image.fromarray(picture).resize((16, 16), how)).tobytes() for how in REDUCTIONS]
    assert len(set(ways)) == 4


def test_latents_stand_beside_each_other() -> None:
    whole, other = ([Sample(mean=torch.full((2, 1, 1), float(sign * index))) for index in range(3)] for sign in (1, -1))
    pairs = Beside(whole, other)
    assert len(pairs) == 3
    found = latents_beside([pairs[2], pairs[1]], generator(0, "test"))["beside"]
    assert found[:, 0, 0, 0].tolist() == [-2, -1]
    assert pairs[2].mean is not None
    assert float(pairs[2].mean.mean()) == 2
    with pytest.raises(ValueError, match="3 stored samples and 2 beside them"):
        Beside(whole, other[:2])
    with pytest.raises(ValueError, match="a sample without a latent beside it"):
        latents_beside(whole, generator(0, "test"))
