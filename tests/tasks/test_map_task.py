"""Pictures of class maps, as CompVis's networks, rescaler and sampler make them of the same weights."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from network_oracles import difference
from PIL import Image
from test_compvis_chain import Theirs, save, side, small, their_latents, their_side
from torch import Tensor

import tintype
from tintype.common.rng import Noise
from tintype.families import latent_diffusion as zoo
from tintype.families.base import LatentDiffusion
from tintype.generation import latents
from tintype.tasks.infotext import provenance
from tintype.tasks.pictures import repeated_with
from tintype.tasks.request import Request
from tintype.tasks.task import resolve

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # CompVis's use of numpy

SEEDS = [4, 5]
WIDE = 4 * side(zoo.SEMANTIC), 8 * side(zoo.SEMANTIC)  # height, width
CLASSES = (np.arange(WIDE[0] * WIDE[1]).reshape(WIDE) // 7 % 182).astype(np.uint8)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[LatentDiffusion, Theirs]:
    folder = tmp_path_factory.mktemp("map")
    theirs = their_side(small(zoo.SEMANTIC))
    save(folder / "model.safetensors", theirs, scale=None)
    return tintype.load(folder / "model.safetensors"), theirs


@pytest.fixture
def gray(tmp_path: Path) -> str:
    Image.fromarray(CLASSES).save(tmp_path / "map.png")
    return str(tmp_path / "map.png")


def test_maps_are_drawn_as_there(mapped: tuple[LatentDiffusion, Theirs], gray: str) -> None:
    model, theirs = mapped
    request = Request(task="map2img", map=gray, steps=10, seed=SEEDS[0], batch_size=2)
    resolved = resolve(model, request)
    assert (resolved.height, resolved.width) == WIDE
    *_, last = tintype.steps(model, request)
    found = latents(model, resolved, last)

    def encode() -> tuple[Tensor, None]:
        one_hot = torch.eye(182)[torch.from_numpy(CLASSES).long()].permute(2, 0, 1)[None]
        return theirs.cond_stage(one_hot).expand(2, -1, -1, -1), None

    with torch.inference_mode():
        noise = Noise(SEEDS).normal(found.shape[1:])
        expected = their_latents(dataclasses.replace(theirs, encode=encode), model.config, noise)
        drawn = theirs.first_stage.decode(expected).clamp(-1, 1) * 127.5 + 127.5
    assert difference(found, expected) <= 1e-5
    for got, one in zip(tintype.generate(model, request), drawn, strict=True):
        assert (torch.from_numpy(np.array(got)).permute(2, 0, 1) - one).abs().max() <= 0.75


def test_the_numbers_of_a_palette_count_and_not_its_colours(
    mapped: tuple[LatentDiffusion, Theirs], gray: str, tmp_path: Path
) -> None:
    model, _ = mapped
    palette = Image.fromarray(CLASSES, "L").convert("P")
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    palette.putdata(CLASSES.ravel().tolist())
    palette.save(tmp_path / "palette.png")
    black = palette.copy()
    black.putpalette(bytes(768))
    black.save(tmp_path / "black.png")
    first = Request(task="map2img", map=gray, steps=1, seed=1)
    drawn = [
        tintype.generate(model, dataclasses.replace(first, map=path))[0]
        for path in (gray, str(tmp_path / "palette.png"), str(tmp_path / "black.png"))
    ]
    assert len({one.tobytes() for one in drawn}) == 1
    told = [provenance(one).request for one in drawn]
    assert told[0] == told[1] == told[2]
    assert repeated_with(told[2], first) == resolve(model, first)
    Image.fromarray(CLASSES // 2).save(tmp_path / "other.png")
    with pytest.raises(ValueError, match="is another picture"):
        repeated_with(told[0], dataclasses.replace(first, map=str(tmp_path / "other.png")))


def test_maps_that_do_not_fit_are_refused(mapped: tuple[LatentDiffusion, Theirs], gray: str, tmp_path: Path) -> None:
    model, _ = mapped
    beyond = CLASSES.copy()
    beyond[3, 5] = 200
    for name, picture in (
        ("beyond", Image.fromarray(beyond)),
        ("odd", Image.fromarray(CLASSES[:14])),
        ("colours", Image.fromarray(CLASSES).convert("RGB")),
    ):
        picture.save(tmp_path / f"{name}.png")
    for settings, message in (
        ({"map": None}, "expected one: --map FILE"),
        ({"map": str(tmp_path / "beyond.png")}, "map: class 200 in row 3, column 5: expected 0 to 181"),
        ({"map": str(tmp_path / "odd.png")}, "map: height 14 is not a multiple of 4; use 12 or 16"),
        ({"map": str(tmp_path / "colours.png")}, "not a class map: mode RGB"),
        ({"map": gray, "width": 64}, f"map: width {WIDE[1]} is that of a picture of {WIDE[1]}; got width 64"),
        ({"map": gray, "cfg_scale": 3.0}, "never trained without a map; expected cfg_scale 1"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve(model, Request(task="map2img", **settings))
    with pytest.raises(ValueError, match="the model tintype reads no class maps"):
        resolve(tintype.load("default"), Request(task="map2img", map=gray))
    with pytest.raises(ValueError, match="prompt: map2img does not take it"):
        Request(task="map2img", map=gray, prompt="a hill")
