"""A loss over all samples of a step is the same however they are spread over micro-batches and processes."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from processes import start
from tiny_training import CONFIG, Numbers, everything, network
from torch import Tensor, nn

from tintype.common.rng import generator
from tintype.training.gathered import gathered_backward
from tintype.training.loop import train
from tintype.training.world import World, joined


class Pairs(nn.Module):
    """Two towers and a temperature that only the loss knows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = network(), nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.tensor([1.0]))


class Matching:
    """Which `y` belongs to which `x`: softmax over the whole step. `noise` as in `Regression`."""

    def __init__(self, *, noise: float = 0.1) -> None:
        torch.manual_seed(0)
        self.pairs, self.noise = Pairs(), noise
        self.parts: Mapping[str, nn.Module] = {"pairs": self.pairs}
        self.computed: list[bool] = []  # with gradient?

    def features(
        self, part: str, batch: Mapping[str, Tensor], noise: torch.Generator, *, step: int
    ) -> tuple[Tensor, ...]:
        self.computed.append(torch.is_grad_enabled())
        x = batch["x"] + self.noise * torch.randn(batch["x"].shape, generator=noise)
        return F.normalize(self.pairs.first(x)), F.normalize(self.pairs.second(batch["y"]))

    def gathered_loss(
        self, part: str, features: tuple[Tensor, ...], rows: slice, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own = torch.arange(len(features[0]))[rows]
        across = [self.pairs.scale * (one[rows] @ other.T) for one, other in (features, features[::-1])]
        chosen = torch.stack([F.cross_entropy(logits, own, reduction="sum") for logits in across]).sum()
        likeness = across[0].detach().gather(1, own[:, None]).sum()
        return chosen / len(features[0]), {"likeness": likeness / len(features[0])}

    def loss(
        self, part: str, batch: Mapping[str, Tensor], noise: torch.Generator, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.features(part, batch, noise, step=step)
        return self.gathered_loss(part, features, slice(0, len(features[0])), step=step)


SETTINGS = {"whole": (8, 1), "four micro-batches": (2, 4)}


def learned(out: Path, setting: str, *, noise: float, world: World | None = None) -> dict[str, Tensor]:
    size, accumulate = SETTINGS[setting]
    out.mkdir(exist_ok=True)
    config = replace(CONFIG, steps=10, batch_size=size, accumulate=accumulate, betas=(0.9, 0.95))
    told: list[dict[str, Tensor]] = []
    hooks = [lambda report: told.append(report.metrics)]
    state = train(Matching(noise=noise), Numbers(), config, out, hooks=hooks, world=world or World())
    metrics = {f"metric {name}": value for name, value in (told[-1] if told else {}).items()}
    return everything(state) | metrics


def child(out: str) -> None:
    with joined("cpu") as world:
        found = learned(Path(out) / "run", "four micro-batches", noise=0.0, world=world)
    torch.save(found, f"{out}/{world.rank}.pt")


def assert_close(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To 1e-6 of each tensor's largest number. (Moments are squares of gradients, and round twice as much.)"""
    for name, value in expected.items():
        error = float((got[name] - value).abs().max() / value.abs().max())
        assert error <= (3e-6 if "optimizer" in name else 1e-6), name


def test_micro_batches_are_one_batch(tmp_path: Path) -> None:
    whole, spread = (learned(tmp_path / name, name, noise=0.0) for name in SETTINGS)
    assert whole.keys() == spread.keys()
    assert {"metric loss", "metric likeness"} < whole.keys()
    assert_close(spread, whole)


def test_two_processes_are_one(tmp_path: Path) -> None:
    start(2, child, str(tmp_path))
    whole = learned(tmp_path / "alone", "whole", noise=0.0)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first["metric loss"] == pytest.approx(float(whole["metric loss"]), rel=1e-6)
    assert_close(first, whole)
    assert_close(second, {name: value for name, value in first.items() if not name.startswith("metric")})


def test_the_second_pass_draws_what_the_first_drew() -> None:
    """With noise in the features, gradients are those of one graph over all micro-batches."""
    batches = {number: Numbers().batch(2 * number, 2) for number in range(3)}
    objective, direct = Matching(), Matching()
    told = gathered_backward(objective, "pairs", batches, nullcontext(), seed=3, step=5, world=World())
    features = [
        direct.features("pairs", batch, generator(3, "pairs", 5, number), step=5) for number, batch in batches.items()
    ]
    every = tuple(torch.cat(kind) for kind in zip(*features, strict=True))
    loss, _ = direct.gathered_loss("pairs", every, slice(0, 6), step=5)
    loss.backward()
    assert float(told["loss"]) == pytest.approx(float(loss.detach()), rel=1e-6)
    for (name, got), expected in zip(objective.pairs.named_parameters(), direct.pairs.parameters(), strict=True):
        assert got.grad is not None, name
        assert expected.grad is not None, name
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize(("count", "passes"), [(1, [True]), (3, [False] * 3 + [True] * 3)])
def test_a_single_micro_batch_is_computed_once(count: int, passes: list[bool]) -> None:
    objective = Matching()
    batches = {number: Numbers().batch(2 * number, 2) for number in range(count)}
    gathered_backward(objective, "pairs", batches, nullcontext(), seed=0, step=0, world=World())
    assert objective.computed == passes
