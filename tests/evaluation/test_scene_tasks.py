"""What is measured of boxes and masks: scenes as they are have full marks, others what chance gives."""

import numpy as np
import pytest
import torch
from PIL import Image

from tintype.apps.cli import DONE, main
from tintype.data.scenes import RELATIONS, SceneConfig, Scenes
from tintype.evaluation.extractors import load_judge
from tintype.evaluation.scene_tasks import boxes_right, crop, hole, turned


def scenes(count: int) -> list:
    drawn = Scenes(SceneConfig(split="all", objects=(0.25,) * 4, grid=8, seed=20_000_000))
    return [drawn[index] for index in range(count)]


def test_scenes_as_they_are_have_full_marks_and_others_none() -> None:
    shown = scenes(40)
    judge, _ = load_judge(None)
    pictures = [Image.fromarray(scene.picture) for scene in shown]
    assert boxes_right(judge, pictures, shown) >= 0.98
    assert boxes_right(judge, pictures[1:] + pictures[:1], shown) <= 0.05
    mirrored = [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in pictures]
    assert boxes_right(judge, mirrored, shown) < 0.7  # what stands elsewhere does not count


def test_a_crop_is_what_stands_in_the_box() -> None:
    image = torch.full((1, 3, 64, 64), -1.0)
    image[..., 8:24, 32:64] = 1.0  # 32 wide, 16 high
    seen = crop(image, (0.5, 0.125, 1.0, 0.375))
    assert seen.shape == (1, 3, 64, 64)
    white = seen[0, 0] > 0
    assert white[32].sum() >= 40  # 0.72 of 64, at the right edge of the picture as it is
    assert 18 <= white[:, 32].sum() <= 28
    assert not white[:12].any()


def test_a_hole_covers_the_first_object() -> None:
    scene = scenes(1)[0]
    covered = hole(scene)
    assert covered[scene.masks[0]].all()
    assert covered.mean() < 0.9


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_first_object_is_turned_to_the_left(relation: str) -> None:
    drawn = Scenes(SceneConfig(split="all", objects=(0.0, 1.0), grid=8, seed=20_000_000))
    scene = next(scene for index in range(100) if (scene := drawn[index]).plan.relation == relation)
    first, second = (turned(np.repeat(mask[..., None], 3, axis=2), scene) for mask in scene.masks)
    assert first[:, :32].sum() > 10 * first[:, 32:].sum()
    assert second[:, 32:].sum() > 10 * second[:, :32].sum()


def test_the_command_tells_what_the_model_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "tasks", "default", "--holes", "2", "--layouts", "2", "--classes", "2"]) == DONE
    told = capsys.readouterr().out
    assert "inpaint" in told
    assert "rendered_seam" in told
    assert "outside_identical           1.0" in told
