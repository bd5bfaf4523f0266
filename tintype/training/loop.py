"""The training loop: a function of values.

Step k sees samples [k * n, (k + 1) * n) with n = batch_size * accumulate, and noise drawn from (seed, k): a run that
was interrupted and resumed is, bit for bit on one CPU, the run that was not.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from tintype.common.config import Json
from tintype.common.rng import generator
from tintype.objectives.base import Batch, GatheredObjective, Objective, Settling
from tintype.training.gathered import gathered_backward
from tintype.training.networks import fit_networks
from tintype.training.state import MAY_CHANGE, TrainingState, clear_leftovers
from tintype.training.world import World

log = logging.getLogger(__name__)
ALONE = World()
READ_EVERY = {"cpu": 1, "cuda": 50}  # steps between looks at gradient norms: a GPU would have to stop for each


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Lengths are in steps; one step is one update from batch_size * accumulate samples."""

    # A run may be prolonged: from there on the learning rate decays towards the new end.
    steps: int = field(metadata=MAY_CHANGE)
    batch_size: int
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: int = 200
    hold: float = 0.5  # share of `steps` at the full rate; then a half cosine to zero
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = field(default="cpu", metadata=MAY_CHANGE)  # another one rounds otherwise, as does `compile`
    compile: bool = field(default=False, metadata=MAY_CHANGE)
    checkpointing: bool = field(default=False, metadata=MAY_CHANGE)  # see `fit_networks`
    seed: int = 0
    save_every: int = field(default=1000, metadata=MAY_CHANGE)
    keep: int = field(default=2, metadata=MAY_CHANGE)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} {getattr(self, name)}: expected 1 or more")
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"train.{name} {getattr(self, name)}: expected more than 0")
        for name in ("hold", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"train.{name} {getattr(self, name)}: expected 0 to 1")

    def rate(self, step: int) -> float:
        """The learning rate of a step (counted from 0)."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        begin = self.hold * self.steps
        through = min(max((step - begin) / max(self.steps - begin, 1), 0.0), 1.0)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * through))


class Source(Protocol):
    """Where samples come from: a pure function of their position."""

    def batch(self, first: int, count: int) -> Batch:
        """Samples first, first + 1, … of an endless sequence."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """What a hook is told after each step. Metrics are tensors so that reading them is the hook's choice; of several
    processes they are the first one's."""

    state: TrainingState
    metrics: dict[str, Tensor]
    rate: float
    samples: int


class Hook(Protocol):
    def __call__(self, report: Report) -> None: ...


def train(
    objective: Objective,
    source: Source,
    config: TrainConfig,
    out: Path,
    *,
    recipe: Json = None,
    hooks: Sequence[Hook] = (),
    world: World = ALONE,
) -> TrainingState:
    """Train until `config.steps`, going on from the newest checkpoint of `out` (see `TrainingState.resume`).

    `recipe` is kept in each checkpoint. Raises `ValueError` when the newest one is beyond `config.steps`, and
    `FloatingPointError` when a gradient is not finite: at once on a CPU, within `READ_EVERY` steps on a GPU, and
    before a checkpoint would hold the harm. With several parts each metric is called "<part> <metric>". Of several
    processes only the first writes checkpoints and calls the hooks.
    """
    share = world.share(config.accumulate)
    parts = {name: module.to(config.device).train() for name, module in objective.parts.items()}
    fit_networks(parts, compiled=config.compile, checkpointing=config.checkpointing)
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.AdamW(
            [parameter for parameter in module.parameters() if parameter.requires_grad],
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        for name, module in parts.items()
    }
    state = TrainingState(parts, optimizers, config.ema_decay)
    if world.rank == 0:
        clear_leftovers(out)
    found = state.resume(out)
    if state.step > config.steps:
        raise ValueError(f"train.steps {config.steps}: {found} is at step {state.step}; expected {state.step} or more")
    if found is not None and world.rank == 0:
        log.info("going on from %s", found)

    norms: dict[tuple[int, str], Tensor] = {}  # by step and part, not looked at yet
    read_every = READ_EVERY[torch.device(config.device).type]
    batches = _ahead(source, config, share, first_step=state.step)
    while state.step < config.steps:
        micro_batches = [_on(config.device, batch) for batch in next(batches)]
        rate = config.rate(state.step)
        save = (state.step + 1) % config.save_every == 0 or state.step + 1 == config.steps
        metrics: dict[str, Tensor] = {}
        for name, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            told = _backward(objective, name, dict(zip(share, micro_batches, strict=True)), config, state.step, world)
            world.add_up(parts[name].parameters())
            norms[state.step, name] = torch.nn.utils.clip_grad_norm_(parts[name].parameters(), config.clip_norm)
            if save or (state.step + 1) % read_every == 0:
                _look_at(norms)
            optimizer.step()
            if isinstance(objective, Settling):
                told |= objective.settle(name, world)
            metrics |= told if len(parts) == 1 else {f"{name} {metric}": value for metric, value in told.items()}
            state.emas[name].update(parts[name], state.step)
        state.step += 1
        if world.rank > 0:
            continue
        if save:
            state.save(out, recipe, keep=config.keep)
        samples = state.step * config.batch_size * config.accumulate
        for hook in hooks:
            hook(Report(state, metrics, rate, samples))
    return state


def _backward(
    objective: Objective, part: str, batches: Mapping[int, Batch], config: TrainConfig, step: int, world: World
) -> dict[str, Tensor]:
    """Add up the gradients of the micro-batches (by their number in the step); the means of their metrics."""
    low = torch.autocast(config.device.split(":")[0], torch.bfloat16) if config.precision == "bf16" else nullcontext()
    if isinstance(objective, GatheredObjective):
        return gathered_backward(objective, part, batches, low, seed=config.seed, step=step, world=world)
    sums: dict[str, Tensor] = {}
    for number, batch in batches.items():
        with low:
            loss, metrics = objective.loss(part, batch, generator(config.seed, part, step, number), step=step)
        (loss / config.accumulate).backward()
        told = {"loss": loss.detach(), **metrics}
        sums = {name: value + sums.get(name, 0.0) for name, value in told.items()}
    return {name: total / len(batches) for name, total in sums.items()}


def _look_at(norms: dict[tuple[int, str], Tensor]) -> None:
    """Raise `FloatingPointError` for the first norm that is not finite; then forget them. Waits for the device once."""
    for (step, name), norm in zip(norms, torch.stack(list(norms.values())).tolist(), strict=True):
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"step {step}: gradient of {name} is {norm}; lower the learning rate and start anew in an empty folder"
            )
    norms.clear()


def _ahead(source: Source, config: TrainConfig, share: range, *, first_step: int) -> Iterator[list[Batch]]:
    """This process's micro-batches of each step; the next step's are made while this one trains."""
    size, count = config.batch_size, config.accumulate

    def make(step: int) -> list[Batch]:
        return [source.batch((step * count + number) * size, size) for number in share]

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, first_step)
        for step in range(first_step + 1, config.steps):
            ready = coming.result()
            coming = pool.submit(make, step)
            yield ready
        yield coming.result()


def _on(device: str, batch: Batch) -> Batch:
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
