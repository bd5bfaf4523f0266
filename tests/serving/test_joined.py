"""Requests drawn together are the pictures that each would be alone; those that would not be are never joined."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from tintype.checkpoints import load
from tintype.diffusion.samplers import SAMPLERS, paces_itself
from tintype.families.base import LatentDiffusion
from tintype.generation import finish, last, rows_of, steps, steps_together
from tintype.tasks.joined import alike
from tintype.tasks.pictures import data_url
from tintype.tasks.request import Request
from tintype.tasks.task import resolve

SIZE = 32  # pixels; small ones draw as the others do
USUAL = Request(prompt="a red apple", seed=3, steps=3, width=SIZE, height=SIZE)
OTHER = dataclasses.replace(USUAL, prompt="two dogs, a blue car", negative_prompt="green", seed=77, batch_size=2)
IMAGES = [
    data_url(Image.fromarray(np.random.default_rng(seed).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)))
    for seed in (1, 2)
]


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return load("default", device="cpu")


def levels_apart(model: LatentDiffusion, *requests: Request) -> int:
    """The largest difference of a grey level between pictures drawn together and alone."""
    resolved = [resolve(model, one) for one in requests]
    walk = steps_together(model, resolved)
    assert walk is not None, "not joined"
    step = last(walk)
    assert step is not None
    worst = 0
    for request, part in zip(resolved, rows_of(step, resolved), strict=True):
        together, alone = finish(model, request, part), finish(model, request, last(steps(model, request)))
        assert len(together) == len(alone) == request.batch_size
        for ours, expected in zip(together, alone, strict=True):
            assert ours.info == expected.info
            difference = np.asarray(ours).astype(int) - np.asarray(expected).astype(int)
            worst = max(worst, int(np.abs(difference).max()))
    return worst


@pytest.mark.parametrize("name", [name for name in SAMPLERS if not paces_itself(name)])
def test_pictures_of_other_prompts_seeds_and_numbers_are_those_drawn_alone(model: LatentDiffusion, name: str) -> None:
    few = 3 if name in ("lms", "dpmpp_3m_sde", "deis") else 2  # those that look back
    assert levels_apart(model, *(dataclasses.replace(one, sampler=name, steps=few) for one in (USUAL, OTHER))) <= 1


@pytest.mark.parametrize(
    "requests",
    [
        [
            Request(task="class2img", label=label, seed=seed, steps=3, width=SIZE, height=SIZE)
            for label, seed in (("pizza", 1), ("dog", 2), ("7", 3))
        ],
        [
            Request(task="layout2img", boxes=boxes, prompt=prompt, seed=4, steps=3, width=SIZE, height=SIZE)
            for boxes, prompt in (
                (("pizza:0.1,0.1,0.5,0.75",), ""),
                (("dog:0,0,1,1", "pizza:0.5,0.5,1,1"), "blue background"),
            )
        ],
        [
            Request(task="img2img", image=image, prompt="a red apple", strength=0.7, seed=seed, steps=4)
            for image, seed in zip(IMAGES, (5, 6), strict=True)
        ],
        [dataclasses.replace(USUAL, cfg_scale=1.0), dataclasses.replace(OTHER, cfg_scale=1.0)],
        [
            dataclasses.replace(USUAL, cfg_rescale=0.7, threshold=0.99, cfg_start=0.4),
            dataclasses.replace(OTHER, cfg_rescale=0.7, threshold=0.99, cfg_start=0.4),
        ],
        [
            dataclasses.replace(USUAL, sampler="euler_ancestral", variation_seed=5, variation_strength=0.4),
            dataclasses.replace(OTHER, sampler="euler_ancestral", variation_seed=6, variation_strength=0.1),
            dataclasses.replace(OTHER, sampler="euler_ancestral"),
        ],
    ],
    ids=["class2img", "layout2img", "img2img", "no guidance", "bent guidance", "variations"],
)
def test_so_are_those_of_other_tasks(model: LatentDiffusion, requests: list[Request]) -> None:
    assert levels_apart(model, *requests) <= 1


def test_the_rows_are_told_apart(model: LatentDiffusion) -> None:
    """The bound means something: two of these pictures are far from each other."""
    pictures = [finish(model, one, last(steps(model, one))) for one in (resolve(model, USUAL), resolve(model, OTHER))]
    apart = np.asarray(pictures[0][0]).astype(int) - np.asarray(pictures[1][0]).astype(int)
    assert np.abs(apart).max() > 20


@pytest.mark.parametrize(
    "change",
    [
        {"exact": True},
        {"steps": 4},
        {"cfg_scale": 5.0},
        {"width": 2 * SIZE},
        {"sampler": "euler"},
        {"scheduler": "karras"},
        {"eta": 0.5},
        {"cfg_end": 0.5},
        {"clip_skip": 2},
        {"prompt_style": "plain"},
        {"tiling": True},
        {"prompt": "[a red apple:two dogs:0.5]"},
        {"prompt": "a red apple AND two dogs"},
        {"sampler": "dpm_adaptive"},
    ],
    ids=str,
)
def test_those_that_differ_in_more_than_their_rows_are_not_joined(
    model: LatentDiffusion, change: dict[str, object]
) -> None:
    changed = dataclasses.replace(OTHER, **change)  # pyright: ignore
    for pair in ([USUAL, changed], [changed, USUAL]):
        assert steps_together(model, [resolve(model, one) for one in pair]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"exact": True},
        {"tiling": True},
        {"window": 32, "width": 64, "height": 64},
        {"hires_scale": 2.0},
        {"prompt": "[a red apple:two dogs:0.5]"},
        {"prompt": "a red apple AND two dogs"},
        {"sampler": "dpm_adaptive"},
    ],
    ids=str,
)
def test_nor_are_two_of_a_kind_that_does_not_join(model: LatentDiffusion, change: dict[str, object]) -> None:
    pair = [dataclasses.replace(USUAL, **change), dataclasses.replace(USUAL, **change, seed=9)]  # pyright: ignore
    assert steps_together(model, [resolve(model, one) for one in pair]) is None


def test_inpainting_is_held_to_its_own_picture_and_never_joined(model: LatentDiffusion) -> None:
    mask = data_url(Image.new("L", (SIZE, SIZE), 255))
    pair = [
        resolve(model, Request(task="inpaint", image=image, mask=mask, prompt="a red apple", seed=1, steps=2))
        for image in IMAGES
    ]
    assert not alike(*pair)
    assert steps_together(model, pair) is None


def test_pictures_of_other_sizes_and_strengths_are_not_joined(model: LatentDiffusion) -> None:
    begun = Request(task="img2img", image=IMAGES[0], prompt="a red apple", strength=0.7, seed=1, steps=4)
    larger = data_url(Image.new("RGB", (2 * SIZE, SIZE)))
    for change in ({"image": larger}, {"strength": 0.3}):
        other = dataclasses.replace(begun, **change)  # pyright: ignore
        assert steps_together(model, [resolve(model, begun), resolve(model, other)]) is None


def test_one_alone_is_not_joined(model: LatentDiffusion) -> None:
    assert steps_together(model, [resolve(model, USUAL)]) is None


def test_alike_asks_only_what_the_whole_batch_shares(model: LatentDiffusion) -> None:
    first, second = resolve(model, USUAL), resolve(model, OTHER)
    assert alike(first, second)
    assert alike(second, first)
    for field in ("cfg_scale", "steps", "sampler", "pag_scale", "exact"):
        value = {"sampler": "euler", "exact": True}.get(field, 2)
        assert not alike(first, dataclasses.replace(second, **{field: value})), field
