"""All that a run must remember, and the folder `step-00001234` it is kept in.

A checkpoint holds `<part>.safetensors` and `<part>.ema.safetensors` (weights and their average), `train.pt` (optimizer
state and step) and `recipe.json`. It is written under another name and renamed, so a folder that is there is whole.
Randomness and data position are functions of (seed, step) and need no space: they come from the recipe, which
therefore must stay what it was (`check_recipe`).
"""

import json
import pickle
import struct
from pathlib import Path

import torch
from torch import nn

from tintype.common.config import Json
from tintype.common.files import load_tensors, remove_folder, save_tensors, whole_folder
from tintype.training.ema import EMA

MAY_CHANGE = {  # when a run goes on: with other values of these no step so far would have been another
    "train.steps",  # so that a run can be prolonged: from here on the learning rate decays towards the new end
    "train.save_every",
    "train.keep",
    "train.device",
    "sheet_every",
    "steps",  # of sampling, as is the next
    "cfg_scale",
    "autoencoder",  # this and the rest: files, which may lie elsewhere by now
    "features",
    "font",
    "start",
}
# torch.load on damaged files: of archives, pickles, text and numbers in them
DAMAGE = (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, pickle.UnpicklingError, struct.error)


class TrainingState:
    """Modules, their averages and optimizers, and the number of steps done."""

    def __init__(self, parts: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer], decay: float) -> None:
        self.parts = parts
        self.optimizers = optimizers
        self.emas = {name: EMA(module, decay) for name, module in parts.items()}
        self.step = 0

    def save(self, out: Path, recipe: Json, *, keep: int) -> Path:
        """Write a checkpoint and remove all but the newest `keep`."""
        path = out / f"step-{self.step:08d}"
        if not path.exists():
            with whole_folder(path) as folder:
                for name, module in self.parts.items():
                    save_tensors(folder / f"{name}.safetensors", module.state_dict())
                    save_tensors(folder / f"{name}.ema.safetensors", self.emas[name].state_dict())
                optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
                torch.save({"step": self.step, "optimizers": optimizers}, folder / "train.pt")
                (folder / "recipe.json").write_text(json.dumps(recipe, indent=2))
        for old in checkpoints(out)[:-keep]:
            remove_folder(old)
        return path

    def resume(self, out: Path, recipe: Json = None) -> Path | None:
        """Load the newest checkpoint of `out`, if there is one, and return its folder.

        Raises `ValueError` when it is damaged, of another network or of another recipe. What a run left that was killed
        while it wrote or removed a checkpoint is cleared away.
        """
        for leftover in out.glob(".step-*.tmp"):
            remove_folder(leftover)
        found = checkpoints(out)
        if not found:
            return None
        path = found[-1]
        check_recipe(out, recipe)
        try:
            saved = torch.load(path / "train.pt", map_location="cpu", weights_only=True)
        except DAMAGE as error:
            raise _damaged(path / "train.pt") from error
        if saved["optimizers"].keys() != self.parts.keys():
            raise _foreign(path, f"it holds {', '.join(saved['optimizers'])}; expected {', '.join(self.parts)}")
        for name, module in self.parts.items():
            try:
                module.load_state_dict(load_tensors(path / f"{name}.safetensors"))
                self.emas[name].load_state_dict(load_tensors(path / f"{name}.ema.safetensors"))
                self.optimizers[name].load_state_dict(saved["optimizers"][name])
            except RuntimeError as error:
                raise _foreign(path, str(error).partition("\n\t")[2].partition("\n")[0]) from error
        self.step = int(saved["step"])
        return path


def check_recipe(out: Path, recipe: Json) -> None:
    """Raise `ValueError` when the newest checkpoint of `out` was trained by another recipe, but for `MAY_CHANGE`.

    A field that one of them lacks counts as null. Without a checkpoint, or when either recipe is None, all is well.
    """
    found = checkpoints(out)
    if not found or recipe is None:
        return
    path = found[-1] / "recipe.json"
    try:
        saved: Json = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if saved is None:
        return
    then, now = _leaves(saved), _leaves(recipe)
    differing = [key for key in now | then if key not in MAY_CHANGE and then.get(key) != now.get(key)]
    if differing:
        named = [f"{key} was {json.dumps(then.get(key))}, is {json.dumps(now.get(key))}" for key in differing[:3]]
        raise ValueError(
            f"{found[-1]} was trained by another recipe: {'; '.join(named + ['…'] * (len(differing) > 3))}; go on with "
            "the recipe in its recipe.json, or start anew in an empty folder"
        )


def _leaves(value: Json, path: str = "") -> dict[str, Json]:
    """{"train.seed": 0, …}: single values and lists by their path."""
    if not isinstance(value, dict):
        return {path: value}
    inner = [_leaves(item, f"{path}.{key}" if path else key) for key, item in value.items()]
    return {key: leaf for leaves in inner for key, leaf in leaves.items()}


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} is damaged; remove the folder {path.parent} and the run goes on from the checkpoint before it, or anew"
    )


def _foreign(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path} is a checkpoint of another network ({why}); go on with the recipe in its recipe.json, or start anew "
        "in an empty folder"
    )


def checkpoints(out: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path for path in out.glob("step-*") if path.is_dir())
