"""Every family of Stable Diffusion in both layouts: what opens a file or folder samples as diffusers' own pipeline of
that family does with the same weights, starting from the same latents."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)
from family_oracles import BETAS, SD, SETTINGS, STABLE, pipeline, save_single_file, single_file, small
from network_oracles import difference
from PIL import Image
from torch import Tensor

import tintype
from tintype.common.rng import Noise
from tintype.conditioning.prompt import Framing, Prompt
from tintype.diffusion.denoiser import Conditioning
from tintype.diffusion.guidance import Guidance, Weighted, guided
from tintype.diffusion.names import preset
from tintype.diffusion.samplers import SAMPLERS
from tintype.families.base import LatentDiffusion
from tintype.generation import decode, latents
from tintype.tasks.task import resolve

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy

STEPS = 10
SEED = 3
SCALE = 3.0
PROMPT, NEGATIVE = "A picture of a puppy", "blurry, two heads"
LAYOUTS = ("folder", "single file")
SCHEDULERS = {  # of text to image, each sampled as one of diffusers' schedulers does
    "sd1": PNDMScheduler(**SETTINGS, **BETAS, skip_prk_steps=True, set_alpha_to_one=False),
    "sd2": DPMSolverMultistepScheduler(**SETTINGS, **BETAS),
    "sd2-v": DDIMScheduler(**SETTINGS, **STABLE, **BETAS, prediction_type="v_prediction"),
    "sdxl": EulerDiscreteScheduler(**SETTINGS, **BETAS, timestep_spacing="leading"),
}


@dataclasses.dataclass
class Oracle:
    """A pipeline, and where its weights lie in each layout."""

    name: str
    pipeline: DiffusionPipeline
    folder: Path
    file: Path

    def load(self, layout: str) -> LatentDiffusion:
        if layout == "folder":
            return tintype.load(self.folder)
        told = SD[self.name].config.prediction if self.name in ("sd2", "sd2-v") else None
        return tintype.load(self.file, prediction=told)


@pytest.fixture(scope="module", params=SD)
def oracle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    place = tmp_path_factory.mktemp(request.param)
    theirs = pipeline(request.param)
    theirs.save_pretrained(place / "folder")
    file = save_single_file(place / "model.safetensors", single_file(request.param, theirs))
    yield Oracle(request.param, theirs, place / "folder", file)
    for weights in place.rglob("*.safetensors"):
        weights.unlink()


@dataclasses.dataclass
class Asked:
    """What the pipeline gave its U-Net first, and the latents that it ended with."""

    sample: Tensor
    states: Tensor
    settings: dict
    latents: Tensor


def asked(oracle: Oracle) -> Asked:
    first: list[tuple[tuple, dict]] = []
    unet = oracle.pipeline.unet
    hook = unet.register_forward_pre_hook(
        lambda _, given, named: None if first else first.append((given, named)), with_kwargs=True
    )
    images = oracle.pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
        **pictures(oracle.name),
    ).images
    hook.remove()
    [(given, named)] = first
    return Asked(given[0], named["encoder_hidden_states"], named, images)


def pictures(name: str) -> dict[str, object]:
    """What the tasks of a family ask for beside a prompt."""
    pixels = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image, mask = Image.fromarray(pixels), Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 40))
    match name.rsplit("-", maxsplit=1)[-1]:
        case "inpainting":
            return {"image": image, "mask_image": mask, "strength": 1.0, "height": 64, "width": 64}
        case "pix2pix":
            return {"image": image, "image_guidance_scale": 1.5}
        case "depth":
            depth = torch.linspace(0, 1, 64).expand(1, 64, 64)
            return {"image": image, "depth_map": depth, "strength": 1.0}
        case "upscaler":
            return {"image": image.resize((16, 16)), "noise_level": 20}
        case "refiner":
            return {"image": image, "strength": 1.0}
        case _:
            return {"height": 64, "width": 64}


def framed(text: str, *, negative: bool = False) -> Prompt:
    score = 2.5 if negative else 6.0
    framing = Framing(original_size=(64, 64), target_size=(64, 64), aesthetic_score=score)
    return Prompt(text=text, negative=negative, framing=framing)


def conditionings(model: LatentDiffusion, theirs: Asked) -> tuple[list[Weighted], Conditioning]:
    """Ours of the prompts, beside their pictures and class."""
    channels = model.config.autoencoder.latent_channels
    beside = [rows[:, channels:] if rows.shape[1] > channels else None for rows in theirs.sample.split(1)]
    classes = theirs.settings.get("class_labels")
    cond = model.reads([framed(PROMPT)])
    uncond = model.reads([framed(NEGATIVE, negative=True)])
    if classes is not None:
        cond, uncond = (dataclasses.replace(one, vector=classes[:1]) for one in (cond, uncond))
    if len(beside) == 2:
        cond, uncond = (
            dataclasses.replace(one, concat=rows) for one, rows in zip((cond, uncond), beside[::-1], strict=True)
        )
        return [(1.0, cond)], uncond
    # InstructPix2Pix (Brooks et al. 2023, eq. 3): text and picture, picture alone, neither
    with_picture = dataclasses.replace(uncond, concat=beside[1])
    conds = [(1.0, dataclasses.replace(cond, concat=beside[0])), (1.5 / SCALE - 1, with_picture)]
    return conds, dataclasses.replace(uncond, concat=beside[2])


def sampled(model: LatentDiffusion, theirs: Asked) -> Tensor:
    """Latents after the DDIM steps of our denoiser."""
    ddim, schedule = preset("DDIMScheduler"), model.denoiser.schedule
    sigmas = ddim.levels(schedule, "leading", STEPS)
    conds, uncond = conditionings(model, theirs)
    denoise = guided(model.denoiser, conds, uncond, Guidance(scale=SCALE))
    start = theirs.sample[:1, : model.config.autoencoder.latent_channels]
    walk = SAMPLERS["ddim"](denoise, start * (1 + float(sigmas[0]) ** 2) ** 0.5, sigmas, Noise([SEED]))
    *_, last = walk
    return ddim.ended(last.x, last.sigma)


def assert_same_picture(model: LatentDiffusion, got: Tensor, oracle: Oracle, expected: Tensor) -> None:
    vae = oracle.pipeline.vae
    image = vae.decode(expected / vae.config.scaling_factor).sample
    theirs = (image.clamp(-1, 1) * 127.5 + 127.5).round()[0].permute(1, 2, 0).numpy()
    ours = np.asarray(decode(model, got)[0], dtype=np.float32)
    assert np.ptp(theirs) > 50, "the picture is all one grey: nothing is compared"
    assert np.abs(ours - theirs).max() <= 1


@torch.inference_mode()
def test_a_folder_is_sampled_as_its_pipeline_does(oracle: Oracle) -> None:
    theirs, model = asked(oracle), oracle.load("folder")
    got = sampled(model, theirs)
    assert difference(got, theirs.latents) <= 1e-4
    assert_same_picture(model, got, oracle, theirs.latents)


def test_both_layouts_are_one_model(oracle: Oracle) -> None:
    """Of the family and sizes that the oracle was made with; what is equal in every number draws the same."""
    folder, file = (oracle.load(layout) for layout in LAYOUTS)
    expected = small(SD[oracle.name])
    for part in ("name", "unet", "autoencoder", "conditioner", "schedule", "prediction", "space"):
        assert getattr(folder.config, part) == getattr(file.config, part) == getattr(expected, part), part
    assert folder.config.size == 64
    for part, network in folder.networks.items():
        same(file.networks[part].state_dict(), network.state_dict())


def same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("oracle", SCHEDULERS, indirect=True)
@torch.inference_mode()
def test_a_request_to_a_file_is_the_call_of_a_pipeline(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the public face, from the seed's own noise."""
    theirs, model = oracle.pipeline, oracle.load("single file")
    monkeypatch.setattr(theirs, "scheduler", SCHEDULERS[oracle.name])
    for negative in (NEGATIVE, "")[: 1 + (oracle.name == "sdxl")]:  # nothing is zeros there
        request = tintype.Request(
            prompt=PROMPT,
            negative_prompt=negative,
            seed=SEED,
            steps=STEPS,
            sampler=type(theirs.scheduler).__name__,
            cfg_scale=5,
            width=64,
            height=64,
        )
        request = resolve(model, request)
        *_, last = tintype.steps(model, request)
        got = latents(model, request, last)
        expected = theirs(
            PROMPT,
            negative_prompt=negative or None,
            num_inference_steps=STEPS,
            guidance_scale=5.0,
            height=64,
            width=64,
            latents=Noise([SEED]).normal((4, 8, 8)),
            output_type="latent",
        ).images
        assert difference(got, expected) <= 1e-4
        assert_same_picture(model, got, oracle, expected)
    [picture] = tintype.generate(model, request)
    assert np.array_equal(np.asarray(picture), np.asarray(decode(model, got)[0]))
