"""What `torch.save` wrote before version 1.6, as the VGG and Inception weights of metrics: nothing of it is run."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tintype.checkpoints.tensors import open_tensors


def save(path: Path, content: object) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def test_all_kinds_of_tensors_come_back(tmp_path: Path) -> None:
    shared = torch.randn(4, 6)
    state = {
        "whole": shared,
        "row": shared[2],
        "turned": shared.T,
        "half": torch.randn(3).half(),
        "count": torch.tensor(7),
        "layer.weight": nn.Parameter(torch.randn(2, 3, 1, 1)),
        "none": torch.zeros(0, 3),
    }
    for content in (state, {"state_dict": state, "epoch": 3}):
        found = open_tensors(save(tmp_path / "model.pth", content))
        assert found.shapes.keys() == state.keys()
        for name, value in state.items():
            assert found.read(name).dtype == value.dtype
            assert torch.equal(found.read(name), value)


def test_networks_as_torchvision_saved_them(tmp_path: Path) -> None:
    state = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()
    found = open_tensors(save(tmp_path / "model.pth", state))
    assert {name: found.read(name).tolist() for name in state} == {
        name: value.tolist() for name, value in state.items()
    }


def damaged(path: Path, where: slice, by: bytes = b"") -> Path:
    content = bytearray(path.read_bytes())
    content[where] = by
    path.write_bytes(content)
    return path


def state() -> dict[str, Tensor]:
    return {"a": torch.arange(5.0), "b": torch.ones(3)}


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    for where, by, words in (
        (slice(-4, None), b"", "a storage of .* cut short"),
        (slice(-20, -12), (9).to_bytes(8, "little"), "a storage of 9 values is not 3"),
        (slice(60, None), b"", "damaged|cut short"),
    ):
        path = save(tmp_path / "model.pth", {"b": torch.ones(3)})
        with pytest.raises(ValueError, match=words):
            open_tensors(damaged(path, where, by))


def test_every_cut_is_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "model.pth", state()).read_bytes()
    for length in range(16, len(whole), 7):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.pth"):
            open_tensors(tmp_path / "cut.pth")


def test_tensors_without_a_name_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pth", {"a": torch.ones(2), "rest": [torch.ones(3)]})
    with pytest.raises(ValueError, match="2 storages for 1 of tensors by name; save the state_dict alone"):
        open_tensors(path)
    with pytest.raises(ValueError, match="holds no tensors by name"):
        open_tensors(save(tmp_path / "empty.pth", {}))


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harm",)


def test_programs_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pth"
    with path.open("wb") as file:
        for content in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"a": Harmful()}, []):
            pickle.dump(content, file, protocol=2)
    with pytest.raises(ValueError, match=r"holds a call of posix.mkdir.*nothing was run"):
        open_tensors(path)
    assert not (tmp_path / "harm").exists()
