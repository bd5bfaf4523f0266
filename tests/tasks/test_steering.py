"""Prompts of a request as stages of conditionings, and whose turn is when."""

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tintype.conditioning.chunks import Reading, read
from tintype.conditioning.prompt import Framing, Prompt, as_prompt
from tintype.conditioning.text import TextConfig
from tintype.conditioning.towers import TextTowersConfig
from tintype.diffusion.denoiser import Conditioning
from tintype.models.clip import CLIPTextConfig
from tintype.tasks.request import Request
from tintype.tasks.steering import FRAMING, check, in_turn, steer, wordings

SIGMAS = torch.tensor([10.0, 8.0, 6.0, 4.0, 2.0, 0.0], dtype=torch.float64)


class Echo:
    """Every distinct prompt has its own number as context; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Prompt] = []

    def __call__(self, prompts: Sequence[str | Prompt]) -> Conditioning:
        rows = [as_prompt(prompt) for prompt in prompts]
        self.asked += rows
        return Conditioning(context=torch.tensor([[[float(len(self.asked))]]]))

    def empty(self, count: int) -> Conditioning:
        raise AssertionError

    def readings(self, prompt: Prompt) -> tuple[Reading, ...]:
        return (read(prompt),)


def request(prompt: str, **settings: object) -> Request:
    settings = {"steps": 5, "cfg_scale": 7.0, "width": 64, "height": 32} | settings
    return Request(prompt=prompt, **settings)


def texts_by_sigma(asked: Request, sigmas: Sequence[float]) -> list[str]:
    """The prompt in force at each of these noise levels, through `steer` and `in_turn`."""
    echo = Echo()
    steering = steer(echo, asked, SIGMAS, 1)
    assert len(set(echo.asked)) == len(echo.asked)  # each text is read once

    def answer(number: int) -> Tensor:
        context = steering.stages[number].conds[0][1].context
        assert context is not None
        return context

    denoises = [lambda x, sigma, n=number: answer(n) for number in range(len(steering.stages))]
    denoise = in_turn(denoises, steering.turns)
    return [echo.asked[int(denoise(torch.zeros(1), sigma)) - 1].text for sigma in sigmas]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("x", "xxxxx"),
        ("[a:b:2]", "aaabb"),  # calls 0, 1 and 2: see `at_call`
        ("[a:b:0.4]", "aaabb"),
        ("[a:b:0]", "bbbbb"),
        ("[a:b:4]", "aaaaa"),  # call 4 is the last of five
        ("[a|b|c]", "aabca"),
    ],
)
def test_phases_by_noise_level(prompt: str, expected: str) -> None:
    assert "".join(texts_by_sigma(request(prompt), SIGMAS[:-1].tolist())) == expected


def test_any_level_belongs_to_a_step() -> None:
    """Steps go from one level down to the next: what lies between, or above and below all, has its phase too, in any
    order; a level that is hardly another is the same."""
    asked = request("[a|b|c]")
    assert "".join(texts_by_sigma(asked, [99.0, 9.0, 8.0, 8.0 + 1e-9, 7.0, 5.0, 1.0, 0.0, 10.0])) == "aaaaabaaa"
    assert "".join(texts_by_sigma(asked, [4.0, 3.9, 4.1, 2.1, 2.0])) == "ccbca"


def test_and_is_several_weighted_conditionings() -> None:
    echo = Echo()
    steering = steer(echo, request("a cat :1.2 AND [a dog:a fox:2] AND a cat", negative_prompt="x AND y"), SIGMAS, 3)
    assert [weight for weight, _ in steering.stages[0].conds] == [1.2, 1.0, 1.0]
    assert [prompt.text for prompt in echo.asked] == ["a cat", " a dog", " a cat", "x AND y", " a fox"]
    assert len(steering.stages) == 2
    for stage in steering.stages:
        for cond in (*(cond for _, cond in stage.conds), stage.uncond):
            assert cond is not None
            assert cond.context is not None
            assert len(cond.context) == 3
    assert [number for _, number in steering.turns] == [0, 0, 0, 1, 1]
    assert steering.turns[0][0] == math.inf


def test_the_negative_prompt_has_phases_of_its_own() -> None:
    said = wordings(request("[a:b:1]", negative_prompt="[c:d:3]"))
    assert [(one.conds[0][1].text, one.uncond.text) for one in said] == [("a", "c"), ("b", "c"), ("b", "d")]


@pytest.mark.parametrize(
    ("prompt", "scale", "needed"),
    [("a", 7.0, True), ("a", 1.0, False), ("a :2", 1.0, True), ("a AND b", 1.0, True), ("a :.5 AND b :.5", 1.0, False)],
)
def test_what_guidance_does_not_need_is_not_read(prompt: str, scale: float, needed: bool) -> None:
    echo = Echo()
    steering = steer(echo, request(prompt, cfg_scale=scale), SIGMAS, 1)
    assert (steering.stages[0].uncond is not None) == needed
    assert any(one.negative for one in echo.asked) == needed


def test_plain_text_is_taken_as_it_is() -> None:
    (said,) = wordings(request("[a:b:2] AND c :3", negative_prompt="[c|d]", prompt_style="plain"))
    assert [(weight, prompt.text) for weight, prompt in said.conds] == [(1.0, "[a:b:2] AND c :3")]
    assert said.uncond.text == "[c|d]"
    assert said.conds[0][1].style == "plain"


def test_what_a_prompt_carries() -> None:
    asked = request("a", prompt_2="[b:c:1]", negative_prompt_2="d", clip_skip=2)
    first, second = wordings(asked)
    framing = Framing(original_size=(32, 64), target_size=(32, 64))
    prompt = Prompt(text="a", text_2="b", style="a1111", clip_skip=2, framing=framing)
    assert first.conds == ((1.0, prompt),)
    assert second.conds == ((1.0, dataclasses.replace(prompt, text_2="c")),)
    worse = dataclasses.replace(framing, aesthetic_score=2.5)
    assert first.uncond == dataclasses.replace(prompt, text="", text_2="d", negative=True, framing=worse)


def test_framing_asked_for() -> None:
    numbers = {"original_width": 1, "original_height": 2, "crop_top": 3, "crop_left": 4, "target_width": 5}
    numbers |= {"target_height": 6, "aesthetic_score": 7.0, "negative_aesthetic_score": 8.0}
    (said,) = wordings(request("a", **numbers))
    assert said.conds[0][1].framing == Framing(
        original_size=(2, 1), crop=(3, 4), target_size=(6, 5), aesthetic_score=7.0
    )
    assert said.uncond.framing is not None
    assert said.uncond.framing.aesthetic_score == 8.0


ONE = TextConfig(clip=CLIPTextConfig(), pooled=True)
BASE = TextTowersConfig(towers=(ONE, ONE))
REFINER = TextTowersConfig(towers=(ONE,), numbers=("original_size", "crop", "aesthetic_score"))


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        (ONE, ["prompt_2", "negative_prompt_2", *FRAMING]),
        (BASE, ["aesthetic_score", "negative_aesthetic_score"]),
        (REFINER, ["prompt_2", "negative_prompt_2", "target_width", "target_height"]),
        (None, ["prompt_2", "negative_prompt_2", *FRAMING]),
    ],
)
def test_what_a_model_would_ignore_is_refused(config: object, refused: list[str]) -> None:
    for name in ("prompt_2", "negative_prompt_2", *FRAMING):
        asked = request("a", **{name: "b" if "prompt" in name else 8})
        if name in refused:
            with pytest.raises(ValueError, match=rf"^{name}: .*leave it out"):
                check(config, asked)
        else:
            check(config, asked)
