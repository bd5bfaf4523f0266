"""What each task that begins with nothing says to its model: classes, boxes, nothing at all."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

import tintype
from tintype.common.rng import Noise
from tintype.conditioning.class_label import ClassConditioner, ClassConfig
from tintype.conditioning.prompt import Prompt
from tintype.diffusion.denoiser import Conditioning
from tintype.families.base import LatentDiffusion
from tintype.tasks.request import Request
from tintype.tasks.steering import Stage
from tintype.tasks.task import resolve, task_of

BOXES = ("frog:0.5,0,1,0.5", "pizza:0,0.25,0.5,1")


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default")


@pytest.fixture(scope="module")
def classes(model: LatentDiffusion) -> LatentDiffusion:
    """The same network, steered by a class alone."""
    torch.manual_seed(0)
    config = ClassConfig(num_classes=7, width=192, null_class=6)
    return dataclasses.replace(
        model,
        config=dataclasses.replace(model.config, conditioner=config, labels=("frog", "pizza")),
        conditioner=ClassConditioner(config),
    )


def stage(model: LatentDiffusion, **asked: object) -> Stage:
    resolved = resolve(model, Request(**asked, seed=1))
    plan = task_of(resolved).plan(model, resolved, Noise(resolved.seeds))
    [found] = plan.steering.stages
    return found


@torch.inference_mode()
def read(model: LatentDiffusion, text: str, objects: Sequence[object] = ()) -> torch.Tensor:
    context = model.reads([Prompt(text=text, objects=tuple(objects))]).context
    assert context is not None
    return context


def same(cond: Conditioning | None, context: torch.Tensor, count: int = 1) -> bool:
    assert cond is not None
    assert cond.context is not None
    return len(cond.context) == count and torch.allclose(cond.context, context.expand_as(cond.context), atol=1e-5)


def test_a_class_is_an_object_that_is_anywhere(model: LatentDiffusion) -> None:
    found = stage(model, task="class2img", label="pizza", batch_size=2)
    pizza = model.config.labels.index("pizza")
    assert same(found.conds[0][1], read(model, "", [(pizza, None)]), 2)
    assert not same(found.conds[0][1], read(model, "", [(pizza + 1, None)]), 2)
    assert same(found.uncond, read(model, ""), 2)
    assert same(stage(model, task="class2img", label=str(pizza)).conds[0][1], read(model, "", [(pizza, None)]))


def test_a_class_of_a_model_of_classes_is_led_away_from_none(classes: LatentDiffusion) -> None:
    conditioner = classes.conditioner
    assert isinstance(conditioner, ClassConditioner)
    found = stage(classes, task="class2img", label="pizza", batch_size=2)
    assert same(found.conds[0][1], conditioner([1]).context, 2)
    assert same(found.uncond, conditioner([6]).context, 2)
    assert same(stage(classes, task="class2img", label="5").conds[0][1], conditioner([5]).context)
    assert stage(classes, task="class2img", label="frog", cfg_scale=1.0).uncond is None


def test_boxes_stand_beside_the_prompt_and_not_beside_the_negative_one(model: LatentDiffusion) -> None:
    frog, pizza = (model.config.labels.index(name) for name in ("frog", "pizza"))
    objects = [(frog, (0.5, 0.0, 1.0, 0.5)), (pizza, (0.0, 0.25, 0.5, 1.0))]
    found = stage(model, task="layout2img", boxes=BOXES, prompt="a frog", negative_prompt="a key")
    assert same(found.conds[0][1], read(model, "a frog", objects))
    assert not same(found.conds[0][1], read(model, "a frog", [objects[0], (pizza, (0.0, 0.25, 0.5, 0.75))]))
    assert same(found.uncond, read(model, "a key"))
    assert same(stage(model, task="layout2img", boxes=BOXES).uncond, read(model, ""))


def test_nothing_steers_a_sample(model: LatentDiffusion, classes: LatentDiffusion) -> None:
    assert same(stage(model, task="sample", batch_size=2).conds[0][1], read(model, ""), 2)
    assert isinstance(classes.conditioner, ClassConditioner)
    assert same(stage(classes, task="sample").conds[0][1], classes.conditioner([6]).context)
    assert stage(model, task="sample").uncond is None


@pytest.mark.parametrize("red", [0, 1])
def test_what_stands_in_boxes_is_drawn_there(model: LatentDiffusion, red: int) -> None:
    """An apple is red and a frog green, on whichever side they are asked for."""
    names = ("red apple", "frog") if red == 0 else ("frog", "red apple")
    boxes = tuple(f"{name}:{0.5 * side},0.25,{0.5 + 0.5 * side},0.75" for side, name in enumerate(names))
    picture = np.asarray(tintype.generate(model, Request(task="layout2img", boxes=boxes, seed=3, steps=10))[0])
    halves = (picture[16:48, :, 0].astype(int) - picture[16:48, :, 1]).reshape(32, 2, 32).mean(axis=(0, 2))
    assert halves[red] > halves[1 - red] + 40
