"""Updates from losses or gradients that are not finite: skipped, counted, and the end of a run when they are many.

Whether a step is skipped is decided where the gradients are, so no step waits for the host; the host reads what was
decided now and then. A skipped step leaves weights, moments and buffers as they were.
"""

import logging
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

SHARE = 0.01  # of a run's steps that may be skipped in all, beside those in a row

log = logging.getLogger(__name__)


class Skips:
    """How many updates of a part were skipped: in a row up to now, and in all. A checkpoint keeps both."""

    def __init__(self, in_a_row: int = 0, total: int = 0) -> None:
        self.in_a_row, self.total = in_a_row, total

    def count(self, *, skipped: bool) -> None:
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        self.total += skipped

    def state(self) -> list[int]:
        return [self.in_a_row, self.total]


class Guard:
    """`allowed` updates of a part may be skipped in a row, and as many and one in a hundred steps in all."""

    def __init__(self, skips: dict[str, Skips], *, allowed: int, tell: bool) -> None:
        self.skips = skips
        self.allowed = allowed
        self.tell = tell
        self._unread: list[tuple[int, str, Tensor]] = []

    def judge(self, step: int, part: str, loss: Tensor, norm: Tensor) -> Tensor:
        """1 when the update is to be skipped, else 0: float32, on the device."""
        seen = torch.stack((loss.float(), norm.float().to(loss.device)))
        self._unread.append((step, part, seen))
        return 1 - seen.isfinite().all().float()

    def look(self) -> None:
        """Count what was skipped since the last look; waits for the device once. Raises `FloatingPointError` when it is
        more than may be."""
        if not self._unread:
            return
        values = torch.stack([seen for _, _, seen in self._unread]).tolist()
        for (step, part, _), (loss, norm) in zip(self._unread, values, strict=True):
            skipped = not (math.isfinite(loss) and math.isfinite(norm))
            count = self.skips[part]
            count.count(skipped=skipped)
            if not skipped:
                continue
            told = f"step {step}: loss of {part} is {loss:g}, its gradient's norm {norm:g}"
            if count.in_a_row > self.allowed or count.total > self.allowed + SHARE * step:
                raise FloatingPointError(
                    f"{told}; {count.in_a_row} updates in a row were not finite, {count.total} in all (train.skips="
                    f"{self.allowed} in a row may be); lower train.learning_rate and start anew in an empty folder"
                )
            if self.tell:
                log.warning("%s; the update is skipped, %d so far", told, count.total)
        self._unread.clear()


class Buffers:
    """What forward passes change in modules beside their parameters (running means, codebooks), to be taken back."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._kept = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]

    @torch.no_grad()
    def take_back(self, skip: Tensor) -> None:
        """Where `skip` is 1."""
        for buffer, before in self._kept:
            buffer.copy_(torch.where(skip.bool(), before, buffer))
