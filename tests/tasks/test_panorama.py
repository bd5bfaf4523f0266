"""Pictures wider than the model's own, in windows."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

import tintype
from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.tasks.further import all_new
from tintype.tasks.infotext import provenance
from tintype.tasks.plan import spaced
from tintype.tasks.request import Request
from tintype.tasks.steering import Stage, Steering
from tintype.tasks.task import resolve

WIDE = {"prompt": "a frog", "seed": 5, "steps": 3, "width": 112, "height": 64, "sampler": "ddim"}


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default")


def last(model: LatentDiffusion, request: Request) -> Tensor:
    *_, step = tintype.steps(model, request)
    return step.x


@torch.inference_mode()
def multidiffusion(model: LatentDiffusion, sigmas: list[float], x: Tensor, window: int, stride: int) -> Tensor:
    """The authors' loop (omerbt/MultiDiffusion, panorama.py): each window takes its step of DDIM, the latents are
    averaged. Guidance and steps are written out, in a variance-preserving latent as there."""
    said = Steering(stages=(Stage(((1.0, model.reads(["a frog"])),), model.reads([""])),))
    [stage] = all_new(model, Request(width=8 * window, height=64), said, 1).stages  # where it is shown a mask, all new
    (_, cond), uncond = stage.conds[0], stage.uncond
    assert uncond is not None
    for before, after in itertools.pairwise(sigmas):
        value, count = torch.zeros_like(x), torch.zeros_like(x)
        alpha, alpha_after = 1 / (1 + before**2), 1 / (1 + after**2)
        for left in range(0, x.shape[-1] - window + 1, stride):
            view = x[..., left : left + window]
            x0, x0_uncond = (model.denoiser(view / alpha**0.5, before, one) for one in (cond, uncond))
            x0 = x0_uncond + 3.0 * (x0 - x0_uncond)
            eps = (view - alpha**0.5 * x0) / (1 - alpha) ** 0.5
            value[..., left : left + window] += alpha_after**0.5 * x0 + (1 - alpha_after) ** 0.5 * eps
            count[..., left : left + window] += 1
        x = value / count
    return x


def test_windows_are_multidiffusion(model: LatentDiffusion) -> None:
    request = Request(**WIDE, window=64, window_stride=24)
    walk = list(tintype.steps(model, request))
    sigmas = spaced(model, resolve(model, request)).tolist()
    assert len(walk) == 3
    start = Noise([5]).normal((16, 8, 14))
    expected = multidiffusion(model, sigmas, start, window=8, stride=3)
    assert (walk[-1].x - expected).abs().max() <= 1e-4
    assert (last(model, Request(**WIDE)) - expected).abs().max() > 0.1


def test_one_window_is_no_window(model: LatentDiffusion) -> None:
    request = Request(**WIDE | {"width": 80})
    plain = last(model, request)
    for window in (80, 96):
        found = last(model, dataclasses.replace(request, window=window))
        assert (found - plain).abs().max() <= 1e-6


def test_windows_are_drawn_in_batches_and_repeated(model: LatentDiffusion) -> None:
    request = Request(**WIDE | {"steps": 2, "height": 16}, window=64, window_stride=48, batch_size=2)
    first, second = tintype.generate(model, request)
    assert first.size == second.size == (112, 16)
    alone = tintype.generate(model, dataclasses.replace(request, seed=6, batch_size=1))[0]
    assert np.abs(np.asarray(alone).astype(int) - np.asarray(second)).max() <= 1
    told = provenance(first).request
    assert told == resolve(model, request)
    assert (np.asarray(tintype.generate(model, told)[0]) == np.asarray(first)).all()
    assert ", Window: 64, Window stride: 48, Version" in first.info["parameters"]


def test_windows_lie_a_quarter_apart_unless_told(model: LatentDiffusion) -> None:
    strides = [resolve(model, Request(**WIDE, window=window)).window_stride for window in (64, 56, 8)]
    assert strides == [16, 8, 8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 60}, "window 60 is not a multiple of 8; use 56 or 64"),
        ({"window": 64, "window_stride": 12}, "window_stride 12 is not a multiple of 8; use 8 or 16"),
        ({"window": 64, "window_stride": 72}, "window_stride 72: windows of 64 would leave gaps; expected 64 at most"),
        ({"window_stride": 16}, "window_stride 16: there are no windows; expected a window as well"),
        ({"window": 64, "tiling": True}, "with tiling each window would be a tile of its own"),
    ],
)
def test_windows_that_cannot_be_are_refused(model: LatentDiffusion, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(model, Request(**WIDE, **settings))
