"""Processes that share the micro-batches of each step are one process with the same settings: whether each has whole
networks or a share of them, and whatever way an objective goes through its parts."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from processes import start
from tiny_training import CONFIG, Numbers, Regression, assert_close, assert_equal, everything, network
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import tintype.training.parallel
from tintype.common.rng import generator
from tintype.training.loop import Report, train
from tintype.training.state import checkpoints
from tintype.training.world import ALONE, World, joined

SETTINGS = {
    "steps": 10,
    "batch_size": 4,
    "accumulate": 2,
    "save_every": 5,
    "hold": 1.0,
    "decay": "matrices",
    "ema_stds": (0.05, 0.1),
}


class Twisted(Regression):
    """A generator and its critic, with all that makes gradients come late, seldom or never: modules called twice, and
    without their owner; a parameter without dimensions; one for every other step, one for none; and, if varied, one for
    some micro-batches only."""

    def __init__(self, *, varied: bool) -> None:
        super().__init__(noise=0.1)
        self.varied = varied
        torch.manual_seed(1)
        generator, critic = network(), nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 1))
        generator.register_module("steps", nn.Linear(2, 2))
        generator.register_module("batches", nn.Linear(2, 2))
        generator.register_module("never", nn.Linear(2, 2))
        generator.register_parameter("temperature", nn.Parameter(torch.tensor(0.5)))
        self.parts = {"generator": generator, "critic": critic}

    def loss(
        self, part: str, batch: Mapping[str, Tensor], noise: torch.Generator, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        generator, critic = self.parts.values()
        out = batch["x"] + self.noise * torch.randn(batch["x"].shape, generator=noise)
        *layers, last = list(generator)[:5]
        for layer in layers:
            out = layer(out)
        out = F.linear(out, last.get_parameter("weight"), last.get_parameter("bias"))  # read, not called
        out = out * generator.get_parameter("temperature").exp()
        if part == "critic":
            margin = critic(out.detach()).relu().mean() + (1 - critic(batch["y"])).relu().mean()
            return margin, {"margin": margin.detach()}
        if step % 2:
            out = out + generator.get_submodule("steps")(out)
        if self.varied and batch["x"][0, 0, 0, 0] > 0:
            out = out + generator.get_submodule("batches")(out)
        error = (out - batch["y"]).square().mean()
        return error - 0.1 * critic(out).mean(), {"error": error.detach()}


OBJECTIVES = {
    "plain": lambda: Regression(noise=0.1),
    "twisted": lambda: Twisted(varied=False),
    "varied": lambda: Twisted(varied=True),
}
KINDS = {"ddp": ("plain", "varied"), "fsdp": ("plain", "twisted")}


def go(out: Path, objective: str, world: World = ALONE, **changes: object) -> dict[str, Tensor]:
    """What was learned, and each step's metrics."""
    out.mkdir(exist_ok=True)
    told: list[Tensor] = []

    def hook(report: Report) -> None:
        told.append(torch.stack(list(report.metrics.values())))

    config = replace(CONFIG, **(SETTINGS | changes))
    state = train(OBJECTIVES[objective](), Numbers(), config, out, hooks=[hook], world=world)
    assert len(told) in ((0,) if world.rank else (5, 10))
    return everything(state) | ({"metrics": torch.stack(told)} if told else {})


def child(folder: str, parallel: str) -> None:
    """Ten steps from the start, and five from what one process began; buckets and groups are many."""
    out = Path(folder)
    with pytest.MonkeyPatch.context() as patch, joined("cpu") as world:
        patch.setattr(tintype.training.parallel, "BUCKET", 64)
        if parallel == "fsdp":
            patch.setattr("tintype.training.sharded.OWN_GROUP", 8)
        for objective in KINDS[parallel]:
            for name in (objective, f"{objective} begun by one"):
                torch.save(go(out / name, objective, world, parallel=parallel), out / f"{name} {world.rank}.pt")
        if parallel == "ddp":
            torch.save(by_torch(), out / f"by torch {world.rank}.pt")


def _groups(module: nn.Module) -> list[dict[str, object]]:
    """Weight decay is for matrices alone."""
    every = list(module.parameters())
    matrices, vectors = [one for one in every if one.ndim > 1], [one for one in every if one.ndim < 2]
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


def by_torch() -> dict[str, Tensor]:
    """The plain run written out with DistributedDataParallel, which takes the mean of gradients."""
    rank = torch.distributed.get_rank()
    objective = Regression(noise=0.1)
    wrapped = DistributedDataParallel(objective.parts["network"].train())
    objective.parts = {"network": wrapped}
    optimizer = torch.optim.AdamW(_groups(wrapped), betas=CONFIG.betas, weight_decay=CONFIG.weight_decay)
    for step in range(10):
        for group in optimizer.param_groups:
            group["lr"] = replace(CONFIG, **SETTINGS).rate(step)
        optimizer.zero_grad()
        batch = Numbers().batch(step * 8 + rank * 4, 4)
        objective.loss("network", batch, generator(CONFIG.seed, "network", step, rank), step=step)[0].backward()
        torch.nn.utils.clip_grad_norm_(wrapped.parameters(), CONFIG.clip_norm)
        optimizer.step()
    return {f"network {name}": value for name, value in wrapped.module.state_dict().items()}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What two processes made of each objective."""
    parallel: str = request.param
    out = tmp_path_factory.mktemp(parallel)
    for objective in KINDS[parallel]:
        go(out / f"{objective} begun by one", objective, steps=5)
    start(2, child, str(out), parallel)
    return parallel, out


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """What one process makes of each objective."""
    return {objective: go(tmp_path_factory.mktemp("alone"), objective) for objective in OBJECTIVES}


def learned(out: Path, name: str, rank: int) -> dict[str, Tensor]:
    return torch.load(out / f"{name} {rank}.pt", weights_only=True)


def test_two_processes_are_one(pair: tuple[str, Path], alone: dict[str, dict[str, Tensor]]) -> None:
    """Weights, averages, moments and metrics, after ten steps."""
    parallel, out = pair
    for objective in KINDS[parallel]:
        first, second = (learned(out, objective, rank) for rank in range(2))
        assert_close(first, alone[objective])
        metrics = first.pop("metrics")
        assert metrics.shape[0] == 10
        assert_equal(first, second)


def test_half_as_many_micro_batches_are_another_run(tmp_path: Path, alone: dict[str, dict[str, Tensor]]) -> None:
    halved = go(tmp_path, "plain", accumulate=1)
    assert not torch.allclose(alone["plain"]["network 4.weight"], halved["network 4.weight"], atol=1e-3)


def test_a_run_of_two_goes_on_as_one(
    tmp_path: Path, pair: tuple[str, Path], alone: dict[str, dict[str, Tensor]]
) -> None:
    parallel, out = pair
    for objective in KINDS[parallel]:
        assert [path.name for path in checkpoints(out / objective)] == ["step-00000005", "step-00000010"]
        assert (out / objective / "step-00000005" / "shards").exists() == (parallel == "fsdp")
        (tmp_path / objective).mkdir()
        (tmp_path / objective / "step-00000005").symlink_to(out / objective / "step-00000005")
        resumed = go(tmp_path / objective, objective)
        assert len(resumed.pop("metrics")) == 5
        assert_close(resumed, {name: value for name, value in alone[objective].items() if name != "metrics"})


def test_a_run_of_one_goes_on_as_two(pair: tuple[str, Path], alone: dict[str, dict[str, Tensor]]) -> None:
    parallel, out = pair
    for objective in KINDS[parallel]:
        resumed = learned(out, f"{objective} begun by one", 0)
        assert len(resumed.pop("metrics")) == 5
        assert_close(resumed, {name: value for name, value in alone[objective].items() if name != "metrics"})


def test_gradients_are_those_of_distributed_data_parallel(pair: tuple[str, Path]) -> None:
    parallel, out = pair
    if parallel == "ddp":
        theirs, ours = learned(out, "by torch", 0), learned(out, "plain", 0)
        assert_close({name: ours[name] for name in theirs}, theirs)


def test_shares() -> None:
    assert [list(World(rank, 3).share(6)) for rank in range(3)] == [[0, 3], [1, 4], [2, 5]]
    assert list(World().share(4)) == [0, 1, 2, 3]
    with pytest.raises(
        ValueError,
        match=r"train\.accumulate 3 cannot be shared by 2 processes; expected a multiple of 2: "
        r"--set train\.accumulate=6, with train\.batch_size divided by 2 so that",
    ):
        World(0, 2).share(3)


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(ValueError, match=r"process 2 .* no GPU of its own among 1; .*--nproc-per-node 1"),
        joined("cuda"),
    ):
        pass


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as world:
        assert world == World()
        world.wait()
