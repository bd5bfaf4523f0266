"""A process of several dies; torchrun's agent starts all of them again, and they go on from the last checkpoint."""

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import start
from tiny_training import CONFIG, Numbers, Regression, assert_equal, everything
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tintype.training.loop import Report, train
from tintype.training.state import checkpoints
from tintype.training.world import joined


class Mortal(Regression):
    """One process dies at some step of its first life, as by SIGKILL."""

    def __init__(self, rank: str) -> None:
        super().__init__(noise=0.1)
        self.rank = rank

    def loss(
        self, part: str, batch: Mapping[str, Tensor], noise: torch.Generator, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
        if first and step == 7 and os.environ["RANK"] == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(part, batch, noise, step=step)


def child(folder: str, parallel: str, mortal: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    out = Path(folder)
    config = replace(CONFIG, steps=10, accumulate=2, save_every=3, keep=9, parallel=parallel)
    begun: list[int] = []

    def hook(report: Report) -> None:
        begun.append(report.state.step)

    with joined("cpu") as world:
        learned = everything(train(Mortal(mortal), Numbers(), config, out, hooks=[hook], world=world))
    torch.save(learned | {"begun": torch.tensor(begun[:1])}, out / f"{world.rank}.pt")


@pytest.mark.parametrize(("parallel", "mortal"), [("ddp", "1"), ("fsdp", "0")])
def test_a_job_survives_the_death_of_a_process(tmp_path: Path, parallel: str, mortal: str) -> None:
    """It ends, bit for bit, where one without deaths ends."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id=parallel,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=1,
        monitor_interval=0.05,
        start_method="forkserver",
    )
    elastic_launch(config, child)(str(killed), parallel, mortal)
    start(2, child, str(whole), parallel, mortal)
    assert [path.name for path in checkpoints(killed)] == [f"step-{step:08d}" for step in (3, 6, 9, 10)]
    for rank in range(2):
        one, other = (torch.load(out / f"{rank}.pt", weights_only=True) for out in (killed, whole))
        assert (one.pop("begun").tolist(), other.pop("begun").tolist()) == (([7], [1]) if rank == 0 else ([], []))
        assert_equal(one, other)
