"""Pictures of boxes, as CompVis's networks, conditioner and sampler make them of the same weights."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from network_oracles import difference
from PIL import Image
from test_compvis_chain import Theirs, save, side, small, their_latents, their_side
from torch import Tensor

import tintype
from tintype.apps.cli import main
from tintype.common.rng import Noise
from tintype.conditioning.layout import Box, Region, layout_ids
from tintype.families import latent_diffusion as zoo
from tintype.families.base import FamilyConfig, LatentDiffusion
from tintype.generation import latents
from tintype.tasks.boxes import boxes_of
from tintype.tasks.infotext import provenance
from tintype.tasks.request import Request
from tintype.tasks.task import resolve

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # CompVis's use of numpy

BOXES = ("3:0.1,0.2,0.6,0.8", "339:0,0,1,1")
SEEDS = [4, 5]


def opened(config: FamilyConfig, folder: Path) -> tuple[LatentDiffusion, Theirs]:
    theirs = their_side(config)
    save(folder / "model.safetensors", theirs, scale=None)
    return tintype.load(folder / "model.safetensors"), theirs


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> tuple[LatentDiffusion, Theirs]:
    return opened(small(zoo.LAYOUT), tmp_path_factory.mktemp("layout"))


def agrees(model: LatentDiffusion, theirs: Theirs, request: Request) -> None:
    """In latents, and in pixels where no code of the codebook is as near as another."""
    pictures = tintype.generate(model, request)
    resolved = resolve(model, request)
    *_, last = tintype.steps(model, request)
    found = latents(model, resolved, last)
    with torch.inference_mode():
        expected = their_latents(theirs, model.config, Noise(SEEDS).normal(found.shape[1:]))
        drawn = theirs.first_stage.decode(expected).clamp(-1, 1)
    assert difference(found, expected) <= 1e-5
    got = torch.from_numpy(np.stack([np.asarray(one) for one in pictures])).permute(0, 3, 1, 2)
    assert (got - (drawn * 127.5 + 127.5)).abs().max() <= 0.75
    assert drawn.std() > 0.05


def test_boxes_are_drawn_as_there(boxed: tuple[LatentDiffusion, Theirs]) -> None:
    model, theirs = boxed
    pixels = 4 * side(model.config)
    region = Region(left=0.1, top=0.2, width=0.5, height=0.8 - 0.2)
    ids = layout_ids([Box(label=3, region=region), Box(label=339, region=Region())], model.config.conditioner)

    def encode() -> tuple[Tensor, None]:
        return theirs.cond_stage.transformer(torch.tensor([ids] * 2), return_embeddings=True), None

    request = Request(
        task="layout2img", boxes=BOXES, steps=10, seed=SEEDS[0], batch_size=2, width=pixels, height=pixels
    )
    agrees(model, dataclasses.replace(theirs, encode=encode), request)
    *_, drawn = tintype.steps(model, request)
    *_, other = tintype.steps(model, dataclasses.replace(request, boxes=BOXES[:1]))
    assert difference(other.x, drawn.x) > 5e-4  # random weights hear little of their boxes


def test_guidance_leads_away_from_no_boxes(boxed: tuple[LatentDiffusion, Theirs]) -> None:
    model, _ = boxed
    request = Request(task="layout2img", boxes=BOXES, steps=2, seed=1, width=32, height=32)
    cond, guided = (next(tintype.steps(model, dataclasses.replace(request, cfg_scale=scale))) for scale in (1.0, 3.0))
    none = next(tintype.steps(model, request, cond=model.conditioner.empty(1)))
    expected = none.denoised + 3 * (cond.denoised - none.denoised)
    assert difference(guided.denoised, expected) <= 1e-4
    assert difference(cond.denoised, none.denoised) > 1e-3


def test_boxes_are_named_by_names_or_numbers() -> None:
    labels = ("apple", "red: dark", "pizza")
    request = Request(
        task="layout2img", boxes=("pizza:0.1,0.1,0.5,0.75", " red: dark : 0 , 0 , 1 , 1 ", "0:0.5,0,1,1", "7:0,0,1,.5")
    )
    found = boxes_of(request, labels, 8)
    assert [box.label for box in found] == [2, 1, 0, 7]
    assert found[0].region == Region(left=0.1, top=0.1, width=0.4, height=0.65)
    with pytest.raises(ValueError, match="no class '7'; expected apple, red: dark or pizza, or a number from 0 to 2"):
        boxes_of(request, labels)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("1:0.1,0.1,1.5,0.5", "each from 0 to 1, not pixels"),
        ("1:-0.1,0.1,0.5,0.5", "each from 0 to 1"),
        ("1:nan,0.1,0.5,0.5", "each from 0 to 1"),
        ("1:0.5,0.1,0.5,0.5", "has no area; expected left below right"),
        ("1:0.1,0.5,0.5,0.4", "has no area"),
        ("1:0.1,0.5,0.5", "expected NAME:left,top,right,bottom"),
        ("0.1,0.1,0.5,0.5", "has no name"),
        ("piza:0,0,1,1", "no class 'piza'; expected pizza, or a number from 0 to 339"),
        ("340:0,0,1,1", "no class '340'; expected .*a number from 0 to 339"),
    ],
)
def test_boxes_that_are_none_are_refused(boxed: tuple[LatentDiffusion, Theirs], box: str, message: str) -> None:
    named = dataclasses.replace(boxed[0], config=dataclasses.replace(boxed[0].config, labels=("apple", "pizza")))
    with pytest.raises(ValueError, match=rf"box '{box}'.*{message}"):
        resolve(named, Request(task="layout2img", boxes=(box,)))


def test_layouts_that_a_model_cannot_read_are_refused(boxed: tuple[LatentDiffusion, Theirs]) -> None:
    model, _ = boxed
    for settings, message in (
        ({}, "no boxes: layout2img draws what is in them; expected some, as --box NAME"),
        ({"boxes": BOXES * 16}, "32 boxes: this model reads 30 at most; leave some out"),
        ({"boxes": BOXES, "prompt": "a pizza"}, "prompt 'a pizza': ldm-layout2img reads boxes alone"),
        ({"boxes": BOXES, "negative_prompt": "x"}, "negative_prompt 'x': ldm-layout2img reads boxes alone"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve(model, Request(task="layout2img", **settings))
    unsteered = dataclasses.replace(tintype.load("default"), conditioner=None)
    for settings, message in (
        ({"task": "layout2img", "boxes": BOXES}, "reads no boxes; expected one that is steered by them"),
        ({"task": "class2img", "label": "pizza"}, "knows no classes; expected one that is steered by them"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve(unsteered, Request(**settings))
    with pytest.raises(ValueError, match="boxes: txt2img does not take it; leave it out, or use layout2img"):
        Request(boxes=BOXES)
    for wrong in ("1:0,0,1,1", ["1:0,0,1,1"], (1,), ("a\0:0,0,1,1",)):
        with pytest.raises(ValueError, match="boxes"):
            Request(task="layout2img", boxes=wrong)


def test_the_command_line_reads_boxes_and_files_of_them(
    boxed: tuple[LatentDiffusion, Theirs], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, target = tmp_path / "boxes.json", tmp_path / "out.png"
    layout.write_text(json.dumps([{"name": "339", "box": [0, 0, 1, 1]}, {"name": 5, "box": [0.25, 0, 1, 0.5]}]))
    settings = ["--steps", "2", "--seed", "4", "-W", "32", "-H", "32", "-m", boxed[0].source, "-o", str(target)]
    assert main(["layout2img", "--box", BOXES[0], "--layout", str(layout), *settings, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    boxes = [BOXES[0], "339:0,0,1,1", "5:0.25,0,1,0.5"]
    assert report["request"]["boxes"] == boxes
    with Image.open(target) as picture:
        picture.load()
        assert provenance(picture).request.boxes == tuple(boxes)
        assert 'Boxes: "3:0.1,0.2,0.6,0.8 339:0,0,1,1 5:0.25,0,1,0.5"' in picture.info["parameters"]
    again = tmp_path / "again.png"
    assert main(["layout2img", "--from", str(target), "-m", boxed[0].source, "-o", str(again)]) == 0
    assert Image.open(again).tobytes() == Image.open(target).tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("{}", "expected a list of"),
        ('[{"name": "a", "box": [0, 0, 1]}]', "box 0: got .*expected"),
        ('[{"name": "a", "box": [0, 0, 1, "1"]}]', "box 0: got"),
        ('[{"name": "a", "box": [0, 0, 1, 1]}, {"label": "a", "box": [0, 0, 1, 1]}]', "box 1: got"),
        (None, "No such file"),
    ],
)
def test_files_that_are_no_layout_are_refused(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "boxes.json"
    if text is not None:
        path.write_text(text)
    assert main(["layout2img", "--layout", str(path)]) == 2
    words = capsys.readouterr().err
    assert f"--layout {path}" in words
    assert re.search(message, words)
