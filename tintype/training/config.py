"""How a run trains, as values."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import torch

from tintype.common.config import added
from tintype.training.power_ema import gamma_of
from tintype.training.state import MAY_CHANGE


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
    decay: Literal["all", "matrices"] = added("all")  # matrices: no gains, biases and temperatures
    eps: float = added(1e-8)  # AdamW's
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    ema_stds: tuple[float, ...] = added(())  # power averages kept beside it: see training/power_ema.py
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = field(default="cpu", metadata=MAY_CHANGE)  # another one rounds otherwise, as does `compile`
    compile: bool = field(default=False, metadata=MAY_CHANGE)
    checkpointing: bool = field(default=False, metadata=MAY_CHANGE)  # see `fit_networks`
    # Of several processes each has whole networks (ddp), or a share of weights, averages and moments (fsdp).
    parallel: Literal["ddp", "fsdp"] = field(default="ddp", metadata=MAY_CHANGE)
    seed: int = 0
    save_every: int = field(default=1000, metadata=MAY_CHANGE)
    keep: int = field(default=2, metadata=MAY_CHANGE)
    # Updates in a row that may be skipped, because loss or gradient was not finite, before the run stops.
    skips: int = field(default=10, metadata=MAY_CHANGE)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} {getattr(self, name)}: expected 1 or more")
        for name in ("learning_rate", "clip_norm", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"train.{name} {getattr(self, name)}: expected more than 0")
        for name in ("hold", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"train.{name} {getattr(self, name)}: expected 0 to 1")
        for std in self.ema_stds:
            gamma_of(std)  # refuses what no profile has
        if self.skips < 0:
            raise ValueError(f"train.skips {self.skips}: expected 0 or more")

    def computing(self) -> AbstractContextManager[object]:
        """Inside of it networks compute in `precision`; it may be entered more than once."""
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.precision == "bf16")

    def rate(self, step: int) -> float:
        """The learning rate of a step (counted from 0)."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        begin = self.hold * self.steps
        through = min(max((step - begin) / max(self.steps - begin, 1), 0.0), 1.0)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * through))
