"""Which models can be asked for, and the one that is open."""

import ctypes
import gc
import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tintype.tasks.loras import located
from tintype.tasks.request import Request
from tintype.weights import embedded

if TYPE_CHECKING:
    from tintype.families.base import FamilyConfig, LatentDiffusion

log = logging.getLogger(__name__)

LORAS = "loras"  # the folder of such files in the models folder
DEEPEST = 3  # folders below the models folder that are looked into
DESCRIBED = ("model.json", "model_index.json")  # what is in the folder of a model: ours, diffusers'
PICKLED = (".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """`name`: of an embedded model, or the path below the models folder. `pickled`: not served."""

    name: str
    path: Path | None
    pickled: bool = False


class Unknown(ValueError):
    """No model of that name, or one that is not served."""


class Models:
    """The embedded models and those in a folder. One at a time is open, since memory holds one; the thread that draws
    opens them. Names are looked up among what is there, never joined to a path."""

    def __init__(self, folder: Path | None, *, device: str | None = None) -> None:
        self.folder = folder
        self.device = device
        self.configs: dict[str, FamilyConfig] = {}  # of all that were open once
        self._open: tuple[str, LatentDiffusion] | None = None
        self._turn = threading.Lock()

    def listed(self) -> list[Listed]:
        found = [Listed(name=name, path=None) for name in embedded()]
        if self.folder is None:
            return found
        taken = {one.name for one in found}  # no folder of that name stands for an embedded model
        below = [one for one in _below(self.folder, self.folder.resolve()) if not one.name.startswith(f"{LORAS}/")]
        return found + sorted((one for one in below if one.name not in taken), key=lambda one: one.name)

    def loras(self) -> dict[str, Path]:
        """The LoRA files in the models folder by their names: paths below its `loras`, without the suffix."""
        if self.folder is None or not (self.folder / LORAS).is_dir():
            return {}
        below = _below(self.folder / LORAS, self.folder.resolve())
        files = {one.name: one.path for one in below if one.path is not None and one.path.is_file() and not one.pickled}
        return {name.removesuffix(".safetensors"): path for name, path in sorted(files.items())}

    def located(self, request: Request) -> Request:
        """A request that names LoRAs, with their files. Raises `ValueError` where they are not here."""
        return replace(request, lora=located(request.lora, self.loras())) if request.lora else request

    def shown(self, sentence: str) -> str:
        """What may be told to others: without the folders of this machine."""
        return sentence if self.folder is None else sentence.replace(f"{self.folder}/", "")

    def check(self, name: str) -> Listed:
        """Raises `Unknown`, with what there is instead."""
        if name in embedded():
            return Listed(name=name, path=None)
        there = {one.name: one for one in self.listed()}
        if name not in there:
            known = ", ".join(one.name for one in there.values() if not one.pickled)
            raise Unknown(f"model {name!r}: no such model here; expected one of {known}")
        if there[name].pickled or _is_disguised(there[name].path):
            raise Unknown(
                f"model {name!r}: only .safetensors files are served, and it is none; make one of it: tintype convert "
                f"{name} {Path(name).with_suffix('.safetensors').name}"
            )
        return there[name]

    @property
    def current(self) -> "tuple[str, LatentDiffusion] | None":
        """The open model and its name."""
        return self._open

    def open(self, name: str) -> "LatentDiffusion":
        """The model of that name; the one that was open is let go before. Raises `ValueError` where it cannot be."""
        from tintype.checkpoints import load

        with self._turn:
            if self._open is not None and self._open[0] == name:
                return self._open[1]
            found = self.check(name)
            self._open = None
            give_back()
            model = load(found.name if found.path is None else found.path, device=self.device)
            self._open = (name, model)
            self.configs[name] = model.config
        log.info("model %s is open", name)
        return model


def _below(folder: Path, root: Path, before: str = "", depth: int = 0) -> list[Listed]:
    """`root`: the models folder, resolved; links that lead out of it are not followed. `before`: the folder's name."""
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        log.warning("%s cannot be read: %s", folder, error.strerror)
        return []
    found: list[Listed] = []
    for path in paths:
        name = before + path.name
        if path.name.startswith(".") or not _can_be_said(name) or not path.resolve().is_relative_to(root):
            continue
        if path.is_dir():
            if any((path / one).is_file() for one in DESCRIBED):
                found.append(Listed(name=name, path=path, pickled=_holds_pickles(path)))
            elif depth < DEEPEST:
                found += _below(path, root, f"{name}/", depth + 1)
        elif path.suffix.lower() == ".safetensors":
            found.append(Listed(name=name, path=path))
        elif path.suffix.lower() in PICKLED:
            found.append(Listed(name=name, path=path, pickled=True))
    return found


def _can_be_said(name: str) -> bool:
    """File systems take names that are no text; JSON does not."""
    return name.isprintable()


def _holds_pickles(folder: Path) -> bool:
    """A folder in diffusers' layout with a part of which there are pickled weights and no others (those of a variant,
    `model.fp16.safetensors`, are not what is opened)."""
    parts = {path.parent for path in folder.glob("*/*") if path.suffix.lower() in PICKLED}
    return any(all("." in one.stem for one in part.glob("*.safetensors")) for part in parts)


def _is_disguised(path: Path | None) -> bool:
    """Whether a file that is named `.safetensors` holds something else, a pickle say: a header in JSON follows its
    length, 8 bytes."""
    if path is None:
        return False
    for file in [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("*/*.safetensors")]:
        with file.open("rb") as content:
            if content.read(9)[8:] != b"{":
                return True
    return False


def give_back() -> None:
    """Memory of what is no longer used, to the system: glibc keeps it otherwise, and torch the device's."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
