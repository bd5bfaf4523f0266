"""A run of seconds: a small network, samples that are a pure function of position, an objective without noise."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tintype.common.config import to_json
from tintype.common.files import reserved
from tintype.common.rng import generator
from tintype.common.shares import whole
from tintype.training.loop import Hook, TrainConfig, train
from tintype.training.state import TrainingState

CONFIG = TrainConfig(steps=12, batch_size=4, learning_rate=0.05, warmup=4, save_every=100)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.GroupNorm(2, 6), nn.SiLU(), nn.Flatten(), nn.Linear(24, 2)).to(
        memory_format=torch.channels_last
    )


class Numbers:
    """{"x", "y"}: pictures of noise and two facts about each, by position."""

    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        each = [torch.randn(1, 4, 4, generator=generator("number", at)) for at in range(first, first + count)]
        x = torch.stack(each)
        return {"x": x, "y": torch.stack((x.mean(dim=(1, 2, 3)), x.amax(dim=(1, 2, 3))), dim=1)}


class Regression:
    """Mean squared error; `noise` is the std of what is added to the pictures."""

    def __init__(self, *, noise: float = 0.0) -> None:
        self.noise = noise
        self.parts: Mapping[str, nn.Module] = {"network": network()}

    def loss(
        self, part: str, batch: Mapping[str, Tensor], noise: torch.Generator, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        x = batch["x"] + self.noise * torch.randn(batch["x"].shape, generator=noise)
        loss = (self.parts[part](x).float() - batch["y"]).square().mean()
        return loss, {"half": loss.detach() / 2}


def run(
    out: Path, *, objective: Regression | None = None, hooks: Sequence[Hook] = (), **changes: object
) -> TrainingState:
    """Train in `out` with fresh objects."""
    config = replace(CONFIG, **changes)
    recipe = {"train": to_json(config)}
    return train(objective or Regression(noise=0.1), Numbers(), config, out, recipe=recipe, hooks=hooks)


def everything(state: TrainingState) -> dict[str, Tensor]:
    """All that a run has learned, by name; of what processes have shares of, the whole."""
    found: dict[str, Tensor] = {"step": torch.tensor(state.step)}
    state.gather()
    for part, module in state.parts.items():
        found |= {f"{part} {name}": whole(value.detach()).clone() for name, value in module.state_dict().items()}
        found |= {f"{part} average {name}": value.clone() for name, value in state.emas[part].state_dict().items()}
        for (owner, std), average in state.powers.items():
            if owner == part:
                found |= {f"{part} {std} {name}": value.clone() for name, value in average.state_dict().items()}
        for name, parameter in module.named_parameters():
            moments = state.optimizers[part].state.get(parameter, {})
            if moments and moments["step"] > 0:  # else they are as if they were not there
                found |= {f"{part} optimizer {name} {key}": whole(value).clone() for key, value in moments.items()}
    return found


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def assert_close(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To 1e-6 of each tensor's largest number; moments, which are squares of gradients, to 3e-6."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        error = float((got[name] - value).abs().max())
        assert error <= (3e-6 if "optimizer" in name else 1e-6) * float(value.abs().max()), (name, error)


def child(out: str, steps: int) -> None:
    """What a process that will be killed does."""
    torch.set_num_threads(1)
    run(Path(out), steps=steps, save_every=1, keep=2)


def die_in(out: str) -> None:
    """As by SIGKILL, while the folder is reserved."""
    with reserved(Path(out)):
        os.kill(os.getpid(), 9)


def child_killed_at(out: str, steps: int, where: str, count: int) -> None:
    """Dies (as by SIGKILL) in the middle of its `count`-th call of an os function that concerns a checkpoint."""
    original = getattr(os, where)
    calls = 0

    def deadly(path: os.PathLike[str] | str | int, *rest: object, **options: object) -> object:
        nonlocal calls
        if isinstance(path, int) or "step-" in os.fspath(path):
            calls += 1
            if calls == count:
                os.kill(os.getpid(), 9)
                time.sleep(60)
        return original(path, *rest, **options)

    setattr(os, where, deadly)
    child(out, steps)
