"""Tasks with pictures as diffusers' pipelines of the same name do them, with the same small random weights.

Both start from the same noise: theirs are drawn from one generator in one order, as ours are, once their autoencoder
gives the mean of what it encodes. Masks follow the latent's cells, where both mean the same by them.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from family_oracles import pipeline
from network_oracles import difference
from PIL import Image
from torch import Tensor

import tintype
from tintype.families.base import LatentDiffusion
from tintype.generation import latents
from tintype.tasks.depth2img import shown
from tintype.tasks.request import Request
from tintype.tasks.task import resolve

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy

STEPS = 10
SEED = 3
SCALE = 3.0
PROMPT, NEGATIVE = "A picture of a puppy", "blurry, two heads"
CASES = [(0.3, (64, 64)), (0.6, (96, 64)), (1.0, (96, 64))]  # strengths and sizes
KINDS = {"sd1": "StableDiffusion", "sd2": "StableDiffusion", "sdxl": "StableDiffusionXL"}


@dataclasses.dataclass
class Pair:
    """A pipeline and what opened its weights."""

    name: str
    theirs: DiffusionPipeline
    ours: LatentDiffusion


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    theirs = pipeline(name)
    theirs.save_pretrained(folder)
    yield Pair(name, theirs, tintype.load(folder))
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()


@pytest.fixture(autouse=True)
def no_posterior_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


def photo(width: int, height: int) -> Image.Image:
    """No two pixels alike, and smooth enough to be a picture."""
    small = np.random.default_rng(5).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def cells(width: int, height: int) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, (16, 16, 48, 40))
    return mask


def written(picture: Image.Image, path: Path) -> str:
    picture.save(path)
    return str(path)


def drawn_by(theirs: DiffusionPipeline, **settings: object) -> Tensor:
    """The latents that a pipeline ends with."""
    theirs.set_progress_bar_config(disable=True)
    return theirs(
        num_inference_steps=STEPS, generator=torch.Generator().manual_seed(SEED), output_type="latent", **settings
    ).images


PROMPTS = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance_scale": SCALE}


def drawn(model: LatentDiffusion, task: str, **settings: object) -> Tensor:
    """Ours, of a request."""
    told = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "cfg_scale": SCALE} if model.reads_prompts else {}
    request = Request(
        task=task, seed=SEED, steps=STEPS, sampler="DDIMScheduler", scheduler="leading", **told, **settings
    )
    resolved = resolve(model, request)
    *_, last = tintype.steps(model, resolved)
    return latents(model, resolved, last)


@pytest.mark.parametrize("pair", KINDS, indirect=True)
@pytest.mark.parametrize(("strength", "size"), CASES[:2])  # at 1 ours starts from noise alone
def test_image_to_image(pair: Pair, size: tuple[int, int], strength: float, tmp_path: Path) -> None:
    theirs = getattr(diffusers, f"{KINDS[pair.name]}Img2ImgPipeline").from_pipe(pair.theirs)
    image = photo(*size)
    expected = drawn_by(theirs, image=image, strength=strength, **PROMPTS)
    got = drawn(pair.ours, "img2img", image=written(image, tmp_path / "in.png"), strength=strength)
    assert difference(got, expected) <= 1e-4


INPAINTED = [(kind, *case) for kind in KINDS for case in CASES[:2]]  # at 1 their first x does not show what is known
INPAINTED += [(f"{kind}-inpainting", *case) for kind in KINDS for case in CASES]


@pytest.mark.parametrize(("pair", "strength", "size"), INPAINTED, indirect=["pair"])
def test_inpainting(pair: Pair, size: tuple[int, int], strength: float, tmp_path: Path) -> None:
    kind = KINDS[pair.name.removesuffix("-inpainting")]
    theirs = getattr(diffusers, f"{kind}InpaintPipeline").from_pipe(pair.theirs)
    image, mask, (width, height) = photo(*size), cells(*size), size
    expected = drawn_by(theirs, image=image, mask_image=mask, strength=strength, width=width, height=height, **PROMPTS)
    files = {"image": written(image, tmp_path / "in.png"), "mask": written(mask, tmp_path / "mask.png")}
    got = drawn(pair.ours, "inpaint", strength=strength, **files)
    assert difference(got, expected) <= 1e-4


@pytest.mark.parametrize("pair", ["sd1-pix2pix", "sdxl-pix2pix"], indirect=True)
@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_editing(pair: Pair, size: tuple[int, int], tmp_path: Path) -> None:
    image, (width, height) = photo(*size), size
    sizes = {"width": width, "height": height} if pair.name.startswith("sdxl") else {}  # by default the model's own
    expected = drawn_by(pair.theirs, image=image, image_guidance_scale=1.8, **sizes, **PROMPTS)
    got = drawn(pair.ours, "edit", image=written(image, tmp_path / "in.png"), image_cfg_scale=1.8)
    assert difference(got, expected) <= 1e-4


@pytest.mark.parametrize("pair", ["sd2-depth"], indirect=True)
@pytest.mark.parametrize(("strength", "size"), CASES[:2])
def test_depth_to_image(pair: Pair, strength: float, size: tuple[int, int], tmp_path: Path) -> None:
    image, depth = photo(*size), photo(48, 32).convert("L")
    told = torch.from_numpy(np.array(depth))[None].float() / 255
    expected = drawn_by(pair.theirs, image=image, depth_map=told, strength=strength, **PROMPTS)
    files = {"image": written(image, tmp_path / "in.png"), "depth": written(depth, tmp_path / "depth.png")}
    got = drawn(pair.ours, "depth2img", strength=strength, **files)
    assert difference(got, expected) <= 1e-4


@pytest.mark.parametrize("pair", ["sd2-depth"], indirect=True)
def test_depth_maps_that_say_nothing_are_refused(pair: Pair, tmp_path: Path) -> None:
    image = written(photo(64, 64), tmp_path / "in.png")
    gray = written(Image.new("L", (32, 32), 99), tmp_path / "gray.png")
    for settings, message in (
        ({}, "depth2img needs a depth; expected one: --depth FILE"),
        ({"depth": gray}, "depth: all of it is one gray; expected a map"),
        ({"depth": image, "width": 60}, "width 60 is not a multiple of 8"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve(pair.ours, Request(task="depth2img", image=image, **settings))


@pytest.mark.parametrize("pair", ["sd2-depth"], indirect=True)
def test_depth_is_cut_as_the_picture_is(pair: Pair, tmp_path: Path) -> None:
    """The near half of a wide map fills all that is kept but for the blur at its edge."""
    image = written(photo(128, 64), tmp_path / "in.png")
    depth = Image.new("L", (64, 32))
    depth.paste(255, (24, 0, 64, 32))  # three eighths are far: of the middle half a quarter
    request = Request(task="depth2img", image=image, depth=written(depth, tmp_path / "depth.png"), width=64, height=64)
    near = {
        resize: float((shown(pair.ours, dataclasses.replace(request, resize=resize)) > 0).float().mean())
        for resize in ("stretch", "crop")
    }
    assert near == {"stretch": 0.625, "crop": 0.75}
