import json
import logging
import os
import random
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from processes import FORK
from tiny_training import CONFIG, Numbers, Regression, assert_equal, child, child_killed_at, die_in, everything, run
from torch import Tensor, nn

from tintype.common.config import Json, to_json
from tintype.common.files import load_tensors, reserved, whole_folder
from tintype.training.loop import train
from tintype.training.state import MAY_CHANGE, changeable, check_recipe, checkpoints

SIGKILLED = -9


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Twelve steps in one go."""
    return everything(run(tmp_path_factory.mktemp("uninterrupted"), save_every=12))


def newest(out: Path) -> int:
    """The step of the newest checkpoint; 0 when there is none."""
    return max((int(path.name.removeprefix("step-")) for path in checkpoints(out)), default=0)


# Resuming


def test_a_resumed_run_is_the_run_that_was_not_interrupted(
    tmp_path: Path, uninterrupted: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps, then new objects and seven more: weights, averages and optimizer agree bit for bit."""
    with monkeypatch.context() as patch:
        patch.setattr("tiny_training.CONFIG", replace(CONFIG, save_every=5))

        def stop(report: object) -> None:
            if checkpoints(tmp_path):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, hooks=[stop])
    assert names(tmp_path) == ["step-00000005"]
    torch.manual_seed(99)  # whatever was drawn in between
    torch.randn(7)
    steps: list[int] = []
    state = run(tmp_path, hooks=[lambda report: steps.append(report.state.step)])
    assert steps == list(range(6, 13))
    resumed = everything(state)
    assert len([name for name in resumed if "optimizer" in name]) == 3 * len([*state.parts["network"].parameters()])
    assert_equal(resumed, uninterrupted)


def test_a_loaded_state_is_the_saved_one(tmp_path: Path, uninterrupted: dict[str, Tensor]) -> None:
    saved = everything(run(tmp_path))
    assert_equal(saved, uninterrupted)
    state = run(tmp_path)  # nothing is left to do: it is only read
    assert_equal(everything(state), saved)
    weight = state.parts["network"].state_dict()["0.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_what_a_checkpoint_holds(tmp_path: Path) -> None:
    state = run(tmp_path, save_every=6)
    assert names(tmp_path) == ["step-00000006", "step-00000012"]
    last = tmp_path / "step-00000012"
    assert names(last) == ["network.ema.safetensors", "network.safetensors", "recipe.json", "train.pt"]
    for file, expected in (
        ("network", state.parts["network"].state_dict()),
        ("network.ema", state.emas["network"].state_dict()),
    ):
        found = load_tensors(last / f"{file}.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert json.loads((last / "recipe.json").read_text()) == {"train": to_json(replace(CONFIG, save_every=6))}
    assert torch.load(last / "train.pt", weights_only=True)["step"] == 12


@pytest.mark.parametrize("keep", [1, 3])
def test_only_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    run(tmp_path, steps=5, save_every=1, keep=keep)
    assert names(tmp_path) == [f"step-{step:08d}" for step in range(6 - keep, 6)]


def test_the_newest_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="tintype"):
        run(tmp_path, steps=3, save_every=1, keep=3)
        assert run(tmp_path, steps=3).step == 3
    assert caplog.text.count(f"going on from {tmp_path / 'step-00000003'}") == 1
    assert caplog.text.count("going on") == 1  # and the first call began


class Other(Regression):
    def __init__(self, network: nn.Module, *, part: str = "network") -> None:
        super().__init__()
        self.parts = {part: network}


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Other(nn.Sequential(nn.Conv2d(1, 6, 3), nn.Flatten())), "Unexpected key|Missing key"),
        (
            Other(nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(32, 2))),
            r"size mismatch for 0\.weight",
        ),
        (Other(Regression().parts["network"], part="critic"), "it holds network; expected critic"),
    ],
)
def test_a_checkpoint_of_another_network(tmp_path: Path, other: Other, why: str) -> None:
    run(tmp_path, steps=2)
    before = (tmp_path / "step-00000002" / "network.safetensors").read_bytes()
    with pytest.raises(
        ValueError, match=rf"step-00000002 is a checkpoint of another network \(.*({why}).*empty folder"
    ):
        run(tmp_path, steps=4, objective=other)
    assert names(tmp_path) == ["step-00000002"]
    assert (tmp_path / "step-00000002" / "network.safetensors").read_bytes() == before


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run(tmp_path, steps=2)
    path = tmp_path / "step-00000002" / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"network\.safetensors is not a whole safetensors file"):
        run(tmp_path, steps=4)


@pytest.mark.parametrize("file", ["train.pt", "recipe.json"])
@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "no header", "noise", "text"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(
    tmp_path: Path, file: str, damage: str, uninterrupted: dict[str, Tensor]
) -> None:
    run(tmp_path, steps=6, save_every=3)
    path = tmp_path / "step-00000006" / file
    whole = path.read_bytes()
    path.unlink()
    if damage != "absent":
        noise = random.Random(0).randbytes(len(whole))
        path.write_bytes(
            {"empty": b"", "cut": whole[:-100], "no header": whole[64:], "noise": noise, "text": b"not a checkpoint"}[
                damage
            ]
        )
    with pytest.raises(ValueError, match=rf"step-00000006/{file} is damaged; remove the folder {path.parent} and"):
        go_on(tmp_path, {"train": to_json(replace(CONFIG, steps=6, save_every=3))}, steps=6)
    shutil.rmtree(path.parent)
    steps: list[int] = []
    assert_equal(everything(run(tmp_path, hooks=[lambda report: steps.append(report.state.step)])), uninterrupted)
    assert steps[0] == 4


# Going on with another recipe

RECIPE: dict[str, Json] = {
    "train": {"steps": 2, "batch_size": 4, "seed": 0, "hold": 0.5, "learning_rate": 0.1, "keep": 2},
    "scenes": {"objects": [0.6, 0.4], "seed": 0},
    "features": "a/classifier.safetensors",
    "inputs": {"features": "c0ffee"},
}


def go_on(out: Path, recipe: dict[str, Json], *, steps: int = 4) -> int:
    check_recipe(out, recipe, {"train.steps", "train.keep", "features"})
    return train(Regression(), Numbers(), replace(CONFIG, steps=steps), out, recipe=recipe).step


def changed(*paths: tuple[str, Json]) -> dict[str, Json]:
    recipe = json.loads(json.dumps(RECIPE))
    for path, value in paths:
        *folders, name = path.split(".")
        place = recipe
        for folder in folders:
            place = place[folder]
        place[name] = value
    return recipe


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([("train.batch_size", 8)], r"another recipe: train\.batch_size was 4, is 8; go on"),
        ([("train.seed", 1)], r"train\.seed was 0, is 1;"),
        ([("train.hold", 1.0)], r"train\.hold was 0\.5, is 1\.0;"),
        ([("scenes.objects", [0.4, 0.6])], r"scenes\.objects was \[0\.6, 0\.4\], is \[0\.4, 0\.6\];"),
        ([("scenes.grid", 8)], r"scenes\.grid was null, is 8;"),
        ([("inputs.features", "beef")], r'inputs\.features was "c0ffee", is "beef"; go on'),
        ([("inputs.font", "beef")], r'inputs\.font was null, is "beef"; go on'),
        ([("train.steps", 4), ("train.learning_rate", 0.2)], r"recipe: train\.learning_rate was 0\.1, is 0\.2; go on"),
        (
            [("train.batch_size", 8), ("train.seed", 1), ("train.hold", 1), ("scenes.seed", 5)],
            r"train\.batch_size was 4, is 8; train\.seed was 0, is 1; train\.hold was 0\.5, is 1; …; go on",
        ),
    ],
)
def test_another_recipe_is_refused_by_name(tmp_path: Path, changes: list[tuple[str, Json]], said: str) -> None:
    go_on(tmp_path, RECIPE, steps=2)
    with pytest.raises(ValueError, match=rf"{said}.*recipe\.json, or start anew in an empty folder"):
        go_on(tmp_path, changed(*changes))
    assert names(tmp_path) == ["step-00000002"]
    assert go_on(tmp_path, RECIPE) == 4


def test_what_may_change_may_change(tmp_path: Path) -> None:
    go_on(tmp_path, RECIPE, steps=2)
    assert go_on(tmp_path, changed(("train.steps", 9), ("train.keep", 1), ("features", "b.safetensors"))) == 4
    assert json.loads((tmp_path / "step-00000004" / "recipe.json").read_text())["train"]["steps"] == 9


def test_a_checkpoint_without_a_recipe_goes_on_with_any(tmp_path: Path) -> None:
    train(Regression(), Numbers(), replace(CONFIG, steps=1), tmp_path)
    assert go_on(tmp_path, RECIPE, steps=2) == 2


def test_fields_say_themselves_that_they_may_change() -> None:
    @dataclass
    class Inner:
        size: int = 1
        file: str = field(default="a", metadata=MAY_CHANGE)

    @dataclass
    class Outer:
        inner: Inner
        optional: Inner | None = None
        every: int = field(default=1, metadata=MAY_CHANGE)

    assert changeable(Outer(Inner())) == {"inner.file", "every"}
    assert changeable(Outer(Inner(), Inner())) == {"inner.file", "optional.file", "every"}


def test_a_run_is_not_made_shorter_than_it_is(tmp_path: Path) -> None:
    run(tmp_path, steps=5)
    with pytest.raises(ValueError, match=r"train\.steps 4: .*step-00000005 is at step 5; expected 5 or more"):
        run(tmp_path, steps=4)
    assert run(tmp_path, steps=5).step == 5
    assert names(tmp_path) == ["step-00000005"]


# Two runs in a folder


def test_a_folder_is_reserved_for_one(tmp_path: Path) -> None:
    with (
        reserved(tmp_path),
        pytest.raises(ValueError, match=rf"a run is going on in {tmp_path}; wait for its end, or name another"),
        reserved(tmp_path),
    ):
        pass
    process = FORK.Process(target=die_in, args=(str(tmp_path),))
    process.start()
    process.join(120)
    assert process.exitcode == SIGKILLED
    with reserved(tmp_path):  # by no one, when its process has died
        assert names(tmp_path) == [".lock"]


# Being killed


def test_leftovers_are_ignored_and_cleared(tmp_path: Path, uninterrupted: dict[str, Tensor]) -> None:
    run(tmp_path, steps=5)
    for leftover in (".step-00000006.abc123.tmp", ".step-00000004.xyz.tmp"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "network.safetensors").write_bytes(b"half")
    (tmp_path / ".step-notes.md").write_text("not ours")
    (tmp_path / "step-by-step.txt").write_text("not ours either")
    state = run(tmp_path, save_every=6, keep=2)
    assert state.step == 12
    assert names(tmp_path) == [".step-notes.md", "step-00000006", "step-00000012", "step-by-step.txt"]


def test_an_error_while_saving_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    run(tmp_path, steps=2)
    monkeypatch.setattr("tintype.training.state.torch.save", fail)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, steps=4, save_every=1)
    assert names(tmp_path) == ["step-00000002"]


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("rename", 1),  # the first checkpoint is written whole but not yet named
        ("rename", 3),  # the third, with two older ones there
        ("rename", 4),  # an old one is about to lose its name
        ("rmdir", 1),  # an old one is half removed
        ("replace", 2),  # a tensor file is written but not yet named
        ("fsync", 3),  # in the middle of it all
    ],
)
def test_killed_in_the_middle_of_saving(
    tmp_path: Path, where: str, count: int, uninterrupted: dict[str, Tensor]
) -> None:
    process = FORK.Process(target=child_killed_at, args=(str(tmp_path), 12, where, count))
    process.start()
    process.join(120)
    assert process.exitcode == SIGKILLED
    assert [name for name in names(tmp_path) if name.startswith(".")]
    for path in checkpoints(tmp_path):
        load_tensors(path / "network.safetensors")
        load_tensors(path / "network.ema.safetensors")
        torch.load(path / "train.pt", weights_only=True)
    assert_equal(everything(run(tmp_path, save_every=1, keep=2)), uninterrupted)
    assert names(tmp_path) == ["step-00000011", "step-00000012"]


def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    """Drawn uniformly over the run: its steps, each with a checkpoint, and where within one. (A process whose moment is
    past when it starts dies starting.) What the last one ends with is what a run without any of this ends with."""
    (tmp_path / "whole").mkdir()
    begin = time.perf_counter()
    whole = everything(run(tmp_path / "whole", steps=60, save_every=1, keep=2))
    duration = (time.perf_counter() - begin) / 60
    out = tmp_path / "killed"
    out.mkdir()
    chance, halves = random.Random(0), 0
    for moment in sorted(chance.uniform(0, 58) for _ in range(20)):
        process = FORK.Process(target=child, args=(str(out), 60))
        process.start()
        until = time.monotonic() + 120
        while newest(out) < int(moment):
            assert time.monotonic() < until
            time.sleep(0.0005)
        time.sleep(moment % 1 * duration)
        process.kill()
        process.join(60)
        assert process.exitcode == SIGKILLED
        halves += any(name.startswith(".step") for name in names(out))
    assert halves > 0  # some died while they wrote or removed a checkpoint
    assert_equal(everything(run(out, steps=60, save_every=1, keep=2)), whole)
    assert names(out) == ["step-00000059", "step-00000060"]


def test_a_killed_folder_is_never_half_there(tmp_path: Path) -> None:
    """The name appears with the whole, for any reader at any moment."""
    path = tmp_path / "step-00000001"
    with whole_folder(path) as folder:
        (folder / "a").write_text("1")
        assert checkpoints(tmp_path) == []
    assert checkpoints(tmp_path) == [path]


def test_a_copy_of_a_checkpoint_is_its_owners(tmp_path: Path) -> None:
    """Neither gone on from nor removed, whatever `keep` says."""
    run(tmp_path, steps=6, save_every=2, keep=1)
    copy = tmp_path / "step-00000006-good"
    shutil.copytree(tmp_path / "step-00000006", copy)
    run(tmp_path, steps=12, save_every=2, keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000012"]
    assert copy.is_dir()
