"""What every task promises, and what each refuses."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import tintype
from tintype.common.rng import Noise
from tintype.families.base import LatentDiffusion
from tintype.models.unet import UNet
from tintype.tasks.masking import masked_area
from tintype.tasks.outpaint import extended
from tintype.tasks.pictures import data_url, digest, referred, repeated_with
from tintype.tasks.plan import keeping
from tintype.tasks.request import TASKS, Request
from tintype.tasks.task import Task, resolve, task_of

QUICK = {"steps": 4, "seed": 7}
PROMPT = "a frog on a sky blue background"


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default")


@pytest.fixture(scope="module")
def plain(model: LatentDiffusion) -> LatentDiffusion:
    """The same without channels for a mask: what is known holds it at every step."""
    unet = dataclasses.replace(model.config.unet, in_channels=16)
    network = UNet(unet)
    weights = model.denoiser.network.state_dict()
    network.load_state_dict(weights | {"conv_in.weight": weights["conv_in.weight"][:, :16]})
    config = dataclasses.replace(model.config, unet=unet, further=())
    return dataclasses.replace(
        model, config=config, denoiser=dataclasses.replace(model.denoiser, network=network.eval())
    )


@pytest.fixture(params=["shown a mask", "held to what is known"])
def either(request: pytest.FixtureRequest, model: LatentDiffusion, plain: LatentDiffusion) -> LatentDiffusion:
    return model if request.param == "shown a mask" else plain


@pytest.fixture
def apple(tmp_path: Path) -> str:
    """64 x 64, no two rows alike."""
    pixels = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return str(tmp_path / "in.png")


@pytest.fixture
def mask(tmp_path: Path) -> str:
    drawn = Image.new("L", (64, 64))
    ImageDraw.Draw(drawn).rectangle((8, 8, 39, 31), fill=255)
    drawn.save(tmp_path / "mask.png")
    return str(tmp_path / "mask.png")


def pixels(path_or_picture: str | Image.Image) -> np.ndarray:
    picture = Image.open(path_or_picture) if isinstance(path_or_picture, str) else path_or_picture
    return np.asarray(picture.convert("RGB"))


def one(model: LatentDiffusion, **settings: object) -> Image.Image:
    return tintype.generate(model, Request(**(QUICK | settings)))[0]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_a_file_with_its_plan(name: str) -> None:
    assert isinstance(task_of(Request(task=name)), Task)
    lines = (Path(tintype.__file__).parent / "tasks" / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 90


def test_strength_is_the_share_of_the_steps(model: LatentDiffusion, apple: str) -> None:
    for steps, strength, expected in ((10, 0.5, 5), (10, 0.75, 7), (4, 0.99, 3), (10, 1.0, 10), (10, 0.09, 0)):
        request = Request(task="img2img", prompt=PROMPT, image=apple, steps=steps, strength=strength, seed=1)
        assert len(list(tintype.steps(model, request))) == expected, strength


@pytest.mark.parametrize("task", ["img2img", "inpaint"])
def test_strength_0_is_the_input(model: LatentDiffusion, apple: str, mask: str, task: str) -> None:
    also = {"mask": mask} if task == "inpaint" else {}
    pictures = tintype.generate(
        model, Request(task=task, prompt=PROMPT, image=apple, strength=0.0, batch_size=2, seed=1, **also)
    )
    assert len(pictures) == 2
    for picture in pictures:
        assert (pixels(picture) == pixels(apple)).all()


def test_strength_1_does_not_look_at_the_input(model: LatentDiffusion, apple: str) -> None:
    drawn = one(model, task="img2img", prompt=PROMPT, image=apple, strength=1.0)
    assert (pixels(drawn) == pixels(one(model, prompt=PROMPT))).all()
    nearer = one(model, task="img2img", prompt=PROMPT, image=apple, strength=0.5)
    assert (pixels(drawn) != pixels(nearer)).mean() > 0.9


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strength": 0.6},
        {"fill": "colours"},
        {"fill": "noise", "strength": 0.8},
        {"fill": "nothing", "strength": 0.8},
        {"only_masked": True, "padding": 4},
        {"mask_invert": True},
    ],
    ids=str,
)
def test_pixels_outside_the_mask_are_the_inputs_own(
    either: LatentDiffusion, apple: str, mask: str, settings: dict[str, object]
) -> None:
    drawn = pixels(one(either, task="inpaint", prompt=PROMPT, image=apple, mask=mask, **settings))
    outside = (pixels(mask)[..., 0] == 0) != settings.get("mask_invert", False)
    assert (drawn[outside] == pixels(apple)[outside]).all()
    assert (drawn[~outside] != pixels(apple)[~outside]).any(axis=-1).mean() > 0.9  # random pixels are drawn by nobody


def test_a_mask_that_fades_mixes_at_its_edge(model: LatentDiffusion, apple: str, mask: str) -> None:
    settings = {"task": "inpaint", "prompt": PROMPT, "image": apple, "mask": mask}
    sharp, soft = (pixels(one(model, **settings, mask_blur=blur)).astype(int) for blur in (0, 4))
    far = np.s_[52:, 52:]  # farther than it fades
    assert (soft[far] == pixels(apple)[far]).all()
    edge = np.s_[32:36, 12:36]  # black in the sharp mask
    assert (sharp[edge] == pixels(apple)[edge]).all()
    assert (soft[edge] != pixels(apple)[edge]).mean() > 0.5


def test_what_is_under_the_mask_at_first_matters_below_strength_1(
    either: LatentDiffusion, apple: str, mask: str
) -> None:
    settings = {"task": "inpaint", "prompt": PROMPT, "image": apple, "mask": mask, "strength": 0.75}
    drawn = [pixels(one(either, **settings, fill=fill)) for fill in ("original", "colours", "noise", "nothing")]
    for number, first in enumerate(drawn):
        for other in drawn[:number]:
            assert (first != other).mean() > 0.05


@pytest.mark.parametrize("beyond", ["mirror", "noise"])
def test_outpainting_adds_to_the_sides_that_it_was_told(either: LatentDiffusion, apple: str, beyond: str) -> None:
    settings = {"task": "outpaint", "prompt": PROMPT, "image": apple, "left": 16, "bottom": 8, "strength": 0.75}
    drawn = pixels(one(either, **settings, beyond=beyond))
    assert drawn.shape == (72, 80, 3)
    assert (drawn[:64, 16:] == pixels(apple)).all()
    begun = pixels(extended(Request(**settings, beyond=beyond)).picture)
    assert (begun[:64, 16:] == pixels(apple)).all()
    added = np.ones(drawn.shape[:2], bool)
    added[:64, 16:] = False
    assert (drawn[added] != begun[added]).any(axis=-1).mean() > 0.9  # not what it began with
    other = pixels(one(either, **settings, beyond="noise" if beyond == "mirror" else "mirror"))
    assert (drawn[added] != other[added]).any(axis=-1).mean() > 0.5  # which matters


@pytest.mark.parametrize(
    ("settings", "box"),
    [
        ({"padding": 0}, (8, 4, 40, 36)),  # 32 x 24 made square, around its middle
        ({"padding": 4}, (4, 0, 44, 40)),
        ({"padding": 8, "width": 96, "height": 48}, (0, 0, 64, 40)),  # twice as wide, as far as the picture goes
        ({"padding": 64}, (0, 0, 64, 64)),
    ],
    ids=str,
)
def test_the_masked_part_is_worked_on_with_its_padding(
    model: LatentDiffusion, apple: str, mask: str, settings: dict[str, int], box: tuple[int, int, int, int]
) -> None:
    sized = {"width": 64, "height": 64} | settings
    request = Request(task="inpaint", prompt=PROMPT, image=apple, mask=mask, only_masked=True, seed=1, **sized)
    area = masked_area(request)
    assert area.box == box
    worked = area.worked(request)
    assert worked.picture.size == worked.mask.size == (request.width, request.height)
    assert (pixels(area.composed(worked.picture).crop(box)).shape) == (box[3] - box[1], box[2] - box[0], 3)
    *_, step = tintype.steps(model, dataclasses.replace(request, steps=1))
    assert step.x.shape[-2:] == (sized["height"] // 8, sized["width"] // 8)


@pytest.mark.parametrize("resize", ["stretch", "crop", "fill"])
def test_the_masked_part_comes_back_where_it_was(tmp_path: Path, resize: str) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 128)[None, :, None], (64, 128, 3)).astype(np.uint8)
    request = Request(
        task="inpaint", prompt=PROMPT, image=data_url(Image.fromarray(ramp)), width=64, height=64, resize=resize,
        mask=data_url(Image.new("L", (128, 64), 255)), only_masked=True,
    )  # fmt: skip
    area = masked_area(request)
    again = pixels(area.composed(area.worked(request).picture)).astype(int)
    assert np.abs(again - ramp).max() <= 4


def test_what_is_known_in_part_is_mixed_in_every_step(plain: LatentDiffusion, apple: str) -> None:
    request = resolve(plain, Request(task="img2img", prompt=PROMPT, image=apple, strength=1.0, seed=1))
    begun = task_of(request).plan(plain, request, Noise([1]))
    known, found = torch.randn(2, 1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    cells = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    plan = keeping(plain, request, begun, known, cells)
    held = plan.wrap(lambda x, sigma: found)(begun.x, 3.0)
    torch.testing.assert_close(held, known + cells * (found - known))


@pytest.mark.parametrize(
    "settings",
    [
        {"mask_blur": 32, "only_masked": True},
        {"mask_blur": 200},
        {"width": 32, "height": 64, "resize": "crop"},
    ],
    ids=str,
)
def test_a_mask_that_nothing_is_left_of_is_refused(
    model: LatentDiffusion, apple: str, settings: dict[str, object]
) -> None:
    speck = Image.new("L", (64, 64))
    speck.putpixel((2, 30), 255)
    request = Request(task="inpaint", prompt=PROMPT, image=apple, mask=data_url(speck), **settings)
    with pytest.raises(ValueError, match="mask: nothing is left of it"):
        resolve(model, request)


def test_pictures_are_brought_to_size_as_told(model: LatentDiffusion, tmp_path: Path) -> None:
    wide = Image.new("RGB", (128, 64), "red")
    wide.paste("blue", (0, 0, 32, 64))  # the left quarter
    wide.save(tmp_path / "wide.png")
    found = {}
    for resize in ("stretch", "crop", "fill"):
        request = Request(
            task="img2img", prompt=PROMPT, image=str(tmp_path / "wide.png"), strength=0.0, resize=resize, width=64,
            height=64, seed=1,
        )  # fmt: skip
        found[resize] = pixels(tintype.generate(model, request)[0])
        assert found[resize].shape == (64, 64, 3)
    blue = {resize: (picture[..., 2] > 128) for resize, picture in found.items()}
    assert blue["stretch"].mean() == pytest.approx(0.25, abs=0.03)
    assert blue["crop"].sum() == 0  # 32 columns are cut from each side
    assert blue["fill"].mean() == pytest.approx(0.25, abs=0.03)
    assert (blue["fill"][0] == blue["fill"][32]).all()  # drawn out above as its edge is


def test_data_urls_are_pictures_as_well(model: LatentDiffusion, apple: str) -> None:
    import base64

    url = "data:image/png;base64," + base64.b64encode(Path(apple).read_bytes()).decode()
    settings = {"task": "img2img", "prompt": PROMPT, "strength": 0.5}
    assert (pixels(one(model, **settings, image=url)) == pixels(one(model, **settings, image=apple))).all()


def test_a_picture_tells_its_input_by_digest_and_is_repeated_with_it(apple: str, tmp_path: Path) -> None:
    request = Request(task="img2img", prompt=PROMPT, image=apple, strength=0.5, seed=1)
    told = referred(request)
    assert told.image == digest(Image.open(apple))
    assert apple not in str(dataclasses.asdict(told))
    assert repeated_with(told, Request(task="img2img", image=apple)) == request
    with pytest.raises(ValueError, match="not stored in it; give it: --image FILE"):
        repeated_with(told, Request(task="img2img"))
    Image.new("RGB", (64, 64)).save(tmp_path / "other.png")
    with pytest.raises(ValueError, match="is another picture"):
        repeated_with(told, Request(task="img2img", image=str(tmp_path / "other.png")))


def test_what_cannot_be_is_refused_before_any_work(model: LatentDiffusion, apple: str, tmp_path: Path) -> None:
    black, small, text = tmp_path / "black.png", tmp_path / "small.png", tmp_path / "text.png"
    Image.new("L", (64, 64)).save(black)
    Image.new("L", (32, 64), "white").save(small)
    text.write_text("no picture")
    for settings, message in (
        ({"task": "img2img"}, "expected one: --image FILE"),
        ({"task": "img2img", "image": str(tmp_path / "none.png")}, "No such file"),
        ({"task": "img2img", "image": str(text)}, "no picture that can be used"),
        ({"task": "img2img", "image": "data:image/png;base64,?"}, "not a data URL"),
        ({"task": "img2img", "image": str(small)}, None),
        ({"task": "img2img", "image": apple, "width": 60}, "width 60 is not a multiple of 8"),
        ({"task": "inpaint", "image": apple}, "expected one: --mask FILE"),
        ({"task": "inpaint", "image": apple, "mask": str(black)}, "all of it is black"),
        ({"task": "inpaint", "image": apple, "mask": str(small)}, "mask: got 32 x 64 pixels; expected 64 x 64"),
        ({"task": "outpaint", "image": apple}, "nothing to add"),
        ({"task": "outpaint", "image": apple, "left": 3}, "width 67 is not a multiple of 8"),
        ({"task": "class2img", "label": "red aple"}, "label 'red aple': no class; expected red apple"),
        ({"task": "class2img", "label": "xyz"}, "expected one of 256, such as .*, or a number from 0 to 255"),
        ({"task": "layout2img"}, "no boxes: layout2img draws what is in them"),
        ({"task": "layout2img", "boxes": ("frg:0,0,1,1",)}, "no class 'frg'; expected frog"),
        ({"task": "layout2img", "boxes": ("frog:0,0,1,1",) * 5}, "5 boxes: this model reads 4 at most"),
        ({"task": "sample", "cfg_scale": 3.0}, "nothing steers"),
        ({"task": "edit", "image": apple}, "is not shown a picture beside the noise; edit expects a model that is"),
        ({"task": "depth2img", "image": apple}, "is not shown a depth beside the noise; depth2img expects"),
        ({"task": "upscale", "image": apple}, "is shown no small picture; expected an upscaler, by --model"),
    ):
        request = Request(
            **(settings | ({} if settings["task"] in ("class2img", "sample", "layout2img") else {"prompt": PROMPT}))
        )
        if message is None:
            assert resolve(model, request).width == 32
            continue
        with pytest.raises(ValueError, match=message):
            resolve(model, request)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "txt2image"}, "task 'txt2image': expected txt2img"),
        ({"strength": 0.5}, "strength: txt2img does not take it; leave it out, or use img2img"),
        ({"task": "sample", "prompt": "x"}, "prompt: sample does not take it"),
        ({"task": "img2img", "strength": 1.5}, "strength 1.5: expected a number from 0 to 1"),
        ({"task": "img2img", "strength": float("nan")}, "expected a number from 0 to 1"),
        ({"task": "inpaint", "fill": "sand"}, "fill 'sand': expected original, colours, noise or nothing"),
        ({"task": "inpaint", "mask_blur": 2.5}, "mask_blur 2.5: expected a whole number"),
        ({"task": "outpaint", "left": -8}, "left -8: expected a whole number from 0"),
        ({"task": "inpaint", "only_masked": 1}, "only_masked 1: expected true or false"),
        ({"task": "edit", "image_cfg_scale": 0.5}, "image_cfg_scale 0.5: expected a number from 1 to 100"),
        ({"task": "img2img", "depth": "x.png"}, "depth: img2img does not take it; leave it out, or use depth2img"),
        ({"task": "upscale", "noise_level": 351}, "noise_level 351: expected a whole number from 0 to 350"),
        ({"task": "upscale", "tile": 8}, "tile 8: expected a whole number from 16"),
    ],
)
def test_requests_refuse_what_no_model_could_serve(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Request(**settings)
