"""The judges must see what is there, miss what is not, and the prompts must be what they claim."""

import pytest
import torch

import tintype
from tintype.data.scenes import SceneConfig, Scenes, held_out, is_held_out
from tintype.data.sources import to_tensor
from tintype.evaluation.scenes import (
    SEED,
    Judge,
    background_right,
    evaluate_scenes,
    judged_objects,
    one_object_plans,
    two_object_plans,
)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(SceneConfig(split="all", plain_captions=True, seed=SEED))


@pytest.fixture(scope="module")
def judge(scenes: Scenes) -> Judge:
    return Judge(scenes)


def test_prompts_are_held_out_and_the_seen_ones_are_not(scenes: Scenes) -> None:
    for plan in one_object_plans(scenes, 500, unseen=True):
        assert held_out("colour", plan.placements[0].emoji.name, plan.colours[0])
    for plan in one_object_plans(scenes, 100, unseen=False):
        assert not any(is_held_out(plan))
    for plan in two_object_plans(scenes, 200):
        assert held_out("pair", plan.placements[0].emoji.name, plan.placements[1].emoji.name)


def test_prompts_are_the_same_every_time(scenes: Scenes) -> None:
    assert one_object_plans(scenes, 20, unseen=True) == one_object_plans(scenes, 20, unseen=True)


def test_judges_read_rendered_scenes_and_not_shuffled_ones(scenes: Scenes, judge: Judge) -> None:
    for plans in (one_object_plans(scenes, 30, unseen=True), two_object_plans(scenes, 30)):
        image = to_tensor([scenes.render(plan).picture for plan in plans])
        judged = judged_objects(judge, scenes, image, plans)
        scores = judged.scores()
        assert scores["classifier_top1"] >= 0.95
        assert scores["template_top1"] >= 0.95
        assert judged.shuffled().scores()["classifier_top1"] <= 0.1
        assert background_right(image, plans) == 1.0


def test_swapped_objects_count_as_wrong(scenes: Scenes, judge: Judge) -> None:
    plans = [plan for plan in two_object_plans(scenes, 40) if plan.relation.startswith("to the")]
    mirrored = to_tensor([scenes.render(plan).picture for plan in plans]).flip(-1)
    assert judged_objects(judge, scenes, mirrored, plans).scores()["classifier_top1"] <= 0.1


def test_wrong_backgrounds_count_as_wrong(scenes: Scenes) -> None:
    plans = [plan for plan in one_object_plans(scenes, 40, unseen=True) if plan.colours[0] != "gray"]
    assert background_right(torch.full((len(plans), 3, 64, 64), 0.07), plans) == 0.0


def test_the_whole_evaluation_runs() -> None:
    result = evaluate_scenes(tintype.load("default"), objects=4, pairs=4, quiet=True)
    assert result["autoencoder"]["psnr"] > 20
    assert set(result) >= {"one_object_held_out", "one_object_seen", "two_objects_held_out"}


def test_too_few_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="objects 1"):
        evaluate_scenes(tintype.load("default"), objects=1)
