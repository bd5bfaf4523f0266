"""Tensor files are opened by what is in them, and read without taking memory twice."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tintype.checkpoints.tensors import SAFETENSORS_DTYPES, open_tensors


def tensors() -> dict[str, Tensor]:
    made = {f"a.{dtype}": torch.arange(6).reshape(2, 3).to(dtype) for dtype in SAFETENSORS_DTYPES.values()}
    return made | {"odd": torch.ones(3, dtype=torch.uint8), "after": torch.randn(4), "empty": torch.zeros(0, 2)}


def test_safetensors_under_any_name(tmp_path: Path) -> None:
    path, made = tmp_path / "model.ckpt", tensors()
    save_file(made, path, metadata={"modelspec.title": "x"})
    found = open_tensors(path)
    assert found.metadata == {"modelspec.title": "x"}
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in made.items()}
    for name, tensor in made.items():
        read = found.read(name)
        assert read.dtype == tensor.dtype == found.dtype(name)
        assert torch.equal(read.view(torch.uint8), tensor.view(torch.uint8)), name


def test_what_torch_saved_under_any_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    whole = torch.randn(6, 4)
    torch.save({"state_dict": {"turned": whole.t(), "part": whole[2:4, 1::2]}}, path)
    found = open_tensors(path)
    assert torch.equal(found.read("turned"), whole.t())
    assert torch.equal(found.read("part"), whole[2:4, 1::2])


@pytest.mark.parametrize("first", range(0x70, 0x98, 8))
def test_a_header_of_any_length(tmp_path: Path, first: int) -> None:
    """Its length's first byte is 0x80 for some, as that of a pickle is for all."""
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(2)}, path, metadata={"x": "y" * (first + 256 - 86)})
    assert path.read_bytes()[0] in range(first - 8, first + 9)
    assert open_tensors(path).read("a").tolist() == [1, 1]


def test_shards_are_one(tmp_path: Path) -> None:
    for number in range(2):
        save_file({f"a{number}": torch.full((2,), float(number))}, tmp_path / f"{number}.safetensors")
    found = open_tensors([tmp_path / "0.safetensors", tmp_path / "1.safetensors"])
    assert found.read("a1").tolist() == [1, 1]
    assert found.paths == (tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    assert found.below("a").shapes == {"0": (2,), "1": (2,)}
    assert found.below("a").read("0").tolist() == [0, 0]


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4)}, tmp_path / "a.safetensors")
    found = open_tensors(tmp_path / "a.safetensors")
    found.read("a").zero_()
    assert open_tensors(tmp_path / "a.safetensors").read("a").tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a whole file of weights"),
        (b"\x80\x02}q\x00.", "is a pickle that torch.save did not write.* nothing was run"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        (b"<!doctype html><html>", "is not a whole file of weights"),
        ((2**62).to_bytes(8, "little") + b"{}", "is not a whole file of weights"),
        ((90 * 2**20).to_bytes(8, "little") + b"{" * 100, "is not a whole file of weights"),
        ((2).to_bytes(8, "little") + b"[]", "is not a whole file of weights"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_tensors(path)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.ckpt cannot be read: No such file"):
        open_tensors(tmp_path / "absent.ckpt")


def test_a_cut_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(400)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is not a whole file of weights"):
        open_tensors(path)
