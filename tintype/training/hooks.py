"""Things done beside the loop: a progress line, a log file, sample sheets."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tintype.common.files import whole_file
from tintype.training.loop import Report
from tintype.training.state import TrainingState

Show = Callable[[Mapping[str, float | None], int], None]  # of a line in a log, and its step


class Progress:
    """A line with steps, losses, speed and time left, on stderr; on a terminal it stays one line."""

    def __init__(self, steps: int, *, every: int = 20) -> None:
        self.steps, self.every = steps, every
        self._bar: tqdm[int] | None = None

    def __call__(self, report: Report) -> None:
        step = report.state.step
        if self._bar is None:  # the first step of this process: the time left counts from here
            self._bar = tqdm(range(self.steps), initial=step - 1, unit="step", dynamic_ncols=True, mininterval=1.0)
        self._bar.update(step - self._bar.n)
        if step % self.every == 0 or step == self.steps:
            self._bar.set_postfix(
                {name: f"{float(value):.4g}" for name, value in report.metrics.items()}, refresh=False
            )
        if step == self.steps:
            self._bar.close()


class Log:
    """Appends a JSON line every so many steps, and at the last: means of the metrics since the line before, of those
    numbers that are finite (null when none is), and how many updates were skipped where any was. `show` gets the line
    as well.

    Lines of steps that a killed run did after its last checkpoint, and that are done again, give way.
    """

    def __init__(self, path: Path, *, last: int, every: int = 50, show: Show | None = None) -> None:
        self.path, self.last, self.every, self.show = path, last, every, show
        self._sums: dict[str, Tensor] = {}  # on their device until a line is written, so that no step waits for it
        self._counts: dict[str, Tensor] = {}
        self._skipped: Tensor | float = 0.0
        self._samples_at, self._time_at = 0, time.perf_counter()
        self._begun = False

    def __call__(self, report: Report) -> None:
        if not self._begun:
            self._begin(report)
        for name, value in report.metrics.items():
            finite = value.isfinite()
            self._sums[name] = value.where(finite, 0.0) + self._sums.get(name, 0.0)
            self._counts[name] = finite + self._counts.get(name, 0.0)
        self._skipped = report.skipped + self._skipped
        if report.state.step % self.every and report.state.step != self.last:
            return
        now = time.perf_counter()
        speed = (report.samples - self._samples_at) / (now - self._time_at)
        line: dict[str, float | None] = {
            "step": report.state.step,
            "samples": report.samples,
            "rate": report.rate,
            "samples_per_s": round(speed, 2),
        }
        means = {name: float(total / self._counts[name]) for name, total in self._sums.items()}
        line |= {name: round(mean, 6) if math.isfinite(mean) else None for name, mean in means.items()}
        if skipped := int(self._skipped):
            line["skipped"] = skipped
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.show is not None:
            self.show(line, report.state.step)
        self._sums, self._counts, self._skipped, self._samples_at, self._time_at = {}, {}, 0.0, report.samples, now

    def _begin(self, report: Report) -> None:
        """Speed is that after the first step of this process, which takes longer than others; of one step alone it is
        that since the run was made ready."""
        step = report.state.step
        forget(self.path, step)
        self.path.touch()  # the folder is known as a run's from its first step on
        self._begun = True
        if step % self.every and step != self.last:
            self._samples_at, self._time_at = report.samples, time.perf_counter()
        else:
            self._samples_at = report.samples - report.samples // step


def forget(path: Path, step: int) -> None:
    """Drop a log's lines from this step on, and a last line that was cut short. Raises `ValueError` for a log that no
    run wrote, which is left as it is."""
    if not path.exists():
        return
    try:
        lines = [one for one in path.read_text().splitlines(keepends=True) if one.endswith("\n")]
        kept = [one for one in lines if json.loads(one)["step"] < step]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not the log of a run ({error}); move it away, and a new one begins") from error
    with whole_file(path) as temporary:
        temporary.write_text("".join(kept))


class Sheets:
    """Saves the picture that `draw` makes, as `sheet-00001234.png`, every so many steps and at the end; `show` gets it
    as well, with the step."""

    def __init__(
        self,
        out: Path,
        draw: Callable[[TrainingState], Image.Image],
        *,
        every: int,
        last: int,
        show: Callable[[Image.Image, int], None] | None = None,
    ) -> None:
        self.out, self.draw, self.every, self.last, self.show = out, draw, every, last, show

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.last

    def __call__(self, report: Report) -> None:
        step = report.state.step
        if self.due(step):
            picture = self.draw(report.state)
            with whole_file(self.out / f"sheet-{step:08d}.png") as path:
                picture.save(path, format="PNG")
            if self.show is not None:
                self.show(picture, step)


class Measured:
    """Appends what `measure` finds as a JSON line, every so many steps and at the end, and gives it to `show`. Lines of
    steps that are done again give way, as those of `Log` do."""

    def __init__(
        self, path: Path, measure: Callable[[TrainingState], dict[str, float]], *, every: int, last: int
    ) -> None:
        self.path, self.measure, self.every, self.last = path, measure, every, last
        self.show: Show | None = None
        self._begun = False

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.last

    def __call__(self, report: Report) -> None:
        step = report.state.step
        if not self._begun:
            forget(self.path, step)
            self._begun = True
        if not self.due(step):
            return
        found = self.measure(report.state)
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step} | found) + "\n")
        if self.show is not None:
            self.show(found, step)
