"""All that a run must remember, and the folder `step-00001234` it is kept in.

A checkpoint holds `<part>.safetensors` and `<part>.ema.safetensors` (weights and their average), `train.pt` (optimizer
state and step) and `recipe.json`. It is written under another name and renamed, so a folder that is there is whole.
Where processes have shares of the networks, each writes its own (`training/shards.py`) instead of the weights, averages
and optimizer state. Either kind goes on in any number of processes, with shares or without.
Randomness and data position are functions of (seed, step) and need no space: they come from the recipe, which
therefore must stay what it was (`check_recipe`).
"""

import dataclasses
import json
import pickle
import struct
from collections.abc import Generator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from tintype.common.config import Json
from tintype.common.files import load_tensors, remove_folder, save_tensors, whole_folder
from tintype.common.shares import like
from tintype.training.ema import EMA, warmed
from tintype.training.guard import Skips
from tintype.training.power_ema import power, save_snapshot
from tintype.training.world import ALONE, World

SHARDS = "shards"
LOG = "log.jsonl"
MAY_CHANGE = {"may_change": True}  # metadata of a recipe's field that may have another value when a run goes on
# torch.load on damaged files: of archives, pickles, text and numbers in them
DAMAGE = (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, pickle.UnpicklingError, struct.error)


OptimizerState = dict[str, dict[int, dict[str, Tensor]]]  # as `torch.optim` keeps "state": by the parameter's number


class TrainingState:
    """Modules, their averages and optimizers, the number of steps done, and how many of them were skipped.

    With `stds` each part has power averages as well (see `power_ema`). With a `world` of several processes each of them
    has shares of the networks, and all must save and resume together.
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        decay: float,
        *,
        stds: Sequence[float] = (),
        world: World = ALONE,
    ) -> None:
        self.parts = parts
        self.optimizers = optimizers
        self.emas = {name: EMA(module, warmed(decay)) for name, module in parts.items()}
        self.powers = {(name, std): EMA(module, power(std)) for name, module in parts.items() for std in stds}
        self.skips = {name: Skips() for name in parts}
        self.step = 0
        self.world = world

    def average(self, part: str) -> None:
        """Take the part's present weights into its averages."""
        for average in (self.emas[part], *(one for (name, _), one in self.powers.items() if name == part)):
            average.update(self.parts[part], self.step)

    def gather(self) -> None:
        """Put together averages that processes have shares of: all must call this before one reads them."""
        if self.world.size > 1:
            for average in (*self.emas.values(), *self.powers.values()):
                average.gather()

    # Checkpoints

    def save(self, out: Path, recipe: Json, *, keep: int) -> Path:
        """Write a checkpoint and remove all but the newest `keep`. Raises `OSError` when it cannot be written; those
        before it are then still there."""
        path, first = out / f"step-{self.step:08d}", self.world.rank == 0
        if self.powers:
            self.gather()
        for (part, std), average in self.powers.items() if first else ():
            save_snapshot(out, part, std, self.step, average.state_dict())
        if not self.world.agreed("there" if path.exists() else ""):
            with whole_folder(path) if first else nullcontext(path) as folder:
                if self.world.size > 1:
                    from tintype.training.shards import save_shards

                    save_shards(Path(self.world.agreed(str(folder))) / SHARDS, self._shares())
                if first:
                    self._write(folder, recipe)
        if first:
            for old in checkpoints(out)[:-keep]:
                remove_folder(old)
        return path

    def _write(self, folder: Path, recipe: Json) -> None:
        """What the first process writes: all that is not in shares."""
        train: dict[str, object] = {"step": self.step, "skips": {part: one.state() for part, one in self.skips.items()}}
        if self.world.size == 1:
            for name, tensors in self._whole().items():
                save_tensors(folder / f"{name}.safetensors", tensors)
            train["optimizers"] = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
            train["names"] = {name: self._trained(name) for name in self.parts}
        try:
            torch.save(train, folder / "train.pt")
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(f"{folder / 'train.pt'} cannot be written ({error})") from error
        (folder / "recipe.json").write_text(json.dumps(recipe, indent=2))

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
        if saved["skips"].keys() != self.parts.keys():
            raise _foreign(path, f"it holds {', '.join(saved['skips'])}; expected {', '.join(self.parts)}")
        if "optimizers" in saved:
            self._read(path, saved["optimizers"], saved["names"])
        else:
            self._read_shards(path)
        self.skips = {part: Skips(*saved["skips"][part]) for part in self.parts}
        self.step = int(saved["step"])
        return path

    def _read(self, path: Path, optimizers: dict[str, OptimizerState], names: dict[str, list[str]]) -> None:
        for name, module in self.parts.items():
            own = module.state_dict()
            try:
                tensors = load_tensors(path / f"{name}.safetensors")
                module.load_state_dict({key: like(value, own.get(key, value)) for key, value in tensors.items()})
            except RuntimeError as error:
                raise _foreign(path, str(error).partition("\n\t")[2].partition("\n")[0]) from error
            self.emas[name].load_state_dict(load_tensors(path / f"{name}.ema.safetensors"))
            if self.world.size == 1:
                self.optimizers[name].load_state_dict(optimizers[name])
            else:
                self._share_out(name, optimizers[name], names[name])
        for (name, std), average in self.powers.items():
            average.load_state_dict(load_tensors(path / f"{name}.ema-{std:g}.safetensors"))

    def _read_shards(self, path: Path) -> None:
        from tintype.training.shards import load_shards

        tensors = self._shares()
        try:
            load_shards(path / SHARDS, tensors)
        except ValueError as error:
            raise _foreign(path, str(error)) from error

    def _whole(self) -> dict[str, dict[str, Tensor]]:
        """Weights and averages by the names of their files."""
        found = {name: module.state_dict() for name, module in self.parts.items()}
        found |= {f"{name}.ema": average.state_dict() for name, average in self.emas.items()}
        return found | {f"{name}.ema-{std:g}": average.state_dict() for (name, std), average in self.powers.items()}

    def _shares(self) -> dict[str, Tensor]:
        """All tensors, in shares or not, by one name each."""
        found = {name: module.state_dict() for name, module in self.parts.items()}
        found |= {f"{name}.ema": average.average for name, average in self.emas.items()}
        found |= {f"{name}.ema-{std:g}": average.average for (name, std), average in self.powers.items()}
        found |= {f"{name}.optimizer": self._moments(name) for name in self.parts}
        return {f"{file}/{name}": tensor for file, tensors in found.items() for name, tensor in tensors.items()}

    def _moments(self, part: str) -> dict[str, Tensor]:
        """What AdamW keeps, by parameter: those it has not yet updated have zeros, as it will begin with."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.parts[part].named_parameters():
            if parameter.requires_grad:
                kept = self.optimizers[part].state[parameter]
                if not kept:
                    kept["step"] = torch.zeros((), device=parameter.device)
                    kept |= {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
                found |= {f"{name}/{key}": value for key, value in kept.items()}
        return found

    def _trained(self, part: str) -> list[str]:
        """The names of an optimizer's parameters, by its own numbers: their order is that of its groups."""
        names = {parameter: name for name, parameter in self.parts[part].named_parameters()}
        return [names[one] for group in self.optimizers[part].param_groups for one in group["params"]]

    def _share_out(self, part: str, optimizer: OptimizerState, trained: list[str]) -> None:
        """Take this process's share of what an optimizer kept whole, by number."""
        for name, tensor in self._moments(part).items():
            parameter, _, key = name.rpartition("/")
            kept = optimizer["state"].get(trained.index(parameter))
            if kept is not None:
                tensor.detach().copy_(like(kept[key], tensor))


@contextmanager
def stopping(out: Path, state: TrainingState) -> Generator[None]:
    """Say, of what ends a run, after which step it came and where the last good checkpoint is."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}; {_last(out)}") from error
    except BrokenPipeError:  # someone had enough of the progress line
        raise
    except OSError as error:
        raise OSError(f"stopped after step {state.step}: {error}; {_last(out)}") from error
    except KeyboardInterrupt as interrupt:
        found = checkpoints(out)
        begin = f"goes on from {found[-1]}" if found else f"begins anew, for there is no checkpoint in {out}"
        raise KeyboardInterrupt(f"after step {state.step}; the same command {begin}") from interrupt


def _last(out: Path) -> str:
    found = checkpoints(out)
    if not found:
        return f"there is no checkpoint in {out}"
    return f"the last good checkpoint is {found[-1]}"


def clear_leftovers(out: Path) -> None:
    """Remove what a run left that was killed while it wrote or removed a checkpoint."""
    for leftover in out.glob(".step-*.tmp"):
        remove_folder(leftover)


def check_folder(out: Path, *, kept: Sequence[str]) -> None:
    """Raise `ValueError` for a folder of something else than a run: it has neither checkpoint nor log, nor only what is
    `kept` of one that was killed before its first step (hidden files are no one's)."""
    if not out.is_dir() or checkpoints(out) or (out / LOG).exists():
        return
    others = sorted(path.name for path in out.iterdir() if not path.name.startswith(".") and path.name not in kept)
    if others:
        named = ", ".join(others[:3] + ["…"] * (len(others) > 3))
        raise ValueError(f"{out} holds other files ({named}) and no run; expected an empty folder, or one to be made")


def check_steps(out: Path, steps: int) -> None:
    """Raise `ValueError` when the newest checkpoint of `out` is beyond so many steps."""
    found = checkpoints(out)
    if found and (step := int(found[-1].name[5:])) > steps:
        raise ValueError(f"train.steps {steps}: {found[-1]} is at step {step}; expected {step} or more")


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

    A field that one of them lacks counts as null. Without a checkpoint, or when it holds no recipe, all is well.
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
    then, now = _leaves(saved), _leaves(recipe)
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
