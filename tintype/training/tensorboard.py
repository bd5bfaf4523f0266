"""A run for TensorBoard to show: scalars and sheets, as `log.jsonl` and the pictures in the folder have them."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tintype.training.loop import Report

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoard:
    """Writes events into a folder every so many steps and at the last.

    What a killed run wrote after its last checkpoint is marked as void when the run goes on: each step is shown once.
    Raises `ValueError` when TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, last: int, every: int = 50) -> None:
        if find_spec("tensorboard") is None:
            raise ValueError("tensorboard true: TensorBoard is not installed; expected pip install 'tintype[train]'")
        self.folder, self.last, self.every = folder, last, every
        self._writer: SummaryWriter | None = None

    def __call__(self, report: Report) -> None:
        step = report.state.step
        writer = self._opened(step)
        if step % self.every == 0 or step == self.last:
            writer.add_scalar("rate", report.rate, step)
            for name, value in report.metrics.items():
                writer.add_scalar(name.replace(" ", "/"), float(value), step)
            writer.flush()  # what is not would be lost with the process, and not be written again
        if step == self.last:
            writer.close()

    def show(self, picture: Image.Image, step: int) -> None:
        writer = self._opened(step)
        writer.add_image("sheet", np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        writer.flush()

    def tell(self, found: Mapping[str, float], step: int) -> None:
        """What was measured of unseen samples."""
        writer = self._opened(step)
        for name, value in found.items():
            writer.add_scalar(f"validation/{name}", value, step)
        writer.flush()

    def _opened(self, step: int) -> "SummaryWriter":
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=step)
        return self._writer
