"""The training loop: a function of values.

Step k sees samples [k * n, (k + 1) * n) with n = batch_size * accumulate, and noise drawn from (seed, k): a run that
was interrupted and resumed is, bit for bit on one CPU, the run that was not.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tintype.common.config import Json
from tintype.common.memory import kept_memory
from tintype.common.rng import generator
from tintype.common.shares import by_kind
from tintype.objectives.base import Batch, GatheredObjective, Objective, Settling
from tintype.training.config import TrainConfig
from tintype.training.gathered import gathered_backward
from tintype.training.guard import Buffers, Guard
from tintype.training.networks import fit_networks
from tintype.training.parallel import Parallel, Replicated
from tintype.training.power_ema import forget_snapshots
from tintype.training.state import TrainingState, check_steps, clear_leftovers, stopping
from tintype.training.world import ALONE, World

log = logging.getLogger(__name__)
READ_EVERY = {"cpu": 1, "cuda": 50}  # steps between looks at what was skipped: a GPU would have to stop for each


class Source(Protocol):
    """Where samples come from: a pure function of their position."""

    def batch(self, first: int, count: int) -> Batch:
        """Samples first, first + 1, … of an endless sequence."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """What a hook is told after each step. Metrics are tensors so that reading them is the hook's choice; of several
    processes they are the means. `skipped`: how many parts' updates were, a tensor as well."""

    state: TrainingState
    metrics: dict[str, Tensor]
    rate: float
    samples: int
    skipped: Tensor = field(default_factory=lambda: torch.zeros(()))


class Hook(Protocol):
    def __call__(self, report: Report) -> None: ...


@runtime_checkable
class Looking(Protocol):
    """A hook that reads averages: before, all processes put together what they have shares of."""

    def due(self, step: int) -> bool:
        """Whether it does so after this many steps."""
        ...


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

    `recipe` is kept in each checkpoint. An update whose loss or gradient is not finite is skipped. Raises `ValueError`
    when the newest checkpoint is beyond `config.steps`, `FloatingPointError` when too many updates are skipped (see
    `Guard`; on a GPU within `READ_EVERY` steps), and `OSError` when files cannot be written; both name the last good
    checkpoint. With several parts each metric is called "<part> <metric>". Of several processes only the first calls
    the hooks.
    """
    share = world.share(config.accumulate)
    parts = {name: module.to(config.device).train() for name, module in objective.parts.items()}
    fit_networks(parts, compiled=config.compile, checkpointing=config.checkpointing)
    parallel = _parallel(objective, parts, config, world)
    state = _begun(parts, config, out, world)
    guard = Guard(state.skips, allowed=config.skips, tell=world.rank == 0)
    read_every = READ_EVERY[torch.device(config.device).type]
    batches = _ahead(source, config, share, first_step=state.step)
    with kept_memory(), stopping(out, state):
        while state.step < config.steps:
            micro_batches = {number: _on(config.device, batch) for number, batch in next(batches).items()}
            rate = config.rate(state.step)
            metrics: dict[str, Tensor] = {}
            skipped = torch.zeros((), device=config.device)
            for part, optimizer in state.optimizers.items():
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.zero_grad(set_to_none=True)
                buffers = Buffers(parts.values())
                told = _backward(parallel, part, micro_batches, config, state.step, world)
                skip = guard.judge(state.step, part, told["loss"], parallel.clip(part, config.clip_norm))
                told |= _update(objective, part, optimizer, skip, world)
                buffers.take_back(skip)
                state.average(part)
                metrics |= told if len(parts) == 1 else {f"{part} {metric}": value for metric, value in told.items()}
                skipped += skip
            state.step += 1
            save = state.step % config.save_every == 0 or state.step == config.steps
            if save or state.step % read_every == 0:
                guard.look()
            if save and (world.rank == 0 or state.world.size > 1):
                state.save(out, recipe, keep=config.keep)
            if any(isinstance(hook, Looking) and hook.due(state.step) for hook in hooks):
                state.gather()
            samples = state.step * config.batch_size * config.accumulate
            for hook in hooks if world.rank == 0 else ():
                hook(Report(state, metrics, rate, samples, skipped))
    state.gather()
    return state


def _parallel(objective: Objective, parts: Mapping[str, nn.Module], config: TrainConfig, world: World) -> Parallel:
    if config.parallel == "ddp" or world.size == 1:
        return Replicated(objective, parts, world)
    from tintype.training.sharded import Sharded

    return Sharded(objective, parts, world, config.device)


def _begun(parts: Mapping[str, nn.Module], config: TrainConfig, out: Path, world: World) -> TrainingState:
    """Anew, or from the newest checkpoint; leftovers of a run that was killed are cleared away."""
    optimizers = {name: _optimizer(module, config) for name, module in parts.items()}
    sharing = world if config.parallel == "fsdp" else ALONE
    state = TrainingState(parts, optimizers, config.ema_decay, stds=config.ema_stds, world=sharing)
    if world.rank == 0:
        clear_leftovers(out)
    check_steps(out, config.steps)
    found = state.resume(out)
    if world.rank == 0:
        forget_snapshots(out, state.step)
        if found is not None:
            log.info("going on from %s", found)
    return state


def _optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    vectors = [parameter for parameter in trained if config.decay == "matrices" and parameter.ndim < 2]
    free = {id(parameter) for parameter in vectors}
    decayed = [parameter for parameter in trained if id(parameter) not in free]
    return torch.optim.AdamW(
        [
            {"params": group, "weight_decay": decay}
            for tensors, decay in ((decayed, config.weight_decay), (vectors, 0.0))
            for group in by_kind(tensors)
        ],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def _update(
    objective: Objective, part: str, optimizer: torch.optim.Optimizer, skip: Tensor, world: World
) -> dict[str, Tensor]:
    """Move the part's weights, but where `skip` is 1; what the objective has to tell of it."""
    vars(optimizer)["found_inf"] = skip  # fused optimizers read the decision on the device: the host need not know
    optimizer.step()
    return objective.settle(part, world, skip=skip) if isinstance(objective, Settling) else {}


def _backward(
    parallel: Parallel, part: str, batches: Mapping[int, Batch], config: TrainConfig, step: int, world: World
) -> dict[str, Tensor]:
    """Add up the gradients of all processes' micro-batches (here by their number in the step); the means of their
    metrics."""
    objective = parallel.objective
    low = config.computing()
    if isinstance(objective, GatheredObjective):
        told = gathered_backward(objective, part, batches, low, seed=config.seed, step=step, world=world)
        parallel.finish(part)
        return told
    sums: dict[str, Tensor] = {}
    for number, batch in batches.items():
        with low:
            loss, metrics = objective.loss(part, batch, generator(config.seed, part, step, number), step=step)
        parallel.expect(part, last=number == max(batches))
        (loss / config.accumulate).backward()
        told = {"loss": loss.detach(), **metrics}
        sums = {name: value + sums.get(name, 0.0) for name, value in told.items()}
    parallel.finish(part)
    totals = world.total(torch.stack([total.float() for total in sums.values()]))
    return dict(zip(sums, (totals / config.accumulate).unbind(), strict=True))


def _ahead(source: Source, config: TrainConfig, share: range, *, first_step: int) -> Iterator[dict[int, Batch]]:
    """This process's micro-batches of each step, by number; the next step's are made while this one trains."""
    size, count = config.batch_size, config.accumulate

    def make(step: int) -> dict[int, Batch]:
        return {number: source.batch((step * count + number) * size, size) for number in share}

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, first_step)
        for step in range(first_step + 1, config.steps):
            ready = coming.result()
            coming = pool.submit(make, step)
            yield ready
        yield coming.result()


def _on(device: str, batch: Batch) -> Batch:
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
