"""The steps of a job, kept so that one can go back to them: what time travel shows, and where branches begin."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tintype.serving.jobs import Job, Store, Terms, asked
from tintype.serving.models import Models
from tintype.tasks.request import NAMED, Request

if TYPE_CHECKING:
    from tintype.attribution import Heat
    from tintype.diffusion.step import Step
    from tintype.families.base import LatentDiffusion

LARGEST = 256 * 2**20  # bytes of one job's steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """The steps of one job in a file that is there whole or not at all."""

    path: Path

    def save(self, steps: Sequence["Step"]) -> None:
        import torch

        from tintype.common.files import save_tensors

        if not steps:
            return  # of strength 0
        tensors = {
            "sigma": torch.tensor([step.sigma for step in steps], dtype=torch.float64),
            "place": torch.tensor([(step.index, step.count) for step in steps]),
        }
        for step in steps:
            tensors |= {f"{step.index}.x": step.x, f"{step.index}.denoised": step.denoised}
        save_tensors(self.path, tensors)

    def step(self, number: int) -> "Step":
        """The one of this index. Raises `ValueError` where there is none."""
        from tintype.common.files import load_tensors
        from tintype.diffusion.step import Step

        places = self.places()
        if number not in places:
            raise ValueError(f"step {number}: expected one of those that were kept, {min(places)} to {max(places)}")
        found = load_tensors(self.path, names=(f"{number}.x", f"{number}.denoised"))
        count, sigma = places[number]
        return Step(number, count, sigma, found[f"{number}.x"], found[f"{number}.denoised"])

    def places(self) -> dict[int, tuple[int, float]]:
        """By index, of how many steps each is and the noise level after it. Raises `ValueError` where none were
        kept."""
        from tintype.common.files import load_tensors

        if not self.path.is_file():
            raise ValueError("its steps were not kept; ask for the picture again with keep_steps")
        found = load_tensors(self.path, names=("place", "sigma"))
        sigmas: list[float] = found["sigma"].tolist()
        places: list[tuple[int, int]] = found["place"].tolist()
        return {index: (count, sigma) for (index, count), sigma in zip(places, sigmas, strict=True)}


def check_room(model: "LatentDiffusion", request: Request, terms: Terms) -> None:
    """Raises `ValueError` for a resolved request whose steps are to be kept and are too many."""
    config = model.config
    cells = (request.height or config.size) * (request.width or config.size) // config.autoencoder.factor**2
    each = 2 * 4 * config.autoencoder.latent_channels * cells  # x and its estimate, in float32
    size = each * (request.steps or config.steps) * request.batch_size
    if terms.keep and size > LARGEST:
        raise ValueError(
            f"keep_steps: they take {size >> 20} MiB, of which {LARGEST >> 20} are kept; ask for fewer steps"
        )


class Past:
    """What is done with the kept steps of jobs: `pictures` is the folder that they are in, beside the pictures."""

    def __init__(self, store: Store, models: Models, pictures: Path) -> None:
        self._store = store
        self._models = models
        self._pictures = pictures
        self._turn = threading.Lock()  # one look at a time: each is as much work as a step

    def trace(self, id: str) -> Trace:
        """The steps of a job, where they are kept."""
        return Trace(path=self._pictures / f"{id}-steps.safetensors")

    def check(self, request: Request, terms: Terms) -> None:
        """Raises `ValueError` for steps that will not be kept, or a branch that none of the owner's begins."""
        if (terms.keep or terms.branch) and request.hires_scale is not None:
            raise ValueError("hires_scale: steps of pictures of two sizes are not kept; leave out one of them")
        if terms.branch is None:
            return
        id = terms.branch.partition(":")[0]
        job = self._store.get(id)
        if job is None or job.owner != terms.owner:
            raise ValueError(f"branch {terms.branch!r}: there is no job {id!r} of yours")
        if job.model != terms.model:
            raise ValueError(f"branch {terms.branch!r}: model {job.model} drew it; expected the same model")
        step = self.step(terms.branch)
        if step.index + 1 == step.count:
            raise ValueError(f"branch {terms.branch!r}: after the last step nothing is left; expected an earlier one")

    def step(self, branch: str) -> "Step":
        """The step that a branch begins with. Raises `ValueError` where there is none."""
        id, _, step = branch.partition(":")
        return self.trace(id).step(int(step) if step.isdecimal() and len(step) < 6 else -1)

    def estimate(self, job: Job, step: int, place: int) -> bytes:
        """A PNG of what the network thought after a kept step (from 0) that the picture at this place would be. Raises
        `ValueError` where there is none, or the job's model is not open now."""
        from tintype.data.pictures import encode
        from tintype.generation import decode
        from tintype.tasks.tiling import endless

        model = self._open_for(job)
        with self._turn:
            rows = self.trace(job.id).step(step).denoised[place : place + 1]
            if not len(rows):
                raise ValueError(f"picture {place}: job {job.id} has no such")
            return encode(decode(endless(model, asked(job)), rows)[0], "png")

    def heat(self, job: Job, step: int, place: int) -> "Heat":
        """Which part of the picture at this place listened to which word at a kept step. Raises `ValueError` as
        `estimate` does, and for tasks that begin with a picture, which is not kept."""
        from tintype.attribution import heat
        from tintype.generation import drawing

        if any(name in job.request for name in NAMED):
            raise ValueError(f"job {job.id} began with a picture, which is not kept; expected one of text or boxes")
        model, request = self._open_for(job), self._models.located(asked(job))
        if request.window is not None:
            raise ValueError(f"job {job.id} was drawn window by window; expected one that is drawn as a whole")
        with self._turn:
            found = self.trace(job.id).step(step)
            if not 0 <= place < len(found.x):
                raise ValueError(f"picture {place}: job {job.id} has no such")
            return heat(drawing(model, request), request, found.x[place : place + 1], found.sigma)

    def _open_for(self, job: Job) -> "LatentDiffusion":
        current = self._models.current
        if current is None or current[0] != job.model:
            raise ValueError(f"model {job.model} is not open now; ask for a picture of it first")
        return current[1]
