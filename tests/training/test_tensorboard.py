"""What TensorBoard's own reader shows of a run."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import run

import tintype.training.tensorboard
from tintype.training.hooks import Log, Sheets
from tintype.training.loop import Hook, Report
from tintype.training.tensorboard import TensorBoard


def hooks(out: Path) -> list[Hook]:
    board = TensorBoard(out / "tensorboard", last=12)
    draw = lambda state: Image.new("RGB", (state.step, 2), "red")  # noqa: E731
    log = Log(out / "log.jsonl", last=12, every=2, show=board.trained)
    return [log, Sheets(out, draw, every=6, last=12, show=board.show), board]


def shown(out: Path) -> EventAccumulator:
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_scalars_and_sheets_are_those_of_the_run(tmp_path: Path) -> None:
    """Scalars are the log's means, not the last step's metrics; what is no number is left out."""

    def poison(report: Report) -> None:
        if report.state.step in (3, 4):
            report.metrics["loss"] = torch.tensor(math.nan)

    run(tmp_path, hooks=[poison, *hooks(tmp_path)])
    events = shown(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sorted(events.Tags()["scalars"]) == ["half", "loss", "rate", "samples_per_s"]
    for name in events.Tags()["scalars"]:
        told = {line["step"]: line[name] for line in lines if line[name] is not None}
        assert list(told) == ([2, 6, 8, 10, 12] if name == "loss" else [2, 4, 6, 8, 10, 12])
        assert {one.step: one.value for one in events.Scalars(name)} == pytest.approx(told, rel=1e-6)
    assert [(one.step, one.width, one.height) for one in events.Images("sheet")] == [(6, 6, 2), (12, 12, 2)]


def test_parts_are_folders_of_their_metrics(tmp_path: Path) -> None:
    TensorBoard(tmp_path / "tensorboard", last=1).trained({"step": 1, "samples": 4, "critic loss": 0.5}, 1)
    assert shown(tmp_path).Tags()["scalars"] == ["critic/loss"]


def test_a_run_that_goes_on_shows_each_step_once(tmp_path: Path) -> None:
    """Stopped after step 9 with a checkpoint of step 4: 6 and 8, and the sheet of 6, are done again."""

    def stop(report: Report) -> None:
        if report.state.step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, save_every=4, keep=3, hooks=[*hooks(tmp_path), stop])
    for path in tmp_path.glob("step-00000008/*"):
        path.unlink()
    (tmp_path / "step-00000008").rmdir()
    run(tmp_path, save_every=4, hooks=hooks(tmp_path))
    events = shown(tmp_path)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert [one.step for one in events.Scalars("loss")] == [2, 4, 6, 8, 10, 12]
    assert [one.step for one in events.Images("sheet")] == [6, 12]


def test_without_tensorboard_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tintype.training.tensorboard, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"TensorBoard is not installed; expected pip install --editable '\.\[train\]'"
    ):
        TensorBoard(tmp_path, last=1)
