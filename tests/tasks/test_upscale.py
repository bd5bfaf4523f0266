"""Upscalers that are shown the latent of the small picture enlarged; sizes, scales and room of all of them."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tintype
import tintype.tasks.room
from tintype.apps.cli import USAGE, main
from tintype.common.rng import Noise, generator
from tintype.conditioning.low import enlarged, noised
from tintype.data.scenes import SceneConfig, Scenes
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.schedule import DDPMConfig
from tintype.evaluation.scenes import SEED
from tintype.evaluation.upscaling import evaluate_upscaling
from tintype.families.base import Further, LatentDiffusion, assemble
from tintype.models.unet import UNet, UNetConfig
from tintype.objectives.enlarging import EnlargedCondition
from tintype.tasks.infotext import provenance
from tintype.tasks.pictures import data_url, pixels
from tintype.tasks.plan import pure_noise
from tintype.tasks.request import Request
from tintype.tasks.task import resolve, task_of
from tintype.tasks.windows import with_overlap

UNET = UNetConfig(
    in_channels=32,
    out_channels=16,
    width=8,
    mult=(1,),
    num_blocks=1,
    depth=(0,),
    context_dim=None,
    num_heads=1,
    num_classes=30,
    norm_groups=4,
)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    """Untrained, in the embedded latents of 8 pixels a cell: it draws four times larger."""
    start = tintype.load("default")
    config = dataclasses.replace(
        start.config,
        name="small",
        unet=UNET,
        conditioner=None,
        further=("enlarged",),
        scale=4,
        difference=0.2,
        schedule=DDPMConfig(betas="cosine", sigma_max=2.0),
        labels=(),
        steps=2,
    )
    torch.manual_seed(0)
    unet = UNet(UNET)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return assemble(
        config,
        unet=unet.eval(),
        autoencoder=start.autoencoder,
        conditioner=None,
        source="small",
        fingerprint=lambda: "0" * 10,
    )


def photo(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


def asked(picture: Image.Image, **settings: object) -> Request:
    return Request(**{"task": "upscale", "image": data_url(picture), "seed": 1} | settings)


def beside(model: LatentDiffusion, request: Request) -> tuple[Tensor, Tensor]:
    resolved = resolve(model, request)
    plan = task_of(resolved).plan(model, resolved, Noise(resolved.seeds))
    cond = plan.steering.stages[0].conds[0][1]
    assert cond.concat is not None
    assert cond.vector is not None
    return cond.concat, cond.vector


@pytest.mark.parametrize("level", [0, 25])
def test_sampling_shows_what_training_showed(model: LatentDiffusion, level: int) -> None:
    """Training: from bytes, encoded beforehand. The noise is that of the request's seeds."""
    picture = photo(16, 12)
    concat, told = beside(model, asked(picture, noise_level=level, batch_size=2))
    assert concat.shape == (2, 16, 6, 8)
    assert told.tolist() == [level, level]
    with torch.no_grad():
        raw = model.autoencoder.encode(enlarged(pixels(picture), 4)).mean
    clean = EnlargedCondition(model.space, model.denoiser.schedule, levels=30)({"beside": raw}, None)
    assert clean.vector is not None
    assert clean.vector.tolist() == [0]
    assert clean.concat is not None
    sigma = float(model.denoiser.schedule.sigma(torch.tensor(level, dtype=torch.float64)))
    for row, seed in enumerate((1, 2)):
        expected = noised(clean.concat, Noise([seed]).normal((16, 6, 8)), sigma)
        assert torch.allclose(concat[row : row + 1], expected, atol=1e-4)


def test_training_tells_how_noisy_the_picture_is(model: LatentDiffusion) -> None:
    schedule = model.denoiser.schedule
    trained = EnlargedCondition(LatentSpace(scale=(2.0,)), schedule, levels=30)
    cond = trained({"beside": torch.full((600, 3, 4, 4), 1.5)}, generator(0, "test"))
    assert cond.concat is not None
    assert cond.vector is not None
    assert sorted(set(cond.vector.tolist())) == list(range(30))
    sigma = schedule.sigma(cond.vector.double())
    expected = sigma / (1 + sigma**2).sqrt()
    found = cond.concat.double().flatten(1)
    assert found.mean() == pytest.approx(3 * float((1 + sigma**2).rsqrt().mean()), abs=0.01)
    assert (found.std(dim=1) / expected).mean() == pytest.approx(1, abs=0.02)
    assert torch.corrcoef(torch.stack((found.std(dim=1), expected)))[0, 1] > 0.9


@pytest.mark.parametrize("level", [0, 25])
def test_drawing_begins_at_the_picture_that_is_shown(model: LatentDiffusion, level: int) -> None:
    """With noise of the first level, no more: the picture itself is there."""
    resolved = resolve(model, asked(photo(16, 12), noise_level=level))
    plan = task_of(resolved).plan(model, resolved, Noise(resolved.seeds))
    shown, _ = beside(model, resolved)
    noise = Noise(resolved.seeds)
    noise.normal((16, 6, 8))  # that of the picture shown
    assert float(plan.sigmas[0]) < 2.1
    torch.testing.assert_close(plan.x, shown + float(plan.sigmas[0]) * noise.first((16, 6, 8)), rtol=1e-5, atol=1e-5)


def test_without_a_level_the_picture_is_shown_as_it_is(model: LatentDiffusion) -> None:
    assert resolve(model, asked(photo(16, 16))).noise_level == 0


def test_samplers_that_average_answers_agree_with_others() -> None:
    """PNDM's averages the network's own answers in diffusers; ours are no scaling of x alone here."""
    upscaler = tintype.load("upscaler")
    scene = Image.fromarray(Scenes(SceneConfig(size=64, split="all", seed=SEED))[0].picture)
    small = scene.resize((16, 16), Image.Resampling.BICUBIC)
    one, other = (
        np.asarray(tintype.generate(upscaler, asked(small, sampler=name, steps=12))[0]).astype(float)
        for name in ("PNDMScheduler", "plms")
    )
    assert 0 < np.abs(one - other).mean() < 0.5  # otherwise 3 and more


def test_models_that_answer_for_the_whole_begin_at_noise(model: LatentDiffusion) -> None:
    config = dataclasses.replace(model.config, difference=None)
    unet = model.denoiser.network
    assert isinstance(unet, UNet)
    whole = assemble(
        config, unet=unet, autoencoder=model.autoencoder, conditioner=None, source="", fingerprint=lambda: ""
    )
    assert model.denoiser.relative
    assert not whole.denoiser.relative
    resolved = resolve(whole, asked(photo(16, 12), noise_level=0))
    plan = task_of(resolved).plan(whole, resolved, Noise(resolved.seeds))
    noise = Noise(resolved.seeds)
    noise.normal((16, 6, 8))  # that of the picture shown
    assert torch.equal(plan.x, pure_noise(whole, resolved, noise, float(plan.sigmas[0])))


@pytest.mark.parametrize(("difference", "further"), [(0.0, ("enlarged",)), (0.2, ("low",))])
def test_differences_are_told_of_pictures_enlarged(
    model: LatentDiffusion, difference: float, further: tuple[Further, ...]
) -> None:
    with pytest.raises(ValueError, match=r"expected more than 0, from a picture enlarged"):
        dataclasses.replace(model.config, difference=difference, further=further)


def test_in_tiles_the_picture_is_shown_as_at_once(model: LatentDiffusion) -> None:
    """But for what an encoder sees beyond a tile's edge."""
    smooth = Image.fromarray(np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8))
    whole, tiled = (beside(model, asked(smooth, tile=tile, noise_level=0))[0] for tile in (None, 16))
    assert whole.shape == tiled.shape == (1, 16, 16, 16)
    assert 0 < (whole - tiled).abs().mean() < 0.1 * whole.std()


@pytest.mark.parametrize(
    ("scale", "size"), [(None, (68, 52)), (4, (68, 52)), (3, (51, 39)), (2, (34, 26))], ids=["own", "4", "3", "2"]
)
def test_sides_need_not_fill_cells(model: LatentDiffusion, scale: int | None, size: tuple[int, int]) -> None:
    picture = photo(17, 13)
    [drawn] = tintype.generate(model, asked(picture, scale=scale))
    assert drawn.size == size
    told = provenance(drawn).request
    assert (told.scale, told.width, told.height) == (scale or 4, 72, 56)
    [again] = tintype.generate(model, dataclasses.replace(told, image=data_url(picture)))
    assert drawn.tobytes() == again.tobytes()


def test_what_fills_the_last_cells_repeats_the_edge(model: LatentDiffusion) -> None:
    picture = photo(17, 13)
    whole = Image.fromarray(np.pad(np.asarray(picture), ((0, 1), (0, 1), (0, 0)), mode="edge"))
    concat, _ = beside(model, asked(picture, noise_level=0))
    expected, _ = beside(model, asked(whole, noise_level=0))
    assert torch.equal(concat, expected)


def test_a_smaller_scale_is_the_model_s_own_reduced(model: LatentDiffusion) -> None:
    [full], [half] = (tintype.generate(model, asked(photo(16, 16), scale=scale)) for scale in (4, 2))
    assert half.tobytes() == full.resize((32, 32), Image.Resampling.LANCZOS).tobytes()


def test_tiles_are_counted_in_pixels_of_the_picture(model: LatentDiffusion) -> None:
    """One that covers all is none; smaller ones are blended and tell their overlap."""
    picture = photo(32, 24)
    whole, covered, tiled = (tintype.generate(model, asked(picture, tile=tile))[0] for tile in (None, 32, 16))
    assert whole.tobytes() == covered.tobytes()
    assert tiled.size == whole.size == (128, 96)
    assert tiled.tobytes() != whole.tobytes()
    assert provenance(tiled).request.overlap == 4


def test_bad_requests_are_refused_before_any_work(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    for settings, message in (
        ({"tiling": True}, "tiling: small is shown a picture whose sides do not meet"),
        ({"scale": 5}, "scale 5: small enlarges 4 times; use that or less, or go twice"),
        ({"noise_level": 30}, "noise_level 30: small was taught 0 to 29; use one of them"),
        ({"tile": 17}, "tile 17 is not a multiple of 2; use 16 or 18"),
        ({"tile": 16, "overlap": 3}, "overlap 3 is not a multiple of 2; use 2 or 4"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve(model, asked(photo(16, 16), **settings))
    with pytest.raises(ValueError, match="scale 1: expected a whole number from 2 to 8"):
        asked(photo(16, 16), scale=1)
    monkeypatch.setattr(tintype.tasks.room, "free_memory", lambda device: 250 * 2**20)
    large = asked(photo(512, 512))
    with pytest.raises(ValueError, match=r"2048 x 2048 at once takes about 1\.2 GiB, 0\.2 are free.*--tile 64"):
        resolve(model, large)
    assert resolve(model, dataclasses.replace(large, tile=64)).overlap == 16


def test_tiles_are_not_tiled_themselves() -> None:
    with pytest.raises(ValueError, match="tile 16: with tiling each would be made to meet itself"):
        with_overlap(asked(photo(32, 32), tile=16, tiling=True), 1)


PEAK = """
import numpy as np
from PIL import Image
import tintype
from tintype.tasks.pictures import data_url
from tintype.tasks.room import needed
from tintype.tasks.task import resolve

def most():  # of this process alone; what resource tells begins with the parent's
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) * 1024

model = tintype.load("upscaler")
picture = Image.fromarray(np.full((192, 192, 3), 99, np.uint8))
request = resolve(model, tintype.Request(task="upscale", image=data_url(picture), seed=1, steps=1))
before = most()
tintype.generate(model, request)
print((most() - before) / needed(model, request))
"""


def test_room_is_reckoned_as_it_is_used() -> None:
    """In a process of its own: the peak, as a share of what was expected."""
    found = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout
    assert 0.6 < float(found) < 1.3


def test_nearness_is_measured_beside_bicubic_weights(model: LatentDiffusion) -> None:
    sized = dataclasses.replace(model, config=dataclasses.replace(model.config, size=64))
    found = evaluate_upscaling(sized, count=2, sizes=(64, 128), steps=1, quiet=True)
    for size in (64, 128):
        scenes = Scenes(SceneConfig(size=size, split="all", objects=(0.25,) * 4, seed=SEED))
        ratios: list[tuple[float, float]] = []
        for index in range(2):
            whole = scenes[index].picture
            small = Image.fromarray(whole).resize((size // 4, size // 4), Image.Resampling.BICUBIC)
            again = small.resize((size, size), Image.Resampling.BICUBIC)
            [made] = tintype.generate(sized, asked(small, steps=1, seed=SEED + index))
            errors = [np.mean((np.asarray(one).astype(float) - whole) ** 2) for one in (again, made)]
            ratios.append(tuple(10 * np.log10(255**2 / error) for error in errors))
        figures = found[str(size)]
        assert isinstance(figures, dict)
        found_ratios = [figures[one]["psnr"] for one in ("bicubic", "model")]
        assert found_ratios == pytest.approx(np.mean(ratios, axis=0).tolist(), abs=1e-3)
        assert figures["first_stage"]["psnr"] > max(found_ratios)
        assert figures["first_stage"]["distance"] < min(figures[one]["distance"] for one in ("bicubic", "model"))


def test_what_enlarges_nothing_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "upscaling", "default"]) == USAGE
    assert "does not draw pictures 4 times larger; expected an upscaler that does" in capsys.readouterr().err
