"""Processes as torchrun starts them, with the variables it sets."""

import multiprocessing
import os
import socket
from collections.abc import Callable

import torch

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["torch._dynamo", "tintype.training.loop"])  # so that a child starts in milliseconds


def start(count: int, target: Callable[..., None], *arguments: object) -> None:
    """Run `target(*arguments)` in so many processes that know of each other, and wait for them to succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [FORK.Process(target=_child, args=(rank, count, port, target, *arguments)) for rank in range(count)]
    for process in children:
        process.start()
    for process in children:
        process.join(600)
        assert process.exitcode == 0


def _child(rank: int, count: int, port: int, target: Callable[..., None], *arguments: object) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    target(*arguments)
