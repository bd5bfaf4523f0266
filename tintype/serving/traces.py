"""The steps of a job, kept so that one can go back to them: what time travel shows, and where branches begin."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tintype.diffusion.step import Step

LARGEST = 256 * 2**20  # bytes of one job's steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """The steps of one job in a file that is there whole or not at all."""

    path: Path

    def save(self, steps: Sequence["Step"]) -> None:
        """Raises `ValueError` for more than may be kept."""
        import torch

        from tintype.common.files import save_tensors

        if not steps:
            return  # of strength 0
        size = sum(step.x.nbytes + step.denoised.nbytes for step in steps)
        if size > LARGEST:
            raise ValueError(
                f"its steps take {size} bytes; {LARGEST} are kept at most: ask for fewer, or fewer pictures"
            )
        tensors = {
            "x": torch.stack([step.x for step in steps]),
            "denoised": torch.stack([step.denoised for step in steps]),
            "sigma": torch.tensor([step.sigma for step in steps], dtype=torch.float64),
            "place": torch.tensor([(step.index, step.count) for step in steps]),
        }
        save_tensors(self.path, tensors)

    def step(self, number: int) -> "Step":
        """The one of this index. Raises `ValueError` where there is none."""
        steps = {step.index: step for step in self.load()}
        if number not in steps:
            raise ValueError(f"step {number}: expected one of those that were kept, {min(steps)} to {max(steps)}")
        return steps[number]

    def load(self) -> "list[Step]":
        """All of them. Raises `ValueError` where none were kept."""
        from tintype.common.files import load_tensors
        from tintype.diffusion.step import Step

        if not self.path.is_file():
            raise ValueError("its steps were not kept; ask for the picture again with keep_steps")
        found = load_tensors(self.path)
        sigmas: list[float] = found["sigma"].tolist()
        places: list[tuple[int, int]] = found["place"].tolist()
        each = zip(places, sigmas, found["x"], found["denoised"], strict=True)
        return [Step(index, count, sigma, x, denoised) for (index, count), sigma, x, denoised in each]
