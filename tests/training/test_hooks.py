import io
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_training import CONFIG, run

from tintype.training.hooks import Log, Measured, Progress, Sheets
from tintype.training.loop import Looking, Report
from tintype.training.state import TrainingState


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_holds_means_since_its_last_line(tmp_path: Path) -> None:
    seen: list[float] = []

    def hook(report: Report) -> None:
        seen.append(float(report.metrics["loss"]))

    run(tmp_path, hooks=[Log(tmp_path / "log.jsonl", every=5, last=12), hook])
    first, second, last = lines(tmp_path / "log.jsonl")
    assert first.keys() == {"step", "samples", "rate", "samples_per_s", "loss", "half"}
    assert (first["step"], first["samples"], second["step"], second["samples"]) == (5, 20, 10, 40)
    assert first["loss"] == pytest.approx(sum(seen[:5]) / 5, abs=1e-5)
    assert second["loss"] == pytest.approx(sum(seen[5:10]) / 5, abs=1e-5)
    assert (last["step"], last["loss"]) == (12, pytest.approx(sum(seen[10:]) / 2, abs=1e-5))
    assert second["half"] == pytest.approx(second["loss"] / 2, abs=1e-5)
    assert first["rate"] == CONFIG.rate(4)
    assert all(line["samples_per_s"] > 0 for line in (first, second, last))


@pytest.mark.parametrize(("steps", "every", "expected"), [(3, 5, 4.0), (1, 5, 1.0), (4, 2, 4.0)])
def test_the_speed_is_told_from_the_first_line_on(
    steps: int, every: int, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 4 samples take a second each, the first one 3 more; of one step alone these count."""
    times = iter([0.0, *(4.0 + step for step in range(20))])
    moments = [next(times)]
    monkeypatch.setattr("tintype.training.hooks.time.perf_counter", lambda: moments[-1])
    log = Log(tmp_path / "log.jsonl", every=every, last=steps)
    run(tmp_path, steps=steps, hooks=[lambda report: moments.append(next(times)), log])
    assert {line["samples_per_s"] for line in lines(tmp_path / "log.jsonl")} == {expected}


def test_what_is_not_finite_is_no_part_of_a_mean(tmp_path: Path) -> None:
    """A line stays JSON, and says how many updates were skipped."""
    losses: list[float] = []

    def poison(report: Report) -> None:
        if report.state.step in (2, 5, 6):
            report.metrics["loss"] = torch.tensor(math.nan if report.state.step == 2 else math.inf)
            report.skipped.fill_(1)
        losses.append(float(report.metrics["loss"]))

    run(tmp_path, steps=7, hooks=[poison, Log(tmp_path / "log.jsonl", every=2, last=7)])
    first, second, third, last = lines(tmp_path / "log.jsonl")
    assert first["loss"] == pytest.approx(losses[0], abs=1e-5)
    assert (first["skipped"], third["skipped"], third["loss"]) == (1, 2, None)
    assert second.keys() == last.keys() == first.keys() - {"skipped"}


def test_the_log_reads_metrics_only_for_a_line(tmp_path: Path) -> None:
    """Reading one makes the host wait for the device."""

    class Watched(torch.Tensor):
        read = 0

        def __float__(self) -> float:
            Watched.read += 1
            return super().__float__()

    def watched(report: Report) -> None:
        report.metrics["loss"] = report.metrics["loss"].as_subclass(Watched)

    run(tmp_path, steps=10, hooks=[watched, Log(tmp_path / "log.jsonl", every=5, last=10)])
    assert Watched.read == 2


def test_the_log_goes_on_after_a_stop(tmp_path: Path) -> None:
    run(tmp_path, steps=6, hooks=[Log(tmp_path / "log.jsonl", every=3, last=12)])
    run(tmp_path, steps=12, hooks=[Log(tmp_path / "log.jsonl", every=3, last=12)])
    assert [line["step"] for line in lines(tmp_path / "log.jsonl")] == [3, 6, 9, 12]


def test_steps_done_again_are_logged_once(tmp_path: Path) -> None:
    """Killed after step 6 in the middle of a line, with a checkpoint of step 4."""
    path = tmp_path / "log.jsonl"
    run(tmp_path, steps=4, hooks=[Log(path, every=1, last=12)])
    before = lines(path)
    with path.open("a") as file:
        file.write('{"step": 5, "loss": 9.0}\n{"step": 6, "loss": 9.0}\n{"st')
    run(tmp_path, steps=7, hooks=[Log(path, every=1, last=12)])
    assert lines(path)[:4] == before
    assert [line["step"] for line in lines(path)] == [1, 2, 3, 4, 5, 6, 7]
    assert all(line["loss"] != 9.0 for line in lines(path))


def test_a_folder_begun_anew_has_a_new_log(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 5, "loss": 9.0}\n')
    run(tmp_path, steps=2, hooks=[Log(tmp_path / "log.jsonl", every=1, last=2)])
    assert [line["step"] for line in lines(tmp_path / "log.jsonl")] == [1, 2]


@pytest.mark.parametrize("content", [b"my notes\n", b"[]\n", b'{"loss": 1}\n', b"\xff\xfe\n"])
def test_a_log_that_no_run_wrote_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"log\.jsonl is not the log of a run .*move it away"):
        run(tmp_path, hooks=[Log(path, every=5, last=12)])
    assert path.read_bytes() == content


def test_sheets_are_pictures_by_step(tmp_path: Path) -> None:
    drawn: list[int] = []

    def draw(state: TrainingState) -> Image.Image:
        drawn.append(state.step)
        return Image.new("RGB", (state.step, 2), "red")

    run(tmp_path, steps=7, hooks=[Sheets(tmp_path, draw, every=3, last=7)])
    assert drawn == [3, 6, 7]
    found = sorted(tmp_path.glob("sheet-*"))
    assert [path.name for path in found] == ["sheet-00000003.png", "sheet-00000006.png", "sheet-00000007.png"]
    with Image.open(found[1]) as picture:
        assert picture.format == "PNG"
        assert picture.size == (6, 2)
    assert not list(tmp_path.glob(".sheet*"))


def test_a_sheet_that_fails_leaves_no_file(tmp_path: Path) -> None:
    class Broken(Image.Image):
        def save(self, fp: object, format: str | None = None, **params: object) -> None:
            Path(str(fp)).write_bytes(b"half a picture")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, steps=2, hooks=[Sheets(tmp_path, lambda _: Broken(), every=1, last=2)])
    assert not list(tmp_path.glob("*sheet*"))


@pytest.mark.parametrize("resumed", [False, True])
def test_progress_needs_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, resumed: bool) -> None:
    if resumed:
        run(tmp_path, steps=5)
    stream = io.StringIO()
    assert not stream.isatty()
    monkeypatch.setattr(sys, "stderr", stream)
    run(tmp_path, hooks=[Progress(12, every=4)])
    text = stream.getvalue()
    assert "12/12" in text
    assert "loss=" in text
    assert text.endswith("\n")


def test_progress_says_numbers_and_not_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    run(tmp_path, steps=2, hooks=[Progress(2, every=1)])
    assert "tensor" not in stream.getvalue()
    assert torch.get_num_threads() >= 1


def test_what_is_measured_stands_in_one_line_a_step_also_when_a_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "validation.jsonl"

    def measured(steps: int) -> None:
        run(
            tmp_path, steps=steps, hooks=[Measured(path, lambda state: {"loss": 0.5 * state.step}, every=3, last=steps)]
        )

    measured(7)
    assert isinstance(Measured(path, lambda state: {}, every=3, last=7), Looking)  # averages are put together before
    assert lines(path) == [{"step": step, "loss": 0.5 * step} for step in (3, 6, 7)]
    with path.open("a") as file:  # of a run that was killed after its last checkpoint, and while it wrote
        file.write('{"step": 8, "loss": 9}\n{"st')
    measured(12)
    assert [line["step"] for line in lines(path)] == [3, 6, 7, 9, 12]
