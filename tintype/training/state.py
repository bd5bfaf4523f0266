"""All that a run must remember, and the folder `step-00001234` it is kept in.

A checkpoint holds `<part>.safetensors` and `<part>.ema.safetensors` (weights and their average), `train.pt` (optimizer
state and step) and `recipe.json`. It is written under another name and renamed, so a folder that is there is whole.
Randomness and data position are functions of (seed, step) and need no space: they come from the recipe, which
therefore must stay what it was (`check_recipe`).
"""

import dataclasses
import json
import pickle
import struct
from collections.abc import Set
from pathlib import Path

import torch
from torch import nn

from tintype.common.config import Json
from tintype.common.files import load_tensors, remove_folder, save_tensors, whole_folder
from tintype.training.ema import EMA

MAY_CHANGE = {"may_change": True}  # metadata of a recipe's field that may have another value when a run goes on
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

    def resume(self, out: Path) -> Path | None:
        """Load the newest checkpoint of `out`, if there is one, and return its folder.

        Raises `ValueError` when it is damaged or of another network. Whether its recipe is still the same is for
        `check_recipe` to say.
        """
        found = checkpoints(out)
        if not found:
            return None
        path = found[-1]
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


def clear_leftovers(out: Path) -> None:
    """Remove what a run left that was killed while it wrote or removed a checkpoint."""
    for leftover in out.glob(".step-*.tmp"):
        remove_folder(leftover)


def changeable(recipe: object, path: str = "") -> set[str]:
    """The paths ("train.steps") of the fields marked `MAY_CHANGE` in a dataclass and in those it holds."""
    if not dataclasses.is_dataclass(recipe):
        return set()
    found: set[str] = set()
    for field in dataclasses.fields(recipe):
        name = f"{path}{field.name}"
        found |= {name} if field.metadata.get("may_change") else changeable(getattr(recipe, field.name), f"{name}.")
    return found


def check_recipe(out: Path, recipe: dict[str, Json], may_change: Set[str]) -> None:
    """Raise `ValueError` when the newest checkpoint of `out` was trained by another recipe, but for `may_change`.

    A field that one of them lacks counts as null; "inputs" (digests of what a run reads) are compared where the
    checkpoint has them. Without a checkpoint, or when it holds no recipe, all is well.
    """
    found = checkpoints(out)
    if not found:
        return
    path = found[-1] / "recipe.json"
    try:
        saved: Json = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if saved is None:
        return
    if not isinstance(saved, dict):
        raise _damaged(path)
    then, now = _leaves(saved), _leaves({key: item for key, item in recipe.items() if key != "inputs" or key in saved})
    differing = [key for key in now | then if key not in may_change and then.get(key) != now.get(key)]
    if differing:
        named = [f"{key} was {json.dumps(then.get(key))}, is {json.dumps(now.get(key))}" for key in differing[:3]]
        raise ValueError(
            f"{found[-1]} was trained by another recipe: {'; '.join(named + ['…'] * (len(differing) > 3))}; go on with "
            "the recipe and the inputs in its recipe.json, or start anew in an empty folder"
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
    """The whole checkpoints of a run, oldest first. A copy of one under another name is none: it is its owner's."""
    return sorted(path for path in out.glob("step-*") if path.is_dir() and path.name[5:].isdigit())
