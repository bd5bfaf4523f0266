"""Latent consistency models, whose U-Net is told the guidance scale, against diffusers' whole pipeline."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from clip_oracles import their_tokenizer
from diffusers import DiffusionPipeline, LatentConsistencyModelPipeline, LCMScheduler
from family_oracles import BETAS, SD, small
from network_oracles import difference, randomize, their_autoencoder, their_clip_text, their_unet
from torch import Tensor

import tintype
from tintype import generation
from tintype.checkpoints.convert import convert
from tintype.checkpoints.tensors import open_tensors
from tintype.families.base import LatentDiffusion
from tintype.generation import latents
from tintype.models.unet import UNet
from tintype.tasks.task import resolve

CONFIG = small(SD["sd1"])
UNET = dataclasses.replace(CONFIG.unet, guidance_dim=32)
PROMPT = "a red apple"
COND_PROJ = "model.diffusion_model.time_embed.cond_proj.weight"


@dataclasses.dataclass
class Oracle:
    pipeline: DiffusionPipeline
    folder: Path
    file: Path


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    parts = {
        "vae": their_autoencoder(CONFIG.autoencoder),
        "text_encoder": their_clip_text(CONFIG.conditioner.clip),
        "unet": their_unet(UNET, linear=False),
    }
    for seed, part in enumerate(parts.values()):
        randomize(part, seed)
    parts["unet"].register_to_config(sample_size=8)
    parts["vae"].register_to_config(scaling_factor=0.18215)
    scheduler = LCMScheduler(**BETAS, beta_schedule="scaled_linear", original_inference_steps=50, clip_sample=False)
    pipeline = LatentConsistencyModelPipeline(
        **parts,
        tokenizer=their_tokenizer("<|endoftext|>"),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    place = tmp_path_factory.mktemp("lcm")
    pipeline.save_pretrained(place / "folder")
    convert(place / "folder", place / "model.safetensors")
    yield Oracle(pipeline, place / "folder", place / "model.safetensors")
    for weights in place.rglob("*.safetensors"):
        weights.unlink()


@pytest.fixture(params=["folder", "file"])
def model(request: pytest.FixtureRequest, oracle: Oracle) -> LatentDiffusion:
    return tintype.load(getattr(oracle, request.param))


def ours(model: LatentDiffusion, **asked: object) -> Tensor:
    request = resolve(model, tintype.Request(prompt=PROMPT, seed=3, width=64, height=64, **asked))
    *_, last = tintype.steps(model, request)
    return latents(model, request, last)


@pytest.mark.parametrize("scale", [1.0, 8.5])
@torch.inference_mode()
def test_four_steps_are_the_pipeline_s(oracle: Oracle, model: LatentDiffusion, scale: float) -> None:
    stream = torch.Generator().manual_seed(3)
    expected = oracle.pipeline(
        PROMPT, num_inference_steps=4, guidance_scale=scale, generator=stream, output_type="latent", height=64, width=64
    ).images
    assert difference(ours(model, steps=4, cfg_scale=scale), expected) <= 1e-4
    other = ours(model, steps=4, cfg_scale=scale + 1)
    assert difference(other, expected) > 1e-3, "the guidance scale is not heard"


def test_unasked_it_samples_as_it_was_made_for(model: LatentDiffusion) -> None:
    request = resolve(model, tintype.Request(prompt=PROMPT, seed=3))
    assert (request.steps, request.cfg_scale, request.scheduler) == (4, 8.5, "lcm")
    assert request.sampler in ("lcm", "LCMScheduler")


def test_the_network_is_asked_once_a_step_and_a_negative_prompt_is_warned_of(
    model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    run = UNet.run
    monkeypatch.setattr(UNet, "run", lambda self, x, *rest: rows.append(len(x)) or run(self, x, *rest))
    plain = ours(model)
    assert rows == [1] * 4
    assert torch.equal(ours(model, negative_prompt="ugly"), plain)
    request = resolve(model, tintype.Request(prompt=PROMPT, seed=3, negative_prompt="ugly"))
    assert any("guides itself" in sentence for sentence in generation.warnings(model, request))


def test_inversion_is_told_the_scale_too(model: LatentDiffusion) -> None:
    given = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    request = tintype.Request(prompt=PROMPT, seed=3, steps=4)
    found = [tintype.invert(model, given, dataclasses.replace(request, cfg_scale=scale)) for scale in (2.0, 5.0)]
    assert difference(*found) > 1e-3


def test_a_converted_file_and_folder_keep_the_embedding(oracle: Oracle, tmp_path: Path) -> None:
    assert open_tensors(oracle.file).shapes[COND_PROJ] == (CONFIG.unet.width, 32)
    convert(oracle.file, tmp_path / "again")
    theirs = LatentConsistencyModelPipeline.from_pretrained(tmp_path / "again", safety_checker=None)
    for name, tensor in oracle.pipeline.unet.state_dict().items():
        assert torch.equal(theirs.unet.state_dict()[name], tensor), name


def test_a_scale_is_asked_for_where_it_is_heard_and_only_there() -> None:
    x, t, context = torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, 2, CONFIG.unet.context_dim)
    with pytest.raises(ValueError, match=r"got guidance scale None; this U-Net expects one: bind what `at_guidance`"):
        UNet(UNET)(x, t, context)
    with pytest.raises(ValueError, match=r"got guidance scale 7\.5; this U-Net expects none, guidance is around it"):
        UNet(CONFIG.unet).at_guidance(7.5)(x, t, context)
