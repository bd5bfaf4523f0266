"""Promises of a generation: own seeds, exactness, resumable steps."""

import dataclasses
from collections import deque

import numpy as np
import pytest
import torch
from PIL import Image

import tintype
from tintype.diffusion.samplers import SAMPLERS
from tintype.families.base import LatentDiffusion
from tintype.generation import generate_each

REQUEST = {"prompt": "a green frog above a key on a yellow background", "seed": 5, "steps": 4}


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default")


def levels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral", "dpmpp_2m_sde"])
def test_a_batch_of_four_against_four_singles(model: LatentDiffusion, sampler: str) -> None:
    together = tintype.generate(model, tintype.Request(**REQUEST, sampler=sampler, batch_size=4))
    for number, picture in enumerate(together):
        one = tintype.Request(**(REQUEST | {"seed": 5 + number}), sampler=sampler)
        alone = tintype.generate(model, one)[0]
        assert np.abs(levels(alone) - levels(picture)).max() <= 1
    assert np.abs(levels(together[0]) - levels(together[1])).max() > 50  # seeds do differ


def test_exact_batches_are_their_singles_byte_for_byte(model: LatentDiffusion) -> None:
    together = tintype.generate(model, tintype.Request(**REQUEST, batch_size=4, exact=True))
    for number, picture in enumerate(together):
        alone = tintype.generate(model, tintype.Request(**(REQUEST | {"seed": 5 + number})))[0]
        assert alone.tobytes() == picture.tobytes()


def test_same_request_same_bytes_and_global_random_state_untouched(model: LatentDiffusion) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = tintype.generate(model, tintype.Request(**REQUEST))[0]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert tintype.generate(model, tintype.Request(**REQUEST))[0].tobytes() == first.tobytes()


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_every_sampler_draws(model: LatentDiffusion, sampler: str) -> None:
    picture = tintype.generate(model, tintype.Request(**(REQUEST | {"steps": 20}), cfg_scale=3.0, sampler=sampler))[0]
    yellow = levels(picture)[:2, :2].reshape(-1, 3).mean(axis=0)
    assert yellow[0] > 200
    assert yellow[1] > 160
    assert yellow[2] < 140


def test_steps_are_lazy_and_end_at_zero(model: LatentDiffusion) -> None:
    walk = tintype.steps(model, tintype.Request(**REQUEST))
    first = next(walk)
    assert (first.index, first.count) == (0, 4)
    assert not torch.is_inference_mode_enabled()
    last = list(walk)[-1]
    assert last.sigma == 0
    assert last.x.shape == (1, 16, 8, 8)


def test_guidance_and_negative_prompt_matter(model: LatentDiffusion) -> None:
    def picture(**changes: object) -> np.ndarray:
        return levels(tintype.generate(model, tintype.Request(**(REQUEST | changes)))[0])

    assert np.abs(picture(cfg_scale=1.0) - picture()).max() > 10
    assert np.abs(picture(negative_prompt="a yellow background") - picture()).max() > 10


def test_many_prompts_at_once_are_their_singles(model: LatentDiffusion) -> None:
    prompts = ["a red apple on a blue background", "a dog to the left of a cat on a white background"]
    together = generate_each(model, prompts, tintype.Request(seed=3, steps=4))
    for number, prompt in enumerate(prompts):
        alone = tintype.generate(model, tintype.Request(prompt=prompt, seed=3 + number, steps=4))[0]
        assert np.abs(levels(alone) - levels(together[number])).max() <= 1


def test_other_sizes_work(model: LatentDiffusion) -> None:
    assert tintype.generate(model, tintype.Request(**REQUEST, width=104, height=72))[0].size == (104, 72)


def test_networks_in_bfloat16_draw_the_same_picture(model: LatentDiffusion) -> None:
    """Sampling stays in float32; only the networks round."""
    low = tintype.load("default")
    network = low.denoiser.network
    assert isinstance(network, torch.nn.Module)
    for part in (network, low.autoencoder, low.conditioner):
        part.bfloat16()
    low = dataclasses.replace(low, denoiser=dataclasses.replace(low.denoiser, dtype=torch.bfloat16))
    step = deque(tintype.steps(low, tintype.Request(**REQUEST)), maxlen=1).pop()
    assert step.x.dtype == torch.float32
    pictures = [tintype.generate(one, tintype.Request(**REQUEST))[0] for one in (low, model)]
    difference = np.abs(levels(pictures[0]) - levels(pictures[1]))
    assert 0 < difference.mean() < 6
