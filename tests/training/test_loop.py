import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import CONFIG, Numbers, Regression, assert_equal, everything, network, run
from torch import Tensor, nn

from tintype.common.files import load_tensors
from tintype.common.rng import generator
from tintype.objectives.base import Processes
from tintype.training.loop import READ_EVERY, Hook, Report, TrainConfig
from tintype.training.state import checkpoints


def _stop_at(step: int) -> Hook:
    def hook(report: Report) -> None:
        if report.state.step == step:
            raise KeyboardInterrupt

    return hook


def weights(path: Path, **changes: object) -> dict[str, Tensor]:
    path.mkdir()
    return everything(run(path, **changes))


def test_two_times_four_are_eight(tmp_path: Path) -> None:
    """One step from accumulated gradients is the step from the whole batch; six steps stay together."""
    for steps in (1, 6):
        made = [
            weights(
                tmp_path / f"{steps} {size}x{accumulate}",
                objective=Regression(),
                steps=steps,
                batch_size=size,
                accumulate=accumulate,
                clip_norm=1e9,  # clipping would hide a wrong scale of the gradient
            )
            for size, accumulate in ((8, 1), (4, 2), (4, 1))
        ]
        whole, parts, half = made
        for name, value in whole.items():
            assert torch.allclose(value, parts[name], atol=1e-6, rtol=1e-5), name
        assert any(not torch.allclose(whole[name], half[name], atol=1e-4) for name in whole)


def test_each_micro_batch_has_noise_of_its_own(tmp_path: Path) -> None:
    """With noise the two differ, for the noise of a micro-batch is drawn from (seed, part, step, number)."""
    whole = weights(tmp_path / "8", steps=1, batch_size=8)
    parts = weights(tmp_path / "2x4", steps=1, batch_size=4, accumulate=2)
    assert not torch.allclose(whole["network 4.weight"], parts["network 4.weight"], atol=1e-6)


def test_steps_see_successive_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    original = Numbers.batch

    def batch(self: Numbers, first: int, count: int) -> dict[str, Tensor]:
        asked.append((first, count))
        return original(self, first, count)

    monkeypatch.setattr(Numbers, "batch", batch)
    run(tmp_path, steps=3, batch_size=4, accumulate=2, save_every=2)
    assert asked == [(0, 4), (4, 4), (8, 4), (12, 4), (16, 4), (20, 4)]  # and none beyond the last step
    asked.clear()
    run(tmp_path, steps=4, batch_size=4, accumulate=2)
    assert asked == [(24, 4), (28, 4)]
    asked.clear()
    run(tmp_path, steps=4, batch_size=4, accumulate=2)
    assert asked == []


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    losses: list[float] = []
    run(tmp_path, steps=80, batch_size=16, hooks=[lambda report: losses.append(float(report.metrics["loss"]))])
    assert sum(losses[-10:]) < sum(losses[:3]) / 3 * 10 / 4


def test_the_first_step_by_hand(tmp_path: Path) -> None:
    """AdamW with its gradient clipped to a norm, written out."""
    objective = Regression()
    before = {name: value.detach().clone() for name, value in objective.parts["network"].named_parameters()}
    loss, _ = objective.loss("network", Numbers().batch(0, 4), torch.Generator(), step=0)
    loss.backward()
    gradients = {name: value.grad.clone() for name, value in objective.parts["network"].named_parameters()}
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
    clip = norm / 3
    objective.parts["network"].zero_grad()

    state = run(tmp_path, objective=objective, steps=1, clip_norm=clip, weight_decay=0.1, warmup=0, hold=1.0)
    for name, value in state.parts["network"].named_parameters():
        gradient = gradients[name] / 3
        update = gradient / (gradient.abs() + 1e-8)  # m / sqrt(v) with both corrected for their first step
        expected = before[name] * (1 - 0.05 * 0.1) - 0.05 * update
        assert torch.allclose(value, expected, atol=2e-5), name
    moments = state.optimizers["network"].state_dict()["state"]
    total = math.sqrt(sum(float((one["exp_avg"] / (1 - 0.9)).square().sum()) for one in moments.values()))
    assert total == pytest.approx(clip, rel=1e-3)  # what reached the optimizer had the norm asked for


def test_a_run_by_hand(tmp_path: Path) -> None:
    """The loop written out for this objective ends at the same weights and average."""
    objective = Regression(noise=0.1)
    network = objective.parts["network"].train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1.0, betas=(0.8, 0.95), weight_decay=0.02)
    average = {name: value.detach().clone() for name, value in network.named_parameters()}
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.05 * min(1, (step + 1) / 4)
        gradients = [torch.zeros_like(value) for value in network.parameters()]
        for number in range(2):
            batch = Numbers().batch(step * 8 + number * 4, 4)
            loss, _ = objective.loss("network", batch, generator(7, "network", step, number), step=step)
            for total, gradient in zip(gradients, torch.autograd.grad(loss / 2, [*network.parameters()]), strict=True):
                total.add_(gradient)
        for value, gradient in zip(network.parameters(), gradients, strict=True):
            value.grad = gradient
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        decay = min(0.2, (1 + step) / (10 + step))
        for name, value in network.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * value.detach()

    settings = {"betas": (0.8, 0.95), "weight_decay": 0.02, "clip_norm": 0.5, "ema_decay": 0.2, "seed": 7, "hold": 1.0}
    state = run(tmp_path, steps=5, batch_size=4, accumulate=2, **settings)
    for name, value in network.named_parameters():
        assert torch.allclose(state.parts["network"].get_parameter(name), value, atol=1e-7), name
        assert torch.allclose(state.emas["network"].average[name], average[name], atol=1e-6), name


def test_small_gradients_are_not_clipped(tmp_path: Path) -> None:
    free = weights(tmp_path / "free", steps=3, clip_norm=1e9)
    loose = weights(tmp_path / "loose", steps=3, clip_norm=1e6)
    tight = weights(tmp_path / "tight", steps=3, clip_norm=1e-3)
    assert_equal(free, loose)
    assert not torch.equal(free["network optimizer 0.weight exp_avg"], tight["network optimizer 0.weight exp_avg"])


def test_the_rate_warms_up_holds_and_decays() -> None:
    config = replace(CONFIG, steps=100, warmup=10, hold=0.4, learning_rate=2.0)
    rates = [config.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10:41] == pytest.approx([2.0] * 31)
    assert rates[70] == pytest.approx(1.0)  # half of the way down a half cosine
    assert rates[99] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 59 / 60)))
    assert rates[40:] == sorted(rates[40:], reverse=True)
    assert 0 < rates[99] < 0.002
    assert config.rate(100) == pytest.approx(0)


@pytest.mark.parametrize(("warmup", "hold"), [(0, 1.0), (0, 0.0), (1, 0.5), (500, 0.5)])
def test_rates_at_the_edges(warmup: int, hold: float) -> None:
    config = replace(CONFIG, steps=50, warmup=warmup, hold=hold, learning_rate=1.0)
    rates = [config.rate(step) for step in range(50)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == pytest.approx(1.0 if warmup <= 1 else 0.056, rel=0.02)


def test_the_optimizer_runs_at_the_rate(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []

    def hook(report: Report) -> None:
        seen.append((report.rate, report.state.optimizers["network"].param_groups[0]["lr"]))

    run(tmp_path, hooks=[hook])
    assert seen == [(rate, rate) for rate in (CONFIG.rate(step) for step in range(12))]


def test_reports(tmp_path: Path) -> None:
    reports: list[tuple[int, int, set[str]]] = []

    def hook(report: Report) -> None:
        assert not any(value.requires_grad for value in report.metrics.values())
        reports.append((report.state.step, report.samples, set(report.metrics)))

    run(tmp_path, steps=5, batch_size=4, accumulate=2, save_every=2, hooks=[hook])
    names = {"loss", "half"}
    assert reports == [
        (1, 8, names),
        (2, 16, names),
        (3, 24, names),
        (4, 32, names),
        (5, 40, names),
    ]


def test_metrics_are_means_over_the_micro_batches(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []
    run(
        tmp_path,
        objective=Regression(),
        steps=1,
        batch_size=4,
        accumulate=3,
        hooks=[lambda report: seen.append(report.metrics)],
    )
    losses = [Regression().loss("network", Numbers().batch(at, 4), generator(0), step=0)[0].item() for at in (0, 4, 8)]
    assert len(set(losses)) == 3
    assert seen[0]["loss"].item() == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert seen[0]["half"].item() == pytest.approx(sum(losses) / 6, rel=1e-5)


def test_bfloat16_computes_low_and_remembers_high(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    class Watching(Regression):
        def loss(
            self, part: str, batch: dict[str, Tensor], noise: torch.Generator, *, step: int
        ) -> tuple[Tensor, dict[str, Tensor]]:
            seen.append(self.parts[part](batch["x"]).dtype)
            return super().loss(part, batch, noise, step=step)

    low = weights(tmp_path / "low", objective=Watching(noise=0.1), precision="bf16")
    high = weights(tmp_path / "high", objective=Watching(noise=0.1), precision="fp32")
    assert set(seen[:12]) == {torch.bfloat16}
    assert set(seen[12:]) == {torch.float32}
    for name, value in low.items():
        if value.is_floating_point():
            assert value.dtype == torch.float32, name
            assert value.isfinite().all()
    assert torch.allclose(low["network 4.weight"], high["network 4.weight"], atol=0.05)
    assert not torch.equal(low["network 4.weight"], high["network 4.weight"])


class Poisoned(Regression):
    """Loss or gradient is not finite at some steps; a running mean takes in everything."""

    def __init__(self, poison: float, *steps: int, gradient_only: bool = False) -> None:
        super().__init__()
        self.poison, self.poisoned, self.gradient_only = poison, steps, gradient_only
        self.parts["network"].register_buffer("running", torch.zeros(()))
        self.steps: list[int] = []

    def loss(
        self, part: str, batch: Mapping[str, Tensor], noise: torch.Generator, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.steps.append(step)
        loss, metrics = super().loss(part, batch, noise, step=step)
        factor = self.poison if step in self.poisoned else 1.0
        self.parts[part].get_buffer("running").lerp_(loss.detach() * factor, 0.1)
        return _Scaled.apply(loss, factor) if self.gradient_only else loss * factor, metrics


class _Scaled(torch.autograd.Function):
    """The loss as it is, its gradient times a factor."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, loss: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return loss.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


@pytest.mark.parametrize(("poison", "gradient_only"), [(math.nan, False), (math.inf, False), (math.nan, True)])
@pytest.mark.parametrize("read_every", [1, 4])
def test_an_update_that_is_not_finite_is_as_if_it_had_not_been(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    poison: float,
    gradient_only: bool,
    read_every: int,
) -> None:
    """Weights, moments and buffers after the steps 5 and 7 are those before them; the average of equal weights goes
    on. The host is told at its next look."""
    monkeypatch.setitem(READ_EVERY, "cpu", read_every)
    seen: dict[int, dict[str, Tensor]] = {}
    skipped: dict[int, float] = {}

    def hook(report: Report) -> None:
        seen[report.state.step] = everything(report.state)
        skipped[report.state.step] = float(report.skipped)

    objective = Poisoned(poison, 5, 7, gradient_only=gradient_only)
    state = run(tmp_path, objective=objective, hooks=[hook])
    assert [step for step, count in skipped.items() if count] == [6, 8]
    for step in (6, 8):
        for name, value in seen[step].items():
            assert value.isfinite().all(), name
            if "average" not in name and name != "step":
                assert torch.equal(value, seen[step - 1][name]), name
        assert not torch.equal(seen[step + 1]["network 4.weight"], seen[step]["network 4.weight"])
    assert not torch.equal(seen[6]["network average 4.weight"], seen[5]["network average 4.weight"])
    assert int(state.optimizers["network"].state_dict()["state"][0]["step"]) == 10
    assert state.skips["network"].state() == [0, 2]
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2
    assert "step 5: loss of network is" in told[0]
    assert told[1].endswith("the update is skipped, 2 so far")


@pytest.mark.parametrize("read_every", [1, 4])
def test_a_run_with_skipped_steps_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_every: int
) -> None:
    monkeypatch.setitem(READ_EVERY, "cpu", read_every)
    poison = (2, 5, 6)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole", objective=Poisoned(math.nan, *poison), skips=3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", objective=Poisoned(math.nan, *poison), skips=3, save_every=6, hooks=[_stop_at(6)])
    resumed = run(tmp_path / "parts", objective=Poisoned(math.nan, *poison), skips=3)
    assert_equal(everything(resumed), everything(whole))
    assert resumed.skips["network"].state() == whole.skips["network"].state() == [0, 3]


@pytest.mark.parametrize("read_every", [1, 4])
def test_too_many_in_a_row_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_every: int) -> None:
    """With what happened and the last good checkpoint, even when a checkpoint lies among them."""
    monkeypatch.setitem(READ_EVERY, "cpu", read_every)
    objective = Poisoned(math.nan, 5, 6, 7, 8)
    with pytest.raises(FloatingPointError) as error:
        run(tmp_path, objective=objective, save_every=6, skips=2)
    assert "step 7: loss of network is nan, its gradient's norm nan; 3 updates in a row were not finite" in str(
        error.value
    )
    assert str(error.value).endswith(f"the last good checkpoint is {tmp_path / 'step-00000006'}")
    assert objective.steps[-1] == 7
    for value in load_tensors(tmp_path / "step-00000006" / "network.safetensors").values():
        assert value.isfinite().all()
    again = Poisoned(math.nan, 5, 6, 7, 8)  # one of the three lies before the checkpoint, and is remembered
    with pytest.raises(FloatingPointError, match="3 updates in a row"):
        run(tmp_path, objective=again, save_every=6, skips=2)
    assert again.steps[0] == 6


def test_too_many_in_all_end_the_run(tmp_path: Path) -> None:
    """Every other step: never two in a row."""
    objective = Poisoned(math.inf, *range(0, 12, 2))
    with pytest.raises(
        FloatingPointError, match=r"step 6: .* 1 updates in a row were not finite, 4 in all .*there is no"
    ):
        run(tmp_path, objective=objective, skips=3)
    assert objective.steps[-1] == 6


def test_the_first_ends_the_run_when_none_may_be(tmp_path: Path) -> None:
    objective = Poisoned(math.nan, 5)
    with pytest.raises(FloatingPointError, match="step 5"):
        run(tmp_path, objective=objective, skips=0, save_every=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000004"]


def test_parts_are_skipped_each_by_itself(tmp_path: Path) -> None:
    class Two(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.parts = {"first": nn.Linear(16, 2), "second": nn.Linear(16, 2)}

        def loss(
            self, part: str, batch: Mapping[str, Tensor], noise: torch.Generator, *, step: int
        ) -> tuple[Tensor, dict[str, Tensor]]:
            out = self.parts[part](batch["x"].flatten(1))
            poison = math.nan if (part, step) == ("second", 1) else 1.0
            return (out - batch["y"]).square().mean() * poison, {}

    skipped: list[float] = []
    state = run(tmp_path, objective=Two(), steps=3, hooks=[lambda report: skipped.append(float(report.skipped))])
    assert skipped == [0, 1, 0]
    assert {name: one.state() for name, one in state.skips.items()} == {"first": [0, 0], "second": [0, 1]}
    steps = [int(state.optimizers[name].state_dict()["state"][0]["step"]) for name in ("first", "second")]
    assert steps == [3, 2]


def test_frozen_parameters_stay_as_they_are(tmp_path: Path) -> None:
    objective = Regression()
    network = objective.parts["network"]
    assert isinstance(network, nn.Sequential)
    network[4].requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = run(tmp_path, objective=objective, weight_decay=0.5)
    after = state.parts["network"].state_dict()
    assert torch.equal(after["4.weight"], before["4.weight"])
    assert not torch.equal(after["0.weight"], before["0.weight"])


def test_parts_are_trained_each_by_its_own_optimizer(tmp_path: Path) -> None:
    """The second part sees the first one's new weights, as in a GAN step."""

    class Two(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.parts = {"first": nn.Linear(16, 2), "second": nn.Linear(2, 2)}
            self.seen: list[Tensor] = []

        def loss(
            self, part: str, batch: dict[str, Tensor], noise: torch.Generator, *, step: int
        ) -> tuple[Tensor, dict[str, Tensor]]:
            first = self.parts["first"]
            assert isinstance(first, nn.Linear)
            self.seen.append(first.weight.detach().clone())
            hidden = first(batch["x"].flatten(1))
            out = hidden if part == "first" else self.parts["second"](hidden)
            return (out - batch["y"]).square().mean(), {"noise": torch.randn((), generator=noise)}

    torch.manual_seed(0)
    objective, noises = Two(), []
    state = run(tmp_path, objective=objective, steps=2, save_every=1, hooks=[lambda r: noises.append(r.metrics)])
    assert [state.optimizers[name].state_dict()["state"][0]["step"].item() for name in ("first", "second")] == [2, 2]
    one, two, three, _ = objective.seen
    assert not torch.equal(one, two)
    assert torch.equal(two, three)  # the second part's step did not move the first part
    assert [set(metrics) for metrics in noises] == [{"first loss", "first noise", "second loss", "second noise"}] * 2
    assert len({float(value) for metrics in noises for name, value in metrics.items() if "noise" in name}) == 4
    names = {path.name for path in checkpoints(tmp_path)[-1].iterdir()}
    assert {"first.safetensors", "first.ema.safetensors", "second.safetensors", "train.pt", "recipe.json"} <= names


def test_skips_are_counted_from_zero() -> None:
    with pytest.raises(ValueError, match=r"train\.skips -1: expected 0 or more"):
        TrainConfig(steps=1, batch_size=1, skips=-1)


@pytest.mark.parametrize("name", ["steps", "batch_size", "accumulate", "save_every", "keep"])
def test_counts_start_at_one(name: str) -> None:
    with pytest.raises(ValueError, match=rf"train\.{name} 0: expected 1 or more"):
        TrainConfig(**{"steps": 1, "batch_size": 1, name: 0})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("learning_rate", (0.0, -1e-3, math.nan)),
        ("clip_norm", (0.0, -1.0, math.inf)),
        ("hold", (-0.1, 1.1)),
        ("ema_decay", (-1.0, 1.5)),
    ],
)
def test_numbers_that_no_training_could_use_are_refused(name: str, values: tuple[float, ...]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=rf"train\.{name} {value}: expected"):
            TrainConfig(**{"steps": 1, "batch_size": 1, name: value})


class Counting(Regression):
    """Keeps the sum of what it sees and settles it in a weight that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.parts["network"].register_buffer("seen", torch.zeros(()))
        self.kept = torch.zeros(())

    def loss(
        self, part: str, batch: Mapping[str, Tensor], noise: torch.Generator, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.kept = self.kept + batch["x"].sum()
        return super().loss(part, batch, noise, step=step)

    def settle(self, part: str, processes: Processes, *, skip: Tensor | None = None) -> dict[str, Tensor]:
        seen = self.parts[part].get_buffer("seen")
        seen += processes.total(self.kept)
        self.kept = torch.zeros(())
        return {"seen": seen.clone()}


def test_what_an_objective_kept_is_settled_once_a_step(tmp_path: Path) -> None:
    """After all micro-batches, and before the average, the checkpoint and the hooks see the step."""
    told: list[float] = []

    def hook(report: Report) -> None:
        told.append(float(report.metrics["seen"]))

    state = run(tmp_path, objective=Counting(), hooks=[hook], steps=3, accumulate=2, ema_decay=0.0)
    sums = [float(Numbers().batch(8 * step, 8)["x"].sum()) for step in range(3)]
    assert told == pytest.approx([sums[0], sums[0] + sums[1], sum(sums)], rel=1e-5)
    assert float(state.emas["network"].state_dict()["seen"]) == told[-1]
    assert float(load_tensors(tmp_path / "step-00000003" / "network.safetensors")["seen"]) == told[-1]


def test_an_objective_is_told_which_updates_were_skipped(tmp_path: Path) -> None:
    """What it settles is not to come of an update that was none."""
    told: list[float] = []

    class Settling(Poisoned):
        def settle(self, part: str, processes: Processes, *, skip: Tensor | None = None) -> dict[str, Tensor]:
            assert skip is not None
            told.append(float(skip))
            return {}

    run(tmp_path, objective=Settling(math.nan, 1), steps=3)
    assert told == [0, 1, 0]


@pytest.mark.parametrize("name", ["compile", "checkpointing"])
def test_what_a_network_cannot_is_refused_before_it_trains(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"train\.{name} true: no "):
        run(tmp_path, **{name: True})


def test_vectors_do_not_decay_when_matrices_alone_do(tmp_path: Path) -> None:
    """With a learning rate that only decay can show."""
    moved: dict[str, dict[str, float]] = {}
    for decay in ("all", "matrices"):
        objective = Regression()
        before = {name: value.detach().clone() for name, value in network().named_parameters()}
        (tmp_path / decay).mkdir()
        settings = {"learning_rate": 1e-3, "eps": 1e6, "weight_decay": 1.0, "warmup": 1, "hold": 1.0}
        run(tmp_path / decay, objective=objective, steps=10, decay=decay, **settings)
        after = dict(objective.parts["network"].named_parameters())
        moved[decay] = {
            name: float((after[name].detach() / value).mean()) for name, value in before.items() if value.all()
        }
    kept = (1 - 1e-3) ** 10
    assert moved["all"] == pytest.approx(dict.fromkeys(moved["all"], kept), rel=1e-4)
    expected = {name: kept if name in ("0.weight", "4.weight") else 1.0 for name in moved["matrices"]}
    assert {1.0, kept} == set(expected.values())
    assert moved["matrices"] == pytest.approx(expected, rel=1e-4)
