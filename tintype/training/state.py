"""All that a run must remember, and the folder `step-00001234` it is kept in.

A checkpoint holds `<part>.safetensors` and `<part>.ema.safetensors` (weights and their average), `train.pt` (optimizer
state and step) and `recipe.json`. It is written under another name and renamed, so a folder that is there is whole.
Randomness and data position are functions of (seed, step) and need no space.
"""

import json
import logging
from pathlib import Path

import torch
from torch import nn

from tintype.common.config import Json
from tintype.common.files import load_tensors, remove_folder, save_tensors, whole_folder
from tintype.training.ema import EMA

log = logging.getLogger(__name__)


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

    def resume(self, out: Path) -> bool:
        """Load the newest checkpoint of `out`, if there is one. Raises `ValueError` when it is of another network.

        What a run left that was killed while it wrote or removed a checkpoint is cleared away.
        """
        for leftover in out.glob(".step-*.tmp"):
            remove_folder(leftover)
        found = checkpoints(out)
        if not found:
            return False
        path = found[-1]
        saved = torch.load(path / "train.pt", map_location="cpu", weights_only=True)
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
        log.info("resumed from %s", path)
        return True


def _foreign(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path} is a checkpoint of another network ({why}); go on with the recipe in its recipe.json, or start anew "
        "in an empty folder"
    )


def checkpoints(out: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path for path in out.glob("step-*") if path.is_dir())
