"""Pictures between two seeds."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import tintype
from tintype.apps.cli import DONE, main
from tintype.common.rng import Noise, slerp
from tintype.families.base import LatentDiffusion
from tintype.tasks.request import LARGEST_SEED, Request

ASKED = Request(prompt="a frog on a sky blue background", steps=3, seed=7)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default")


def bytes_of(model: LatentDiffusion, **changes: object) -> list[bytes]:
    return [one.tobytes() for one in tintype.generate(model, dataclasses.replace(ASKED, **changes))]


def first_x(model: LatentDiffusion, **changes: object) -> torch.Tensor:
    from tintype.tasks.plan import noise_of
    from tintype.tasks.task import resolve, task_of

    request = resolve(model, dataclasses.replace(ASKED, **changes))
    with torch.inference_mode():
        return task_of(request).plan(model, request, noise_of(model, request)).x


def test_the_arc_between_two_noises_is_shoemakes_column_by_column() -> None:
    start, end = (Noise([seed]).normal((4, 8, 6)) for seed in (1, 2))
    got = slerp(start, end, 0.3).double()
    for channel in range(4):
        for column in range(6):
            one, other = (x[0, channel, :, column].double() for x in (start, end))
            angle = torch.acos(one @ other / one.norm() / other.norm())
            expected = (torch.sin(0.7 * angle) * one + torch.sin(0.3 * angle) * other) / torch.sin(angle)
            assert torch.allclose(got[0, channel, :, column], expected, atol=1e-5)
    halfway = slerp(*(Noise([seed]).normal((4, 64, 64)) for seed in (1, 2)), 0.5)
    assert abs(halfway.std() - 1) < 0.02  # along the chord it is 0.71


def test_parallel_columns_go_straight() -> None:
    x = Noise([1]).normal((4, 8, 8))
    assert torch.allclose(slerp(x, x, 0.5), x, atol=1e-6)
    assert slerp(x, -x, 0.3).isfinite().all()
    line = Noise([1]).normal((4, 1, 8)), Noise([2]).normal((4, 1, 8))  # of one row: all are parallel
    assert slerp(*line, 0.3).isfinite().all()


def test_the_ends_are_the_two_seeds_pictures_bit_for_bit(model: LatentDiffusion) -> None:
    towards = {"variation_seed": 40}
    own, other = bytes_of(model), bytes_of(model, seed=40)
    assert own != other
    assert bytes_of(model, **towards, variation_strength=0.0) == own
    assert bytes_of(model, **towards, variation_strength=1.0) == other
    between = bytes_of(model, **towards, variation_strength=0.5)
    assert between not in (own, other)
    assert torch.equal(first_x(model, **towards, variation_strength=1.0), first_x(model, seed=40))


def test_a_small_variation_stays_near(model: LatentDiffusion) -> None:
    def away(strength: float) -> float:
        far = first_x(model, variation_seed=40, variation_strength=strength) - first_x(model)
        return float(far.norm())

    assert 0 < away(0.05) < away(0.2) / 2 < away(1.0) / 4


def test_a_batch_of_variations_is_of_one_seed_and_counts_the_other(model: LatentDiffusion) -> None:
    request = dataclasses.replace(ASKED, variation_seed=LARGEST_SEED, variation_strength=0.3, batch_size=2)
    assert request.seeds == (7, 7)
    assert request.variation_seeds == (LARGEST_SEED, 0)
    together = bytes_of(model, **{name: getattr(request, name) for name in ("variation_seed", "variation_strength")},
                        batch_size=2, exact=True)  # fmt: skip
    apart = [bytes_of(model, variation_seed=seed, variation_strength=0.3)[0] for seed in request.variation_seeds]
    assert together == apart
    assert together[0] != together[1]


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde"])
def test_later_draws_are_the_seeds_own(model: LatentDiffusion, sampler: str) -> None:
    """With the other's start a stochastic sampler still draws what the seed says: so neither's own picture."""
    drawn = {"sampler": sampler, "eta": 1.0} if sampler == "euler_ancestral" else {"sampler": sampler}
    crossed = bytes_of(model, **drawn, variation_seed=40, variation_strength=1.0)
    assert crossed not in (bytes_of(model, **drawn), bytes_of(model, **drawn, seed=40))
    noise, varied = Noise([7]), Noise([7], others=[40], share=0.4)
    assert not torch.equal(noise.first((4, 8, 8)), varied.first((4, 8, 8)))
    assert torch.equal(noise.normal((4, 8, 8)), varied.normal((4, 8, 8)))


@pytest.mark.parametrize("task", ["sample", "img2img", "inpaint"])
def test_every_task_varies(model: LatentDiffusion, task: str, tmp_path: Path) -> None:
    from PIL import Image

    rows = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(rows).save(tmp_path / "in.png")
    Image.new("L", (64, 64), "white").save(tmp_path / "mask.png")
    also: dict[str, object] = {"prompt": ""} if task == "sample" else {"image": str(tmp_path / "in.png")}
    also |= {"mask": str(tmp_path / "mask.png")} if task == "inpaint" else {}
    also |= {} if task == "sample" else {"strength": 0.7}
    varied = {"variation_seed": 40, "variation_strength": 1.0}
    assert bytes_of(model, task=task, **also, **varied) == bytes_of(model, task=task, **also, seed=40)
    assert bytes_of(model, task=task, **also, **varied) != bytes_of(model, task=task, **also)


def test_the_variation_is_told_as_a1111_does_and_repeated(model: LatentDiffusion, tmp_path: Path) -> None:
    command = ["txt2img", ASKED.prompt, "--steps", "2", "--seed", "7", "-b", "2", "--variation-strength", "0.2"]
    assert main([*command, "--variation-seed", "40", "-o", str(tmp_path / "out")]) == DONE
    first, second = sorted((tmp_path / "out").iterdir())
    from PIL import Image

    with Image.open(second) as picture:
        told = picture.info["parameters"]
    assert "Seed: 7, " in told
    assert "Variation seed: 41, Variation seed strength: 0.2, " in told
    assert main(["txt2img", "--from", str(second), "-o", str(tmp_path / "again.png")]) == DONE
    assert (tmp_path / "again.png").read_bytes() == second.read_bytes() != first.read_bytes()
    assert "Variation" not in tintype.generate(model, ASKED)[0].info["parameters"]


def test_a_variation_seed_left_open_is_drawn_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["txt2img", "a frog", "--steps", "1", "--seed", "7", "--variation-strength", "0.5"]
    assert main([*command, "-o", str(tmp_path / "a.png")]) == DONE
    seed = capsys.readouterr().out.split("variation seed ")[1].split(")")[0]
    assert main([*command, "--variation-seed", seed, "-o", str(tmp_path / "b.png")]) == DONE
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Request(variation_strength=0.5, variation_seed=-1).with_seed().variation_seed != -1


@pytest.mark.parametrize("wrong", [{"variation_strength": 1.5}, {"variation_seed": 0.5}, {"variation_seed": -2}])
def test_impossible_variations_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Request(**wrong)
