"""From prompt to prompt, and from seed to seed."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import tintype
from tintype.apps.cli import DONE, USAGE, main
from tintype.diffusion.denoiser import Conditioning
from tintype.families.base import LatentDiffusion
from tintype.tasks.request import Request
from tintype.travel import arc, travel

ASKED = Request(steps=2, seed=7)
APPLE, FROG = "a red apple on a mint background", "a frog on a sky blue background"


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default")


def levels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).astype(int)


def plain(model: LatentDiffusion, prompt: str, seed: int) -> Image.Image:
    return tintype.generate(model, dataclasses.replace(ASKED, prompt=prompt, seed=seed))[0]


def test_every_stop_is_the_plain_picture_bit_for_bit(model: LatentDiffusion) -> None:
    prompts, seeds = (APPLE, FROG, "a rocket"), (7, 9, 8)
    frames = list(travel(model, ASKED, prompts, seeds, frames=5))
    assert len(frames) == 5
    for number, (prompt, seed) in zip((0, 2, 4), zip(prompts, seeds, strict=True), strict=True):
        expected = plain(model, prompt, seed)
        assert frames[number].tobytes() == expected.tobytes()
        assert frames[number].info["parameters"] == expected.info["parameters"]
    assert "parameters" not in frames[1].info  # no request repeats it


def test_frames_go_evenly_from_one_end_to_the_other(model: LatentDiffusion) -> None:
    for prompts, seeds in (((APPLE, FROG), (7,)), ((APPLE,), (7, 9))):
        frames = [levels(one) for one in travel(model, ASKED, prompts, seeds, frames=5)]
        whole = np.abs(frames[-1] - frames[0]).mean()
        assert all(0 < np.abs(one - next).mean() < whole for one, next in itertools.pairwise(frames))
        assert np.abs(frames[1] - frames[0]).mean() < np.abs(frames[3] - frames[0]).mean()


def test_between_two_seeds_lie_variations(model: LatentDiffusion) -> None:
    middle = list(travel(model, ASKED, [APPLE], [7, 9], frames=5))[1]
    varied = dataclasses.replace(ASKED, prompt=APPLE, variation_seed=9, variation_strength=0.25)
    assert middle.tobytes() == tintype.generate(model, varied)[0].tobytes()


def test_between_two_prompts_lies_the_middle_of_the_arc_of_what_is_read(model: LatentDiffusion) -> None:
    middle = list(travel(model, ASKED, [APPLE, FROG], frames=3))[1]
    with torch.inference_mode():
        apple, frog = (model.reads([one]) for one in (APPLE, FROG))
    slots = [(getattr(apple, slot), getattr(frog, slot)) for slot in ("context", "vector")]
    lengths = [(one.norm(dim=-1, keepdim=True) + other.norm(dim=-1, keepdim=True)) / 2 for one, other in slots]
    halfway = [F.normalize(F.normalize(one, dim=-1) + F.normalize(other, dim=-1), dim=-1) for one, other in slots]
    mean = Conditioning(*(direction * length for direction, length in zip(halfway, lengths, strict=True)))
    expected = tintype.generate(model, ASKED, cond=mean)[0]
    assert np.abs(levels(middle) - levels(expected)).max() <= 1  # two prompts are read in one batch


def test_the_arc_keeps_lengths_and_goes_evenly() -> None:
    start, end = torch.tensor([[3.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 3.0], [2.0, 0.0]])
    third = arc(start, end, 1 / 3)
    assert torch.allclose(third[0], 3 * torch.tensor([3**0.5 / 2, 0.5]), atol=1e-6)
    assert torch.allclose(third[1], torch.tensor([4 / 3, 0.0]), atol=1e-6)  # one direction: straight


def test_frames_between_prompts_are_panoramas_as_well(model: LatentDiffusion) -> None:
    wide = dataclasses.replace(ASKED, width=96, window=64, window_stride=32, steps=2)
    middle = list(travel(model, wide, [APPLE, APPLE + " "], frames=3))[1]  # one way, by conditionings and by words
    expected = tintype.generate(model, dataclasses.replace(wide, prompt=APPLE))[0]
    assert np.abs(levels(middle) - levels(expected)).max() <= 1


@pytest.mark.parametrize(
    ("prompts", "seeds", "frames", "changes", "message"),
    [
        ([], [7], 4, {}, "prompts: got none"),
        ([APPLE, FROG], [7], 1, {}, "frames 1: expected 2"),
        ([APPLE, FROG], [7], 10**6, {}, "frames 1000000"),
        ([APPLE, FROG], [-1], 4, {}, "seeds -1: expected"),
        ([APPLE, APPLE], [7], 4, {}, "nothing to travel between: got one prompt and one seed"),
        ([APPLE, "[a:b:0.5]"], [7], 4, {"steps": 6}, "no \\[schedules\\] or AND"),
        ([APPLE, "a frog AND a key"], [7], 4, {}, "AND"),
        ([APPLE, FROG], [7], 4, {"batch_size": 2}, "batch_size 2"),
        ([APPLE, FROG], [7], 4, {"sampler": "eulr"}, "euler"),
    ],
)
def test_what_cannot_be_is_refused_at_the_call(
    model: LatentDiffusion, prompts: list[str], seeds: list[int], frames: int, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        travel(model, dataclasses.replace(ASKED, **changes), prompts, seeds, frames=frames)


def test_the_command_writes_frames_or_one_that_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["travel", APPLE, FROG, "--steps", "2", "--seeds", "7,9", "--frames", "3", "--fps", "5"]
    assert main([*command, "-o", str(tmp_path / "way")]) == DONE
    names = sorted(path.name for path in (tmp_path / "way").iterdir())
    assert names == ["frame-0001.png", "frame-0002.png", "frame-0003.png"]
    assert main(["txt2img", APPLE, "--steps", "2", "--seed", "7", "-o", str(tmp_path / "first.png")]) == DONE
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "way" / names[0]).read_bytes()
    for name in ("way.gif", "way.webp"):
        assert main([*command, "-o", str(tmp_path / name)]) == DONE
        with Image.open(tmp_path / name) as moving:
            assert (moving.n_frames, moving.info["loop"]) == (3, 0)
            moving.seek(2)
            moving.load()
            assert moving.info["duration"] == 200
            with Image.open(tmp_path / "way" / names[2]) as last:
                assert np.abs(levels(moving) - levels(last)).mean() < (1 if name.endswith("webp") else 8)
    capsys.readouterr()
    for output, words in (("way", "holds frames already"), ("way.png", "expected a name in .gif")):
        assert main([*command, "-o", str(tmp_path / output)]) == USAGE
        assert words in capsys.readouterr().err
    assert main(["travel", APPLE, "--seeds", "7;9", "-o", str(tmp_path / "x.gif")]) == USAGE
    assert "--seeds 7;9" in capsys.readouterr().err
