"""A loss over all samples of a step is the same however they are spread over micro-batches and processes."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from processes import start
from tiny_training import CONFIG, Numbers, everything, network
from torch import Tensor, nn

from tintype.common.rng import generator
from tintype.common.shares import whole
from tintype.models.clip import CLIPTextConfig
from tintype.models.clip_image import CLIPImageConfig
from tintype.models.clip_pair import CLIP, CLIPConfig
from tintype.objectives.contrastive import ContrastiveConfig, ContrastiveObjective
from tintype.training.gathered import gathered_backward
from tintype.training.loop import train
from tintype.training.world import ALONE, World, joined

PARALLEL = ("ddp", "fsdp")


class Captioned:
    """{"image", "ids", "end"}: pictures and texts of noise, by position."""

    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        every = [generator("pair", at) for at in range(first, first + count)]
        ids = torch.stack([torch.randint(18, (6,), generator=one) for one in every])
        ids[:, 5] = 19
        image = torch.stack([torch.rand(3, 16, 16, generator=one) * 2 - 1 for one in every])
        return {"image": image, "ids": ids, "end": torch.full((count,), 5)}


def contrastive(kind: Literal["softmax", "sigmoid"]) -> ContrastiveObjective:
    torch.manual_seed(0)
    text = CLIPTextConfig(vocabulary_size=20, context_length=6, width=16, num_layers=1, num_heads=2, projection_dim=8)
    image = CLIPImageConfig(image_size=16, patch_size=4, width=16, num_layers=1, num_heads=2, projection_dim=8)
    clip = CLIP(CLIPConfig(text=text, image=image, logit_bias=kind == "sigmoid"))
    return ContrastiveObjective(clip, ContrastiveConfig(kind=kind))


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


SETTINGS = {"whole": (8, 1), "four micro-batches": (2, 4), "one each": (4, 2)}
OBJECTIVES = {
    "matching": (lambda: Matching(noise=0.0), Numbers()),
    "softmax": (lambda: contrastive("softmax"), Captioned()),
    "sigmoid": (lambda: contrastive("sigmoid"), Captioned()),
}


def learned(
    out: Path, setting: str, what: str, *, world: World = ALONE, parallel: Literal["ddp", "fsdp"] = "ddp"
) -> dict[str, Tensor]:
    size, accumulate = SETTINGS[setting]
    config = replace(
        CONFIG,
        steps=10,
        batch_size=size,
        accumulate=accumulate,
        learning_rate=0.05 if what == "matching" else 0.003,
        betas=(0.9, 0.95),
        eps=1e-5,  # a gradient that is rounding alone should not become a whole step
        weight_decay=0.2,
        decay="matrices",
        parallel=parallel,
    )
    told: list[dict[str, Tensor]] = []
    hooks = [lambda report: told.append(report.metrics)]
    out.mkdir(exist_ok=True)
    make, source = OBJECTIVES[what]
    state = train(make(), source, config, out, hooks=hooks, world=world)
    metrics = {f"metric {name}": value for name, value in (told[-1] if told else {}).items()}
    return {name: whole(value) for name, value in everything(state).items()} | metrics


def child(out: str) -> None:
    with joined("cpu") as world:
        for parallel in PARALLEL:
            for what in OBJECTIVES:
                setting = "one each" if what == "sigmoid" else "four micro-batches"
                folder = Path(out) / f"{parallel} {what}"
                found = learned(folder, setting, what, world=world, parallel=parallel)
                torch.save(found, f"{folder}/{world.rank}.pt")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """What one process with whole batches learns."""
    out = tmp_path_factory.mktemp("alone")
    return {what: learned(out / what, "whole", what) for what in OBJECTIVES}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pair")
    start(2, child, str(out))
    return out


def assert_close(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To 1e-6 of each tensor's largest number, or as float32 rounds numbers near 1; moments, which are gradients and
    their squares, to 3e-5. Not a bias of keys: softmax knows nothing of it, so its gradient is rounding alone."""
    for name, value in expected.items():
        if "to_k.bias" in name:
            continue
        largest = float(value.abs().max())
        allowed = 3e-5 * largest if "optimizer" in name else max(1e-6 * largest, 2e-7)
        assert float((got[name] - value).abs().max()) <= allowed, name


@pytest.mark.parametrize("what", OBJECTIVES)
def test_micro_batches_are_one_batch(what: str, alone: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    spread = learned(tmp_path, "four micro-batches", what)
    assert alone[what].keys() == spread.keys()
    assert "metric loss" in spread
    assert_close(spread, alone[what])


@pytest.mark.parametrize("parallel", PARALLEL)
@pytest.mark.parametrize("what", OBJECTIVES)
def test_two_processes_are_one(what: str, parallel: str, alone: dict[str, dict[str, Tensor]], pair: Path) -> None:
    """Ten steps, two micro-batches (sigmoid: one) in each process, which has whole networks or a share of them."""
    first, second = (torch.load(pair / f"{parallel} {what}" / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert_close(first, alone[what])
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
