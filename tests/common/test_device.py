import pytest
import torch

from tintype.common.device import usable_device


@pytest.mark.parametrize("name", ["", "gpu", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda0"])
def test_a_device_of_no_kind_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"device '{name}': expected cpu or cuda"):
        usable_device(name)


def machine(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_on_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 0)
    assert usable_device() == usable_device("cpu") == "cpu"
    for name in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match=f"device '{name}': PyTorch sees no CUDA device here; use cpu"):
            usable_device(name)


def test_on_a_machine_with_two(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 2)
    assert usable_device() == "cuda"
    assert [usable_device(name) for name in ("cpu", "cuda", "cuda:0", "cuda:1")] == ["cpu", "cuda", "cuda:0", "cuda:1"]
    with pytest.raises(ValueError, match="device 'cuda:2': this machine has 2, counted from cuda:0"):
        usable_device("cuda:2")
