"""Promises of a generation: own seeds, exactness, resumable steps."""

import copy
import dataclasses
import logging
from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

import tintype
from tintype.common.rng import Noise
from tintype.diffusion.samplers import SAMPLERS
from tintype.families.base import LatentDiffusion
from tintype.generation import decode, generate_each, unknown_words, warnings
from tintype.tasks.plan import guidance_of, pure_noise, spaced
from tintype.tasks.task import resolve

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


@pytest.mark.parametrize(
    "change",
    [{"cfg_rescale": 0.7}, {"cfg_start": 0.5}, {"cfg_end": 0.5}, {"threshold": 0.9}, {"pag_scale": 3.0}],
    ids=str,
)
def test_every_setting_of_guidance_reaches_the_picture(model: LatentDiffusion, change: dict[str, float]) -> None:
    asked, usual = (
        tintype.generate(model, tintype.Request(**REQUEST, cfg_scale=5.0, **one))[0] for one in (change, {})
    )
    assert np.abs(levels(asked) - levels(usual)).max() > 3


@pytest.mark.parametrize(
    ("start", "end", "guided"),
    [(0.0, 1.0, range(10)), (0.3, 0.7, range(3, 7)), (0.25, 1.0, range(3, 10)), (0.0, 0.01, [0])],
)
def test_shares_of_the_steps_are_the_steps_guided(
    model: LatentDiffusion, start: float, end: float, guided: Sequence[int]
) -> None:
    request = resolve(model, tintype.Request(cfg_scale=3.0, cfg_start=start, cfg_end=end, steps=10))
    sigmas = spaced(model, request)
    guidance = guidance_of(request, sigmas)
    acts = [index for index, sigma in enumerate(sigmas[:-1].tolist()) if guidance.end < sigma <= guidance.start]
    assert acts == list(guided)


def test_a_model_without_attention_in_its_middle_refuses_perturbed_attention(model: LatentDiffusion) -> None:
    unet = dataclasses.replace(model.config.unet, middle_depth=0)
    bare = dataclasses.replace(model, config=dataclasses.replace(model.config, unet=unet))
    with pytest.raises(ValueError, match="pag_scale 3: this model has no attention to perturb"):
        tintype.steps(bare, tintype.Request(pag_scale=3.0))


@pytest.mark.parametrize(
    ("sampler", "eta", "same"), [("ddim", 1.0, "euler_ancestral"), ("euler_ancestral", 0.0, "ddim")]
)
def test_eta_reaches_the_sampler(model: LatentDiffusion, sampler: str, eta: float, same: str) -> None:
    """DDIM and Euler ancestral are one step that differs in its eta."""
    asked = tintype.generate(model, tintype.Request(**REQUEST, sampler=sampler, eta=eta))[0]
    assert asked.tobytes() == tintype.generate(model, tintype.Request(**REQUEST, sampler=same))[0].tobytes()
    assert asked.tobytes() != tintype.generate(model, tintype.Request(**REQUEST, sampler=sampler))[0].tobytes()


def test_what_a_request_leaves_open_is_the_model_s_to_say(model: LatentDiffusion) -> None:
    own = {"steps": 3, "cfg_scale": 2.5, "sampler": "heun", "scheduler": "karras"}
    other = dataclasses.replace(model, config=dataclasses.replace(model.config, **own, size=72))
    resolved = resolve(other, tintype.Request(prompt="a frog", seed=5))
    assert {name: getattr(resolved, name) for name in own} == own
    assert (resolved.width, resolved.height) == (72, 72)
    asked = {"steps": 4, "cfg_scale": 0.0, "sampler": "euler", "scheduler": "trailing", "width": 64, "height": 80}
    resolved = resolve(other, tintype.Request(prompt="a frog", seed=5, **asked))
    assert {name: getattr(resolved, name) for name in asked} == asked


def test_sampling_starts_as_large_as_signal_and_noise_together(model: LatentDiffusion) -> None:
    request = resolve(model, tintype.Request(**REQUEST, width=80))
    start = pure_noise(model, request, Noise([5]), sigma=2.0)
    torch.testing.assert_close(start, Noise([5]).normal((16, 8, 10)) * 5**0.5)


def test_levels_are_rounded_and_clamped(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = torch.tensor([-9.0, 0.4, 0.6, 99.7, 254.6, 300.0])
    image = (exact / 127.5 - 1).expand(1, 3, 1, -1)  # B 3 H W
    monkeypatch.setattr(model.autoencoder, "decode", lambda _: image)
    assert levels(decode(model, torch.zeros(1, 16, 1, 1))[0])[0, :, 0].tolist() == [0, 0, 1, 100, 255, 255]


@pytest.mark.parametrize(("exact", "sizes"), [(True, [1, 1, 1]), (False, [3])])
def test_exact_decodes_one_by_one(
    model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch, exact: bool, sizes: list[int]
) -> None:
    seen: list[int] = []
    real = model.autoencoder.decode
    monkeypatch.setattr(model.autoencoder, "decode", lambda latent: seen.append(len(latent)) or real(latent))
    tintype.generate(model, tintype.Request(prompt="a frog", seed=5, steps=1, batch_size=3, exact=exact))
    assert seen == sizes


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_words_beyond_the_model_s_length_are_named(
    model: LatentDiffusion, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    fits = "red " * 30
    assert warnings(model, resolve(model, tintype.Request(**{name: fits}))) == []
    tintype.steps(model, tintype.Request(seed=5, **{name: fits + "owl frog"}))
    assert caplog.messages == [f"{name}: longer than one chunk of 30 tokens; left out from 'owl' on"]


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


def test_pictures_that_need_different_numbers_of_steps_come_out_as_alone(model: LatentDiffusion) -> None:
    request = tintype.Request(prompt="a frog", seed=4, batch_size=2, steps=10, cfg_scale=1.0, sampler="dpm_adaptive")
    walk = list(tintype.steps(model, request))
    alone = [dataclasses.replace(request, seed=seed, batch_size=1) for seed in (4, 5)]
    walks = [list(tintype.steps(model, one)) for one in alone]
    assert len(walk) == max(map(len, walks))
    assert walk[-1].count == len(walk)
    for row, one in enumerate(walks):
        assert torch.equal(walk[-1].x[row], one[-1].x[0])


# The prompt language


def drawn(model: LatentDiffusion, prompt: str, **changes: object) -> bytes:
    settings = {"seed": 5, "steps": 6, "prompt": prompt} | changes
    return tintype.generate(model, tintype.Request(**settings))[0].tobytes()


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        ("[a panda:a frog:0]", "a frog"),
        ("[a panda:a frog:99]", "a panda"),
        ("a [panda:frog:5]", "a panda"),  # the first phase holds a call longer, here for all six
        ("[a frog|a frog]", "a frog"),
        ("(a frog:1.0)", "a frog"),
        (r"a frog\,", "a frog,"),
        ("a frog :1", "a frog"),
    ],
)
def test_prompts_that_say_the_same_draw_the_same(model: LatentDiffusion, prompt: str, same: str) -> None:
    assert drawn(model, prompt) == drawn(model, same)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpmpp_2m", "dpm_adaptive"])
def test_phases_change_the_picture_after_they_begin(model: LatentDiffusion, sampler: str) -> None:
    asked = {"seed": 5, "steps": 6, "sampler": sampler}
    walks = {
        prompt: list(tintype.steps(model, tintype.Request(prompt=prompt, **asked)))
        for prompt in ("a [panda:frog:2]", "a panda")
    }
    mixed, first = walks.values()
    assert torch.equal(mixed[0].x, first[0].x)
    assert not torch.equal(mixed[-1].x, first[-1].x)


def test_weights_and_and_change_the_picture(model: LatentDiffusion) -> None:
    prompts = ["a red apple", "a (red:1.5) apple", "a red apple AND a frog", "a red apple AND a frog :0.5"]
    assert len({drawn(model, prompt) for prompt in prompts}) == 4
    plain = drawn(model, "a (red:1.5) apple", prompt_style="plain")  # signs it never saw are left out
    assert plain == drawn(model, "a red apple")


def test_and_equals_the_sum_of_its_parts(model: LatentDiffusion) -> None:
    """Two equal parts of half the weight each are one; the same part twice is twice the scale."""
    both = list(tintype.steps(model, tintype.Request(prompt="a frog :.5 AND a frog :.5", seed=5, steps=3)))
    one = list(tintype.steps(model, tintype.Request(prompt="a frog", seed=5, steps=3)))
    torch.testing.assert_close(both[-1].x, one[-1].x, rtol=1e-3, atol=1e-3)
    twice = list(tintype.steps(model, tintype.Request(prompt="a frog AND a frog", cfg_scale=2.0, seed=5, steps=3)))
    scaled = list(tintype.steps(model, tintype.Request(prompt="a frog", cfg_scale=4.0, seed=5, steps=3)))
    torch.testing.assert_close(twice[-1].x, scaled[-1].x, rtol=1e-3, atol=1e-3)


def test_clip_skip_reads_another_layer(model: LatentDiffusion) -> None:
    assert drawn(model, "a frog", clip_skip=2) != drawn(model, "a frog")
    with pytest.raises(ValueError, match="clip_skip 3: expected 1 to 2"):
        drawn(model, "a frog", clip_skip=3)


def test_warnings_are_of_every_phase_and_part(model: LatentDiffusion) -> None:
    asked = resolve(model, tintype.Request(prompt="a [zyx:wvu:3] AND (zyx:1.1) qqq", negative_prompt="[a|ttt]"))
    assert warnings(model, asked) == [
        "prompt: the model never saw 'zyx', 'qqq', 'wvu'; left out",
        "negative_prompt: the model never saw 'ttt'; left out",
    ]
    assert unknown_words(model, asked) == ["zyx", "qqq", "wvu", "ttt"]


# Conditionings that the caller made


def test_a_conditioning_in_place_of_the_prompt(model: LatentDiffusion) -> None:
    with torch.no_grad():
        frog, pair = model.conditioner(["a frog"]), model.conditioner(["a frog", "a panda"])
    asked = tintype.Request(seed=5, steps=4, batch_size=2)
    (own,) = tintype.generate(model, dataclasses.replace(asked, batch_size=1), cond=frog)
    said = tintype.generate(model, tintype.Request(prompt="a frog", seed=5, steps=4))[0]
    assert own.tobytes() == said.tobytes()
    assert own.info == {}  # no request would repeat it
    for exact in (True, False):
        each = tintype.generate(model, dataclasses.replace(asked, exact=exact), cond=pair)
        panda = tintype.generate(model, tintype.Request(prompt="a panda", seed=6, steps=4))[0]
        assert np.abs(levels(each[0]) - levels(said)).max() <= 1
        assert np.abs(levels(each[1]) - levels(panda)).max() <= 1
    with pytest.raises(ValueError, match=r"cond has \[2\] rows; expected 1, or 3, one for each picture"):
        tintype.steps(model, dataclasses.replace(asked, batch_size=3), cond=pair)


def test_weights_that_are_no_numbers_are_an_error_and_no_black_picture(model: LatentDiffusion) -> None:
    broken = copy.deepcopy(model.autoencoder)
    broken.post_quant_conv.weight.data[0] = torch.nan
    with pytest.raises(FloatingPointError, match="is not numbers: the weights are damaged"):
        tintype.generate(dataclasses.replace(model, autoencoder=broken), tintype.Request(**REQUEST))


def test_tags_of_other_programs_are_named(model: LatentDiffusion) -> None:
    request = resolve(model, tintype.Request(prompt="a frog <lora:style:0.8>", negative_prompt="embedding:bad-hands"))
    told = [one for one in warnings(model, request) if "loads nothing" in one]
    assert [one.split(" is read")[0] for one in told] == [
        "prompt: <lora:style:0.8>",
        "negative_prompt: embedding:bad-hands",
    ]


def test_a_model_that_reads_no_prompts_is_steered_by_what_it_is_given(model: LatentDiffusion) -> None:
    cond, uncond = model.reads(["a frog"]), model.reads([""])
    mute = dataclasses.replace(model, conditioner=None)
    request = tintype.Request(seed=5, steps=3, cfg_scale=3.0)
    got = tintype.generate(mute, request, cond=cond, uncond=uncond)[0]
    expected = tintype.generate(model, dataclasses.replace(request, prompt="a frog"))[0]
    assert got.tobytes() == expected.tobytes()
    alone = tintype.generate(mute, dataclasses.replace(request, cfg_scale=1.0), cond=cond)[0]
    assert alone.tobytes() != expected.tobytes()
    with pytest.raises(ValueError, match="guides away from something; give uncond="):
        tintype.generate(mute, request, cond=cond)
    with pytest.raises(ValueError, match="reads no prompts"):
        tintype.generate(mute, request)


def test_pictures_from_embeddings_end_where_the_prompt_s_do(model: LatentDiffusion) -> None:
    """A1111's DDIM stops above zero: what is left of the noise is divided away in both."""
    request = tintype.Request(prompt="a frog", seed=5, steps=3, sampler="DDIM")
    expected = tintype.generate(model, request)[0]
    got = tintype.generate(model, request, cond=model.reads(["a frog"]))[0]
    assert got.tobytes() == expected.tobytes()


def test_a_scale_below_one_is_no_guidance_where_diffusers_words_are_kept(
    model: LatentDiffusion, caplog: pytest.LogCaptureFixture
) -> None:
    turbo = dataclasses.replace(model, config=dataclasses.replace(model.config, conventions="diffusers"))
    request = tintype.Request(prompt="a frog", seed=5, steps=2, cfg_scale=0.0)
    with caplog.at_level(logging.WARNING):
        assert resolve(turbo, request).cfg_scale == 1
    assert "cfg_scale 0: no guidance with this model" in caplog.text
    assert resolve(model, request).cfg_scale == 0  # ours: the picture of no words


def test_automatic_is_no_spacing(model: LatentDiffusion) -> None:
    request = tintype.Request(prompt="a frog", sampler="DPM++ 2M", scheduler="Automatic")
    assert resolve(model, request).scheduler == "karras"
