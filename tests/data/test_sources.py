from dataclasses import replace

import numpy as np
import pytest
import torch

from tintype.data.scenes import RELATIONS, SceneConfig, Scenes
from tintype.data.sources import SceneImages, SceneObjects, appearance, captions, reading, region_of, to_tensor


def test_pictures_become_tensors() -> None:
    picture = np.zeros((2, 4, 3), np.uint8)
    picture[0, 3] = (255, 0, 51)
    image = to_tensor([picture, picture])
    assert image.shape == (2, 3, 2, 4)
    assert image.dtype == torch.float32
    assert torch.allclose(image[1, :, 0, 3], torch.tensor([1.0, -1.0, -0.6]))
    assert (image[0, :, 1] == -1).all()


def test_scene_images() -> None:
    scenes = Scenes(SceneConfig())
    source = SceneImages(scenes)
    batch = source.batch(5, 3)
    assert batch.keys() == {"image"}
    assert batch["image"].shape == (3, 3, 64, 64)
    assert -1 <= batch["image"].min() < -0.5
    assert 0.5 < batch["image"].max() <= 1
    assert torch.equal(batch["image"][2], source.batch(7, 1)["image"][0])
    levels = ((batch["image"][1] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert (levels == scenes[6].picture).all()


def test_regions() -> None:
    assert {
        relation: (region_of(relation, first=True), region_of(relation, first=False)) for relation in RELATIONS
    } == {
        "to the left of": ("left", "right"),
        "to the right of": ("right", "left"),
        "above": ("top", "bottom"),
        "below": ("bottom", "top"),
    }


@pytest.mark.parametrize(
    ("region", "rows", "columns"),
    [
        ("left", slice(None), slice(0, 4)),
        ("right", slice(None), slice(4, 8)),
        ("top", slice(0, 4), slice(None)),
        ("bottom", slice(4, 8), slice(None)),
    ],
)
def test_a_reading_is_half_the_picture_in_its_middle(region: str, rows: slice, columns: slice) -> None:
    image = torch.arange(2 * 3 * 64.0).reshape(2, 3, 8, 8)
    half = reading(image, region)
    assert half.shape == image.shape
    seen = image[:, :, rows, columns]
    if seen.shape[-1] == 4:
        assert torch.equal(half[..., 2:6], seen)
        assert torch.equal(half[..., :2], seen[..., :1].expand(-1, -1, -1, 2))
        assert torch.equal(half[..., 6:], seen[..., -1:].expand(-1, -1, -1, 2))
    else:
        assert torch.equal(half[..., 2:6, :], seen)
        assert torch.equal(half[..., :2, :], seen[..., :1, :].expand(-1, -1, 2, -1))
        assert torch.equal(half[..., 6:, :], seen[..., -1:, :].expand(-1, -1, 2, -1))


def test_the_whole_is_a_reading_too() -> None:
    image = torch.randn(1, 3, 8, 8)
    assert torch.equal(reading(image, "whole"), image)


def test_scene_objects_show_one_object_and_name_it() -> None:
    scenes = Scenes(SceneConfig(split="all"))
    source = SceneObjects(scenes)
    batch = source.batch(0, 60)
    assert batch["image"].shape == (60, 3, 64, 64)
    assert batch["label"].dtype == torch.int64
    firsts = seconds = 0
    for index in range(60):
        scene = scenes[index]
        whole = to_tensor([scene.picture])
        if len(scene.classes) == 1:
            assert batch["label"][index] == scene.classes[0]
            assert torch.equal(batch["image"][index], whole[0])
            continue
        number = scene.classes.tolist().index(batch["label"][index])
        firsts, seconds = firsts + (number == 0), seconds + (number == 1)
        left, top, right, bottom = scene.boxes[number]  # the half is the one where the box of the labelled object is
        halves = {"left": right <= 0.5, "right": left >= 0.5, "top": bottom <= 0.5, "bottom": top >= 0.5}
        assert any(
            inside and torch.equal(batch["image"][index], reading(whole, region)[0])
            for region, inside in halves.items()
        )
    assert min(firsts, seconds) > 5
    assert torch.equal(source.batch(7, 2)["image"], batch["image"][7:9])


def test_scene_objects_need_at_most_two() -> None:
    with pytest.raises(ValueError, match="expected shares of one and two only"):
        SceneObjects(Scenes(SceneConfig(objects=(0.5, 0.3, 0.2))))
    SceneObjects(Scenes(SceneConfig(objects=(0.5, 0.5, 0.0))))


def test_captions_need_no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = Scenes(SceneConfig())
    expected = [scenes[index].caption for index in (3, 1, 4)]
    monkeypatch.setattr(Scenes, "render", None)
    assert captions(scenes, (3, 1, 4)) == expected


def test_the_appearance_of_scenes_is_their_pictures_and_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = Scenes(SceneConfig())
    known = appearance(scenes)
    assert appearance(Scenes(SceneConfig())) == known
    assert appearance(Scenes(SceneConfig(seed=1))) != known
    original = scenes[15]
    monkeypatch.setattr(Scenes, "render", lambda _, plan: replace(original, plan=plan))
    pictures_changed = appearance(scenes)
    monkeypatch.undo()
    monkeypatch.setattr(Scenes, "_sentence", lambda *_: "a thing")
    captions_changed = appearance(scenes)
    assert len({known, pictures_changed, captions_changed}) == 3
