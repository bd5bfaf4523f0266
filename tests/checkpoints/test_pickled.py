"""Checkpoints that torch.save wrote, read without obeying them."""

import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tintype.checkpoints.pickled import read_program
from tintype.checkpoints.tensors import open_tensors

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


def tensors() -> dict[str, Tensor]:
    made = {f"a.{dtype}": torch.arange(-6, 6).to(dtype).reshape(3, 4) for dtype in DTYPES}
    shared = torch.randn(4, 6)
    return made | {
        "turned": shared.t(),
        "part": shared[1:3, ::2],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.randn(2)),
    }


@pytest.mark.parametrize("inside", [True, False], ids=["under state_dict", "at the root"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_are_those_torch_saved(tmp_path: Path, inside: bool, protocol: int) -> None:
    path, made = tmp_path / "model.ckpt", tensors()
    torch.save({"state_dict": made, "global_step": 7} if inside else made, path, pickle_protocol=protocol)
    found = open_tensors(path)
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in made.items()}
    for name, tensor in made.items():
        read = found.read(name)
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor), name


def test_what_lightning_keeps_beside_them_is_passed_over(tmp_path: Path) -> None:
    class ModelCheckpoint:
        pass

    state = nn.Linear(2, 3).state_dict()  # an OrderedDict with attributes of its own
    torch.save(
        {
            "epoch": 3,
            "global_step": 470000,
            "pytorch-lightning_version": "1.4.2",
            "state_dict": state,
            "callbacks": {torch.nn.Linear: {"best": np.float64(0.5), "seen": {1, 2}, "path": "a.ckpt"}},
            "optimizer_states": [
                {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4, "eps": None}]}
            ],
            "lr_schedulers": [OrderedDict(a=1), (1, 2, 3, 4), b"bytes"],
        },
        tmp_path / "lightning.ckpt",
    )
    found = open_tensors(tmp_path / "lightning.ckpt")
    assert found.shapes == {"weight": (3, 2), "bias": (3,)}
    assert torch.equal(found.read("weight"), state["weight"])


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    canary, path = tmp_path / "canary", tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"a": torch.ones(2)}, "x": Canary(canary)}, path, pickle_protocol=max(protocol, 2))
    with pytest.raises(ValueError, match=r"evil.ckpt: its pickle holds .*nothing was run"):
        open_tensors(path)
    with pytest.raises(ValueError, match="nothing was run"):
        read_program(pickle.dumps([Canary(canary)], protocol=protocol))
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists(), "the canary does nothing, so this test proves nothing"


@pytest.mark.parametrize(
    "code",
    [
        b"cposix\nsystem\n(S'touch x'\ntR.",
        b"(S'touch x'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch x'\no.",
        b"cbuiltins\neval\n\x8c\x011\x85\x81.",
        b"\x82\x01.",
        b"cos\nsystem\n}b.",
        b"ccollections\nOrderedDict\n(cos\nsystem\n\x8c\x01xtR.",
    ],
)
def test_other_ways_to_run_code_are_refused(code: bytes) -> None:
    with pytest.raises(ValueError, match=r"nothing was run|is damaged"):
        read_program(code)


@pytest.mark.parametrize(
    "code", [b"", b"\x80\x02", b".", b"e.", b"u.", b"\x85.", b"h\x07.", b"]N)a", b"\x80\x02}q\x00X"]
)
def test_damaged_programs_are_value_errors(code: bytes) -> None:
    with pytest.raises(ValueError, match=r"damaged|cut short"):
        read_program(code)


@pytest.mark.parametrize(
    "code",
    [
        b"})" + b"\x85" * 300_000 + b"K\x01s.",  # a tuple within tuples, as a key
        b"})" + b"\x94h\x00\x86" * 200 + b"K\x01s.",  # a pair of the same pair of the same pair ...
        b"ccollections\nOrderedDict\n])" + b"\x85" * 300_000 + b"K\x01\x86a\x85R.",
        b")" + b"\x85" * 300_000 + b"\x8c\x01x\x93.",
        b"(\x8c\x07storage)" + b"\x85" * 300_000 + b"\x8c\x010\x8c\x03cpuK\x01tQ.",
    ],
    ids=["deep key", "doubled key", "deep pair", "deep name", "deep storage"],
)
def test_tuples_without_end_are_neither_hashed_nor_printed(code: bytes) -> None:
    with pytest.raises(ValueError, match=r"^its pickle is damaged"):
        read_program(code)


@pytest.mark.parametrize("keep", [0, 3, 100, 400, 0.5, 0.9, 0.999])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "model.ckpt"
    torch.save(tensors(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"model\.ckpt is not a whole"):
        open_tensors(path)


def rewritten(path: Path, change: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in (entries | change).items():
            archive.writestr(name, content)


def test_tensors_that_reach_beyond_their_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.ones(4)}, path)
    rewritten(path, {"model/data/0": b"\0" * 12})
    with pytest.raises(ValueError, match="the data of a has 12 bytes; expected 16"):
        open_tensors(path)
    torch.save({"a": torch.ones(4)}, path)
    with zipfile.ZipFile(path) as archive:
        program = archive.read("model/data.pkl")
    assert program.count(b"K\x04\x85") == 1
    rewritten(path, {"model/data.pkl": program.replace(b"K\x04\x85", b"K\x05\x85")})
    with pytest.raises(ValueError, match="5 values in a storage of 4"):
        open_tensors(path)
    halves = program.replace(b"K\x04\x85", b"G" + struct.pack(">d", 4.0) + b"\x85")
    rewritten(path, {"model/data.pkl": halves})
    with pytest.raises(ValueError, match="a tensor of no shape"):
        open_tensors(path)


def test_a_tensor_that_repeats_one_value_is_refused(tmp_path: Path) -> None:
    """Else a file of a few kilobytes asks for as much memory as it likes."""
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.ones(1).expand(2**20, 2**20)}, path)
    assert path.stat().st_size < 4096
    with pytest.raises(ValueError, match=r"1099511627776 values, repeated from a storage of 1\)"):
        open_tensors(path)
    torch.save({"a": torch.ones(6).as_strided((2, 3), (1, 2))}, path)  # as many as there are is any order of them
    assert open_tensors(path).shapes == {"a": (2, 3)}


CENTRAL = struct.Struct("<4s6H3I5H2I")  # the directory's header of an entry (APPNOTE 4.3.12)


def entry_changed(path: Path, entry: str, **changes: int) -> None:
    """The directory's word on an entry, not the entry."""
    content = bytearray(path.read_bytes())
    place = content.rindex(entry.encode()) - CENTRAL.size
    fields = list(CENTRAL.unpack_from(content, place))
    assert fields[0] == b"PK\1\2"
    for name, value in changes.items():
        fields[{"flags": 3, "method": 4, "offset": 16}[name]] = value
    CENTRAL.pack_into(content, place, *fields)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("entry", "changes", "message"),
    [
        ("model/data/0", {"offset": 2**31}, "the data of a lies elsewhere than it says"),
        ("model/data/0", {"offset": 1}, "the data of a lies elsewhere than it says"),
        ("model/data/0", {"flags": 1}, "the data of a is encrypted"),
        ("model/data/0", {"method": zipfile.ZIP_DEFLATED}, "the data of a is compressed"),
        ("model/data.pkl", {"offset": 2**31}, "is not a whole .ckpt"),
        ("model/data.pkl", {"flags": 1}, "its pickle is encrypted"),
        ("model/data.pkl", {"method": zipfile.ZIP_LZMA}, "its pickle is compressed"),
    ],
)
def test_a_directory_that_lies_is_refused(entry: str, changes: dict[str, int], message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.ones(4)}, path)
    entry_changed(path, entry)
    assert open_tensors(path).shapes == {"a": (4,)}
    entry_changed(path, entry, **changes)
    with pytest.raises(ValueError, match=message):
        open_tensors(path)


def test_data_that_would_end_beyond_the_file_is_refused(tmp_path: Path) -> None:
    """Its header is there, and its length is told by nothing but the directory."""
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.ones(4096)}, path)
    end = path.read_bytes().rindex(b"PK\3\4")  # of a small entry after it
    entry_changed(path, "model/data/0", offset=end)
    with pytest.raises(ValueError, match="the data of a lies elsewhere than it says"):
        open_tensors(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.ones(4)}, path)
    with zipfile.ZipFile(path) as archive:
        program = archive.read("model/data.pkl")
    rewritten(path, {"model/data.pkl": program}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="its pickle is compressed"):
        open_tensors(path)
    rewritten(path, {"model/data.pkl": program + b"\0" * (17 * 2**20)})
    with pytest.raises(ValueError, match="expected fewer than 16 MiB"):
        open_tensors(path)


def test_reading_maps_the_file_and_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.ones(4)}, path)
    before = path.read_bytes()
    open_tensors(path).read("a").zero_()
    assert path.read_bytes() == before
