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

AXES = ("step", "samples")  # of a log's line: where it stands, and nothing that was measured


class TensorBoard:
    """Writes events into a folder; as a hook it only begins and ends.

    What a killed run wrote after its last checkpoint is marked as void when the run goes on: each step is shown once.
    Raises `ValueError` when TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, last: int) -> None:
        if find_spec("tensorboard") is None:
            raise ValueError(
                "tensorboard true: TensorBoard is not installed; expected pip install --editable '.[train]' in the "
                "clone"
            )
        self.folder, self.last = folder, last
        self._writer: SummaryWriter | None = None

    def __call__(self, report: Report) -> None:
        writer = self._opened(report.state.step)
        if report.state.step == self.last:
            writer.close()

    def show(self, picture: Image.Image, step: int) -> None:
        writer = self._opened(step)
        writer.add_image("sheet", np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        writer.flush()  # what is not would be lost with the process, and not be written again

    def trained(self, line: Mapping[str, float | None], step: int) -> None:
        """The line of `log.jsonl`: "<part> <metric>" as "<part>/<metric>"."""
        self._scalars({name.replace(" ", "/"): value for name, value in line.items() if name not in AXES}, step)

    def tell(self, found: Mapping[str, float | None], step: int) -> None:
        """What was measured of unseen samples."""
        self._scalars({f"validation/{name}": value for name, value in found.items()}, step)

    def _scalars(self, values: Mapping[str, float | None], step: int) -> None:
        writer = self._opened(step)
        for name, value in values.items():
            if value is not None:
                writer.add_scalar(name, value, step)
        writer.flush()

    def _opened(self, step: int) -> "SummaryWriter":
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=step)
        return self._writer
