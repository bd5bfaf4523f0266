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
from diffusers import DiffusionPipeline, LDMSuperResolutionPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from family_oracles import pipeline
from network_oracles import difference, randomize, their_autoencoder, their_plain_unet
from PIL import Image
from test_compvis_chain import small
from test_diffusers_folder import scheduler
from torch import Tensor

import tintype
from tintype.families import latent_diffusion as zoo
from tintype.families.base import LatentDiffusion
from tintype.generation import latents
from tintype.models.autoencoder import Autoencoder
from tintype.models.unet import UNet
from tintype.tasks.depth2img import shown
from tintype.tasks.infotext import provenance
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


@pytest.mark.parametrize("pair", ["sd2-upscaler"], indirect=True)
@pytest.mark.parametrize(("level", "size"), [(20, (16, 16)), (0, (24, 16)), (350, (24, 16))])
def test_upscaling(pair: Pair, level: int, size: tuple[int, int], tmp_path: Path) -> None:
    image = photo(*size)
    expected = drawn_by(pair.theirs, image=image, noise_level=level, **PROMPTS)
    got = drawn(pair.ours, "upscale", image=written(image, tmp_path / "in.png"), noise_level=level)
    assert difference(got, expected) <= 1e-4


@pytest.mark.parametrize("size", [(32, 32), (64, 32)])
def test_super_resolution_of_latent_diffusion(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(zoo.SUPER_RESOLUTION)
    theirs = LDMSuperResolutionPipeline(
        vqvae=randomize(their_autoencoder(config.autoencoder), 1),
        unet=randomize(their_plain_unet(config.unet), 2).eval(),
        scheduler=scheduler(config),
    )
    theirs.unet.register_to_config(sample_size=8)
    theirs.save_pretrained(tmp_path / "model")
    seen: list[Tensor] = []
    decode = theirs.vqvae.decode
    monkeypatch.setattr(theirs.vqvae, "decode", lambda latents: seen.append(latents) or decode(latents))
    image, ours = photo(*size), tintype.load(tmp_path / "model")
    path = written(image, tmp_path / "in.png")
    drawn_by(theirs, image=image)
    assert difference(drawn(ours, "upscale", image=path), seen[0]) <= 1e-4
    for settings, message in (
        ({"prompt": PROMPT}, "ldm-super-resolution reads none; leave it out"),
        ({"noise_level": 20}, "noise_level 20: ldm-super-resolution is not told one"),
        ({"cfg_scale": 3.0}, "cfg_scale 3: no prompt steers"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve(ours, Request(task="upscale", image=path, **settings))


@pytest.mark.parametrize("pair", ["sd2-upscaler"], indirect=True)
def test_upscaling_in_tiles(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither network ever sees more than a tile; one tile that covers all is no tile."""
    model, path = pair.ours, written(photo(40, 24), tmp_path / "in.png")
    settings = {"task": "upscale", "prompt": PROMPT, "image": path, "seed": 1, "steps": 2, "sampler": "ddim"}
    whole, covered = (tintype.generate(model, Request(**settings, tile=tile))[0] for tile in (None, 40))
    assert whole.size == covered.size == (160, 96)
    assert np.array_equal(np.asarray(whole), np.asarray(covered))
    seen: list[tuple[int, ...]] = []
    decode, run = Autoencoder.decode, UNet.run
    monkeypatch.setattr(Autoencoder, "decode", lambda self, z: seen.append(z.shape) or decode(self, z))
    monkeypatch.setattr(UNet, "run", lambda self, x, *given: seen.append(x.shape) or run(self, x, *given))
    [first, second] = tintype.generate(model, Request(**settings, tile=16, overlap=4, batch_size=2))
    assert first.size == second.size == (160, 96)
    assert seen == [(4, 7, 16, 16)] * 12 + [(1, 4, 16, 16)] * 12  # two steps of 2 x 3 tiles, then each of two pictures
    assert np.asarray(first).std() > 10
    assert provenance(first).request.overlap == 4


@pytest.mark.parametrize("pair", ["sd2-upscaler"], indirect=True)
def test_what_an_upscaler_cannot_do_is_refused_before_any_work(pair: Pair, tmp_path: Path) -> None:
    image = written(photo(24, 16), tmp_path / "in.png")
    large = written(Image.new("RGB", (2056, 8)), tmp_path / "large.png")
    for settings, message in (
        ({}, "upscale begins with a picture; expected one: --image FILE"),
        ({"image": large}, "image: got 2056 x 8 pixels, to be 4 times larger; expected 2048 a side at most"),
        ({"image": image, "width": 64}, "width 64: the picture becomes 96; leave it out"),
        ({"image": image, "tile": 16, "overlap": 9}, "overlap 9: expected at most half of tile 16: 8"),
        ({"image": image, "overlap": 4}, "overlap 4: without tile there is none; give tile"),
        ({"task": "txt2img"}, "expected a model without, or another task"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve(pair.ours, Request(**({"task": "upscale"} | settings)))
    resolved = resolve(pair.ours, Request(task="upscale", image=image, tile=32))
    assert (resolved.noise_level, resolved.overlap, resolved.width, resolved.height) == (20, 8, 96, 64)


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
