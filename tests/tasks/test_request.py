"""Requests and the texts pictures carry."""

import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tintype.common.version import VERSION
from tintype.tasks.infotext import Provenance, parameters, png_info, provenance, stamp
from tintype.tasks.request import LARGEST_SEED, Request

RESOLVED = {
    "steps": 20,
    "cfg_scale": 7.0,
    "width": 64,
    "height": 64,
    "sampler": "ddim",
    "scheduler": "trailing",
}
prompts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(prompt=prompts, negative=prompts, seed=st.integers(0, LARGEST_SEED), batch=st.integers(1, 4), data=st.data())
def test_a_png_gives_its_request_back(prompt: str, negative: str, seed: int, batch: int, data: st.DataObject) -> None:
    request = Request(prompt=prompt, negative_prompt=negative, seed=seed, batch_size=batch, **RESOLVED)
    position = data.draw(st.integers(0, batch - 1))
    made = Provenance(request=request, position=position, model="default", digest="0123456789")
    file = io.BytesIO()
    picture = stamp(Image.new("RGB", (8, 8)), made)
    picture.save(file, format="PNG", pnginfo=png_info(picture))
    with Image.open(file) as read:
        read.load()
        assert provenance(read) == made
        assert read.info["parameters"] == parameters(made)


def test_parameters_follow_a1111() -> None:
    request = Request(prompt="a frog", negative_prompt="a key", seed=5, batch_size=2, **RESOLVED)
    made = Provenance(request=request, position=1, model="my, model", digest="0123456789")
    lines = parameters(made).split("\n")
    assert lines[:2] == ["a frog", "Negative prompt: a key"]
    assert lines[2].startswith(
        "Steps: 20, Sampler: DDIM, Schedule type: trailing, CFG scale: 7, Seed: 6, Size: 64x64, "
    )
    assert 'Model: "my, model"' in lines[2]
    assert "Batch size: 2, Batch pos: 1" in lines[2]


def test_parameters_say_how_the_picture_was_made() -> None:
    settings = RESOLVED | {"cfg_scale": 2.5, "height": 48, "eta": 0.25, "exact": True}
    made = Provenance(request=Request(prompt="x", seed=5, **settings), position=0, model="mine", digest="0123456789")
    assert parameters(made).split("\n") == [
        "x",
        "Steps: 20, Sampler: DDIM, Schedule type: trailing, CFG scale: 2.5, Seed: 5, Size: 64x48, "
        f"Model hash: 0123456789, Model: mine, Eta: 0.25, Exact: True, Version: tintype {VERSION}",
    ]


@pytest.mark.parametrize(
    ("sampler", "scheduler", "shown"),
    [
        ("dpmpp_2m", "karras", "Sampler: DPM++ 2M, Schedule type: Karras,"),
        ("DPM++ 2M SDE Heun", "exponential", "Sampler: DPM++ 2M SDE Heun, Schedule type: Exponential,"),
        ("euler_ancestral", "sgm_uniform", "Sampler: Euler a, Schedule type: SGM Uniform,"),
        ("EulerDiscreteScheduler", "linspace", "Sampler: EulerDiscreteScheduler, Schedule type: linspace,"),
        ("tcd", "lcm", "Sampler: tcd, Schedule type: lcm,"),
    ],
)
def test_parameters_show_the_names_people_know_and_the_request_keeps_its_own(
    sampler: str, scheduler: str, shown: str
) -> None:
    request = Request(prompt="x", seed=5, **(RESOLVED | {"sampler": sampler, "scheduler": scheduler}))
    made = Provenance(request=request, position=0, model="default", digest="0123456789")
    assert shown in parameters(made)
    assert provenance(stamp(Image.new("RGB", (8, 8)), made)).request == request


def test_parameters_name_what_guidance_was_asked_for_and_old_pictures_still_read() -> None:
    extra = {"cfg_rescale": 0.7, "cfg_start": 0.1, "cfg_end": 0.8, "pag_scale": 3.0, "threshold": 0.995}
    made = Provenance(request=Request(seed=5, **RESOLVED, **extra), position=0, model="mine", digest="0123456789")
    expected = "CFG rescale: 0.7, CFG start: 0.1, CFG end: 0.8, PAG scale: 3, Dynamic threshold: 0.995"
    assert f", {expected}, Version" in parameters(made)
    usual = json.loads(text_of())["request"]
    assert not set(extra) & set(usual)  # what is at its default is not written, as before there were these fields


def test_parameters_say_how_the_prompt_was_read() -> None:
    settings = RESOLVED | {"prompt_2": "y, z", "prompt_style": "plain", "clip_skip": 2, "crop_left": 0}
    made = Provenance(request=Request(prompt="(x:1.2)", seed=5, **settings), position=0, model="m", digest="0" * 10)
    lines = parameters(made).split("\n")
    assert lines[0] == "(x:1.2)"
    assert ', Clip skip: 2, Prompt 2: "y, z", Crop left: 0, Prompt style: plain, Version: ' in lines[1]
    assert not {"prompt_2", "prompt_style", "clip_skip", "crop_left"} & set(json.loads(text_of())["request"])


def text_of(**changes: object) -> str:
    """The request of a picture as it travels, as JSON."""
    made = Provenance(request=Request(prompt="x", seed=5, **RESOLVED), position=0, model="default", digest="0123456789")
    return json.dumps(json.loads(stamp(Image.new("RGB", (8, 8)), made).info["tintype"]) | changes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting property name"),
        ("[]", "expected the fields of Provenance"),
        ("[" * 100_000, "recursion"),
        ('{"position": 0}', "request"),
        (text_of(position=math.inf), "position: got inf; expected int"),
        (text_of(position="abc"), "position: got 'abc'; expected int"),
        (text_of(position=0.0), "position: got 0.0; expected int"),
        (text_of(position=1), "position 1"),
        (text_of(position=-1), "position -1"),
        (text_of(digest=None), "digest: got None; expected str"),
        (text_of(request={"steps": 0}), "steps 0: expected"),
        (text_of(request={"speed": 3}), "has no 'speed'"),
    ],
)
def test_a_damaged_request_says_so(text: str, words: str) -> None:
    picture = Image.new("RGB", (8, 8))
    picture.info["tintype"] = text
    with pytest.raises(ValueError, match=f"the picture's tintype request is damaged: .*{words}"):
        provenance(picture)


def test_seeds_follow_one_another_and_wrap() -> None:
    assert Request(seed=LARGEST_SEED, batch_size=3).seeds == (LARGEST_SEED, 0, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 2.5},
        {"steps": True},
        {"steps": "20"},
        {"seed": 1.0},
        {"cfg_scale": "7"},
        {"cfg_scale": True},
        {"prompt": None},
        {"seed": None},
        {"batch_size": None},
        {"sampler": 3},
        {"scheduler": ["karras"]},
        {"exact": "no"},
        {"negative_prompt": 3},
        {"steps": 1001},
        {"cfg_scale": math.nan},
        {"cfg_scale": math.inf},
        {"cfg_scale": -1.0},
        {"width": 4},
        {"height": 10**6},
        {"batch_size": 0},
        {"seed": LARGEST_SEED + 1},
        {"eta": 1.5},
        {"cfg_rescale": 1.1},
        {"cfg_start": -0.1},
        {"cfg_start": 0.5, "cfg_end": 0.5},
        {"cfg_end": 1.01},
        {"threshold": 0.4},
        {"pag_scale": -1.0},
        {"pag_scale": None},
        {"prompt": "a\0b"},
        {"prompt_2": 3},
        {"negative_prompt_2": "a\0b"},
        {"prompt_style": "compel"},
        {"clip_skip": 0},
        {"clip_skip": 33},
        {"original_width": 0},
        {"crop_top": -1},
        {"target_height": 2.5},
        {"aesthetic_score": math.nan},
        {"negative_aesthetic_score": "6"},
    ],
)
def test_impossible_values_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Request(**wrong)


def test_a_drawn_seed_is_kept() -> None:
    drawn = Request(prompt="x").with_seed()
    assert 0 <= drawn.seed <= LARGEST_SEED
    assert drawn.with_seed() == drawn
