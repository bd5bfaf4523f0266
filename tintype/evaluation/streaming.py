"""Running over pictures once, batch by batch, so that a run that was killed goes on and gives the same bits."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor

from tintype.common.config import Json
from tintype.common.files import load_metadata, load_tensors, save_tensors
from tintype.data.samples import Sample
from tintype.evaluation.pictures import Pictures


class Sums(Protocol):
    """What is kept of the pictures seen: tensors whose size does not depend on how many those were."""

    def update(self, first: int, samples: Sequence[Sample]) -> None: ...
    def tensors(self) -> dict[str, Tensor]: ...
    def restore(self, tensors: Mapping[str, Tensor]) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """How to go through pictures: `batch` at a time; the sums saved in the folder `keep` every `every` seconds; `key`
    tells what is measured, and must be the same when it goes on. `progress` is told how many pictures are done."""

    batch: int = 32
    keep: Path | None = None
    every: float = 30.0
    key: Json = None
    progress: Callable[[str, int, int], None] | None = None

    def through(self, name: str, pictures: Pictures, sums: Sums) -> None:
        """Sum up all of them, going on where an earlier call stopped."""
        path = None if self.keep is None else self.keep / f"{name}.state.safetensors"
        key: Json = {"measured": self.key, "batch": self.batch, "pictures": pictures.told}
        position = 0 if path is None or not path.exists() else _resumed(path, key, sums)
        saved = time.monotonic()
        while position < len(pictures):
            samples = pictures.batch(position, self.batch)
            sums.update(position, samples)
            position += len(samples)
            done = position == len(pictures)
            if path is not None and (done or time.monotonic() - saved >= self.every):
                save_tensors(path, sums.tensors(), {"key": key, "position": position})
                saved = time.monotonic()
            if self.progress is not None:
                self.progress(name, position, len(pictures))


def _resumed(path: Path, key: Json, sums: Sums) -> int:
    told = load_metadata(path)
    entries = cast("dict[str, Json]", told) if isinstance(told, dict) else {}
    position = entries.get("position")
    if not isinstance(position, int):
        raise ValueError(f"{path} is not the state of a measurement; remove it, and it begins anew")
    if entries.get("key") != key:
        raise ValueError(
            f"{path} belongs to a measurement of {entries.get('key')}, which was stopped; this one is of {key}: finish "
            "that one, remove the file, or name another folder with --out"
        )
    sums.restore(load_tensors(path))
    return position
