"""Two passes: small, then large."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tintype
from tintype.apps.cli import DONE, main
from tintype.diffusion.step import Step
from tintype.families.base import LatentDiffusion
from tintype.generation import _abreast, decode, generate_each, latents
from tintype.tasks.hires import enlarged
from tintype.tasks.request import Request
from tintype.tasks.task import resolve

ASKED = Request(prompt="a frog on a sky blue background", steps=6, seed=7, hires_scale=1.5, hires_strength=0.5)
SMALL = dataclasses.replace(ASKED, hires_scale=None, hires_strength=0.7)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default")


def levels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def test_both_passes_are_steps_in_order(model: LatentDiffusion) -> None:
    found = list(tintype.steps(model, ASKED))
    assert [step.index for step in found] == list(range(9))  # 6, and int(6 * 0.5)
    assert [tuple(step.x.shape[-2:]) for step in found] == [(8, 8)] * 6 + [(12, 12)] * 3
    assert (found[5].sigma, found[8].sigma) == (0, 0)
    assert [step.count for step in found] == [6] * 6 + [9] * 3
    first = list(tintype.steps(model, SMALL))
    assert all(torch.equal(one.x, other.x) for one, other in zip(first, found[:6], strict=True))


def test_the_second_pass_is_image_to_image_from_the_enlarged_picture(model: LatentDiffusion, tmp_path: Path) -> None:
    """Drawn by hand: the same noise, the same levels, the same start."""
    resolved = resolve(model, SMALL)
    small = list(tintype.steps(model, SMALL))[-1]
    larger = dataclasses.replace(resolved, width=96, height=96)
    with torch.inference_mode():
        start = enlarged(model, latents(model, resolved, small), larger)
    tintype.save(decode(model, start)[0], tmp_path / "in.png")  # only for its size: the start is given
    again = dataclasses.replace(larger, task="img2img", image=str(tmp_path / "in.png"), strength=0.5)
    from tintype.tasks.plan import noise_of, spaced

    sigmas = spaced(model, resolve(model, again))[3:]
    noise = noise_of(model, resolved).normal(start.shape[1:])
    by_hand = list(tintype.steps(model, again, start=start + float(sigmas[0]) * noise))
    found = list(tintype.steps(model, ASKED))[6:]
    assert len(by_hand) == len(found) == 3
    for one, other in zip(by_hand, found, strict=True):
        assert torch.allclose(one.x, other.x, atol=1e-5)


def test_enlarging_keeps_what_is_there(model: LatentDiffusion) -> None:
    resolved = resolve(model, dataclasses.replace(SMALL, batch_size=2, steps=20))
    small = latents(model, resolved, list(tintype.steps(model, resolved))[-1])
    with torch.inference_mode():
        large = decode(model, enlarged(model, small, dataclasses.replace(resolved, width=128, height=96)))
    for picture, before in zip(large, decode(model, small), strict=True):
        assert picture.size == (128, 96)
        wanted = before.resize((128, 96), Image.Resampling.BICUBIC)
        assert np.square(levels(picture) - levels(wanted)).mean() < 100  # enlarged latents: 2,000 and more


def test_the_large_picture_shows_what_the_small_one_did(model: LatentDiffusion) -> None:
    asked = dataclasses.replace(ASKED, steps=15, hires_scale=2.0)
    alone = dataclasses.replace(SMALL, steps=15)
    requests = (asked, alone, dataclasses.replace(alone, width=128, height=128))
    large, small, at_once = (tintype.generate(model, one)[0] for one in requests)
    assert (large.size, small.size) == ((128, 128), (64, 64))

    def likeness(picture: Image.Image) -> float:
        down = picture.resize((64, 64), Image.Resampling.BOX)
        return float(np.corrcoef(levels(down).ravel(), levels(small).ravel())[0, 1])

    assert likeness(large) > 0.8
    assert likeness(at_once) < 0.5  # two frogs


def test_exact_batches_are_their_singles(model: LatentDiffusion) -> None:
    asked = dataclasses.replace(ASKED, steps=4)
    together = tintype.generate(model, dataclasses.replace(asked, batch_size=2, exact=True))
    apart = [tintype.generate(model, dataclasses.replace(asked, seed=seed))[0] for seed in (7, 8)]
    assert [one.tobytes() for one in together] == [one.tobytes() for one in apart]


def test_pictures_made_alone_wait_for_one_another_before_the_second_pass() -> None:
    """Samplers that pace themselves take as many steps as each picture needs."""

    def walk(small: int, large: int) -> Iterator[Step]:
        for index in range(small + large):
            x = torch.full((1, 4, *[8 if index < small else 12] * 2), float(index))
            yield Step(index, small + large, 1.0, x, x)

    found = [(tuple(step.x.shape), step.x[:, 0, 0, 0].tolist()) for step in _abreast([walk(2, 1), walk(1, 2)])]
    small, large = (2, 4, 8, 8), (2, 4, 12, 12)
    assert found == [(small, [0, 0]), (small, [1, 0]), (large, [2, 1]), (large, [2, 2])]


def test_stochastic_samplers_begin_the_noise_again(model: LatentDiffusion) -> None:
    """The second pass does not hang on how often the first one drew."""
    asked = resolve(model, dataclasses.replace(ASKED, sampler="euler_ancestral", hires_strength=1.0))
    found = list(tintype.steps(model, asked))[6:]
    plain = dataclasses.replace(asked, hires_scale=None, hires_strength=0.7, width=96, height=96)
    for one, other in zip(found, tintype.steps(model, plain), strict=True):
        assert torch.equal(one.x, other.x)


def test_the_picture_says_so_once_and_is_repeated(tmp_path: Path) -> None:
    command = ["txt2img", "a frog", "--steps", "4", "--seed", "7", "--hires-scale", "2", "--hires-steps", "6"]
    assert main([*command, "-o", str(tmp_path / "a.png")]) == DONE
    with Image.open(tmp_path / "a.png") as picture:
        told = picture.info["parameters"]
        assert picture.size == (128, 128)
    assert "Size: 64x64, " in told
    assert "Denoising strength: 0.7, Hires upscale: 2, Hires steps: 6, Hires upscaler: Bicubic, " in told
    assert told.count("Denoising strength") == 1
    assert main(["txt2img", "--from", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png")]) == DONE
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hires_scale": 1.0}, "hires_scale 1: nothing is enlarged"),
        ({"hires_scale": 1.3}, "width 64 becomes 83.2, not a multiple of 8; use 1.25 or 1.375"),
        ({"hires_scale": 1.05}, "not a multiple of 8; use 1.125"),
        ({"hires_scale": 1.25, "height": 72}, "height 72 becomes 90"),
        ({"hires_scale": 8.0, "width": 2048}, "width 2048 becomes 16384; expected 8192 or less"),
        ({"hires_scale": 9.0}, "hires_scale 9.0: expected a number from 1 to 8"),
        ({"hires_scale": 2.0, "hires_strength": 0.1}, "of 6 steps that leaves too few; expected 0.167 or more"),
        ({"hires_scale": 2.0, "sampler": "dpm_adaptive", "hires_strength": 0.2}, "expected 0.333 or more"),
        ({"hires_scale": 2.0, "hires_steps": 1000}, "1000 steps: this schedule has"),
        ({"hires_scale": None, "hires_steps": 3}, "expected a hires_scale with it"),
        ({"hires_scale": None, "hires_strength": 0.3}, "hires_strength 0.3: there is no second pass"),
        ({"task": "sample", "prompt": "", "hires_scale": 2.0}, "hires_scale: sample does not take it"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_the_first_pass(
    model: LatentDiffusion, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(model, dataclasses.replace(SMALL, **settings))


def test_what_others_steer_has_one_pass(model: LatentDiffusion) -> None:
    with pytest.raises(ValueError, match="hires_scale: the second pass reads the request's prompt"):
        tintype.generate(model, ASKED, cond=model.reads(["a frog"]))
    with pytest.raises(ValueError, match="hires_scale"):
        generate_each(model, ["a frog"], ASKED)
