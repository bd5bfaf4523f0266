"""A recipe is a typed function that returns a frozen dataclass: everything about a run, as values."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor, nn

from tintype.common.config import to_json
from tintype.common.device import usable_device
from tintype.common.files import reserved
from tintype.objectives.base import Objective
from tintype.training.hooks import Log, Measured, Progress, Sheets
from tintype.training.loop import Hook, Source, TrainConfig, train
from tintype.training.power_ema import gamma_of, reconstruct
from tintype.training.state import LOG, MAY_CHANGE, TrainingState, changeable, check_folder, check_recipe, check_steps
from tintype.training.tensorboard import TensorBoard
from tintype.training.world import announced, joined

KEPT = ("latents", "tensorboard")  # what a run makes in its folder before its first step, and goes on with


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A recipe made real: `sheet` draws how far it has come, `publish` writes the finished weights; `hooks` are its own
    beside those of every run."""

    objective: Objective
    source: Source
    sheet: Callable[[TrainingState], Image.Image] | None
    publish: Callable[[TrainingState, Path], None]
    hooks: tuple[Hook, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe(ABC):
    """What every run says; each adds what is its own. `--set` reaches all fields.

    A field marked `MAY_CHANGE` may have another value when a run goes on: it names a file, whose content is in
    `inputs`, or says how to look at a run and not what is learned.
    """

    train: TrainConfig
    font: str | None = field(default=None, metadata=MAY_CHANGE)
    sheet_every: int = field(default=1000, metadata=MAY_CHANGE)
    tensorboard: bool = field(default=False, metadata=MAY_CHANGE)  # events for it, in the run's folder `tensorboard`
    # Publish the power average of this length, instead of the standard one; a finished run may be told another.
    publish_std: float | None = field(default=None, metadata=MAY_CHANGE)

    def __post_init__(self) -> None:
        if self.sheet_every < 1:
            raise ValueError(f"sheet_every {self.sheet_every}: expected 1 or more")
        if self.publish_std is not None and not self.train.ema_stds:
            raise ValueError(
                f"publish_std {self.publish_std}: expected train.ema_stds, the averages it is made of: "
                "--set train.ema_stds=[0.05,0.1]"
            )
        if self.publish_std is not None:
            gamma_of(self.publish_std)  # refuses what no average has

    @abstractmethod
    def inputs(self) -> dict[str, str]:
        """Digests of what the run reads beside its own fields. They must stay the same when it goes on."""

    @abstractmethod
    def prepare(self, out: Path) -> Run:
        """Build data, networks and objective; `out` keeps what is costly to make."""


def run(recipe: Recipe, out: Path, *, progress: bool = True) -> bool:
    """Train into `out`, going on where an earlier call with the same folder stopped, and publish the result there.

    Raises `ValueError` for a device that is not there and for a folder that cannot be made, where a run is going on, or
    that holds one of another recipe, a longer one, or something else. Under torchrun the first process prepares before
    the others, so that what is kept in `out` is made once, and publishes: there the answer is True, in the others
    False.
    """
    usable_device(recipe.train.device)
    told = to_json(recipe)
    assert isinstance(told, dict)
    told["inputs"] = dict(recipe.inputs())
    announced().share(recipe.train.accumulate)  # before the processes join: one that left then would leave the others
    check_folder(out, kept=KEPT)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{out} cannot be the folder of a run ({error.strerror}); expected a folder, there or to be made; "
            "name another"
        ) from error
    with joined(recipe.train.device) as world, reserved(out) if world.rank == 0 else nullcontext():
        if world.rank > 0:
            world.wait()
        check_recipe(out, told, changeable(recipe))  # before `prepare` replaces what the other run keeps
        check_steps(out, recipe.train.steps)
        prepared = recipe.prepare(out)
        if world.rank == 0:
            world.wait()
        last = recipe.train.steps
        board = TensorBoard(out / "tensorboard", last=last) if recipe.tensorboard else None
        log = Log(out / LOG, last=last, show=None if board is None else board.trained)
        hooks: list[Hook] = [log, *prepared.hooks]
        if progress:
            hooks.append(Progress(last))
        if prepared.sheet is not None:
            show = None if board is None else board.show
            hooks.append(Sheets(out, prepared.sheet, every=recipe.sheet_every, last=last, show=show))
        if board is not None:
            for measured in prepared.hooks:
                if isinstance(measured, Measured):
                    measured.show = board.tell
            hooks.append(board)
        state = train(prepared.objective, prepared.source, recipe.train, out, recipe=told, hooks=hooks, world=world)
        if recipe.publish_std is not None:
            for part, average in state.emas.items():
                average.load_state_dict(reconstruct(out, part, recipe.publish_std))
            state.gather()
        if world.rank == 0:
            prepared.publish(state, out)
        return world.rank == 0


def digest(path: Path) -> str:
    """SHA-256 of a file. Raises `ValueError` when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); expected a file of weights") from error


def average(state: TrainingState, part: str, *, prefix: str = "") -> dict[str, Tensor]:
    """The averaged weights of a part under `prefix`, by their names without it."""
    every = state.emas[part].state_dict()
    return {name.removeprefix(prefix): value for name, value in every.items() if name.startswith(prefix)}


def load_average(module: nn.Module, state: TrainingState, part: str, *, prefix: str = "") -> nn.Module:
    """Give `module` the averaged weights of a part (those under `prefix`), in eval mode."""
    module.load_state_dict(average(state, part, prefix=prefix))
    return module.eval()
