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
    """All that a run has learned, by name."""
    found: dict[str, Tensor] = {"step": torch.tensor(state.step)}
    for part, module in state.parts.items():
        found |= {f"{part} {name}": value.detach().clone() for name, value in module.state_dict().items()}
        found |= {f"{part} average {name}": value.clone() for name, value in state.emas[part].state_dict().items()}
        for number, moments in state.optimizers[part].state_dict()["state"].items():
            found |= {f"{part} optimizer {number} {name}": value.clone() for name, value in moments.items()}
    return found


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


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
