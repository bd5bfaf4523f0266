"""Two processes that share the micro-batches of each step are one process with the same settings."""

import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import CONFIG, Numbers, Regression, assert_equal, everything, run
from torch import Tensor

from tintype.training.loop import train
from tintype.training.state import checkpoints
from tintype.training.world import World, joined

SPAWN = multiprocessing.get_context("spawn")


def child(rank: int, port: int, out: str, answers: str) -> None:
    """What torchrun starts, with the variables it sets."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    config = replace(CONFIG, steps=10, batch_size=4, accumulate=2, save_every=5)
    with joined("cpu") as world:
        assert world == World(rank, 2)
        seen: list[int] = []
        objective = Regression(noise=0.1)
        state = train(
            objective,
            Numbers(),
            config,
            Path(out),
            hooks=[lambda report: seen.append(report.state.step)],
            world=world,
        )
        assert seen == (list(range(1, 11)) if rank == 0 else [])
    torch.save(everything(state), f"{answers}/{rank}.pt")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor], dict[str, Tensor]]:
    """The folder of a run of two processes, and what each of them had learned."""
    out, answers = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("answers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [SPAWN.Process(target=child, args=(rank, port, str(out), str(answers))) for rank in range(2)]
    for process in children:
        process.start()
    for process in children:
        process.join(600)
        assert process.exitcode == 0
    first, second = (torch.load(answers / f"{rank}.pt", weights_only=True) for rank in range(2))
    return out, first, second


def test_two_processes_are_one(tmp_path: Path, pair: tuple[Path, dict[str, Tensor], dict[str, Tensor]]) -> None:
    _, first, second = pair
    assert_equal(first, second)
    (tmp_path / "half").mkdir()
    alone = everything(run(tmp_path, steps=10, batch_size=4, accumulate=2))
    halved = everything(run(tmp_path / "half", steps=10, batch_size=4, accumulate=1))
    for name, value in alone.items():
        assert torch.allclose(first[name], value, rtol=1e-6, atol=1e-7), name
    assert not torch.allclose(first["network 4.weight"], halved["network 4.weight"], atol=1e-3)


def test_a_run_of_two_goes_on_as_one(tmp_path: Path, pair: tuple[Path, dict[str, Tensor], dict[str, Tensor]]) -> None:
    out, first, _ = pair
    assert [path.name for path in checkpoints(out)] == ["step-00000005", "step-00000010"]
    (tmp_path / "step-00000005").symlink_to(out / "step-00000005")
    resumed = everything(run(tmp_path, steps=10, batch_size=4, accumulate=2))
    for name, value in first.items():
        assert torch.allclose(resumed[name], value, rtol=1e-6, atol=1e-7), name


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
