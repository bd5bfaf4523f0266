import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tintype.common.files import load_metadata, load_tensors, remove_folder, save_tensors, whole_file, whole_folder

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.tensor([1, -2], dtype=torch.int64)}


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_whole_file_is_not_there_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == tmp_path  # the same disk, so that the rename is one act
    assert path.read_text() == "half"
    assert listing(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write()
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["a.txt"]


def test_an_error_leaves_no_folder(tmp_path: Path) -> None:
    def write() -> None:
        with whole_folder(tmp_path / "run") as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "a.txt").write_text("half")
            assert not (tmp_path / "run").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert listing(tmp_path) == []


def test_a_whole_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "run") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a.txt").write_text("whole")
        (folder / "b.txt").write_text("too")
    assert listing(tmp_path) == ["run"]
    assert listing(tmp_path / "run") == ["b.txt", "inner"]
    assert (tmp_path / "run" / "inner" / "a.txt").read_text() == "whole"


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("old")

    def write() -> None:
        with whole_folder(tmp_path / "run") as folder:
            (folder / "a").write_text("new")

    with pytest.raises(OSError, match="not empty"):
        write()
    assert listing(tmp_path) == ["run"]
    assert listing(tmp_path / "run") == ["precious"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "file"):
            pass
        with whole_folder(tmp_path / "folder"):
            pass
        assert os.umask(umask) == umask  # asking for it did not change it
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


def test_remove_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    folder = tmp_path / "run"
    (folder / "inner" / "deeper").mkdir(parents=True)
    (folder / "inner" / "a").write_text("")
    (folder / "link").symlink_to(outside)
    remove_folder(folder)
    remove_folder(folder)  # absent is fine
    assert listing(tmp_path) == ["outside"]
    assert listing(outside) == ["kept"]


def test_a_folder_loses_its_name_before_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        assert not (tmp_path / "run").exists()
        raise OSError("killed here")

    for _ in range(2):  # twice: what the first left behind is not in the way
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "a").write_text("")
        with monkeypatch.context() as patch:
            patch.setattr("tintype.common.files.shutil.rmtree", fail)
            with pytest.raises(OSError, match="killed here"):
                remove_folder(tmp_path / "run")
    assert all(name.startswith(".run.") and name.endswith(".tmp") for name in listing(tmp_path))


@pytest.mark.parametrize("metadata", [None, {"kind": "unet", "config": {"mult": [1, 2], "ü": "é"}}, [1, "a"], "text"])
def test_tensors_come_back_with_their_metadata(tmp_path: Path, metadata: object) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, metadata)
    back = load_tensors(path)
    assert back.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert back[name].dtype == value.dtype
        assert torch.equal(back[name], value)
    assert load_metadata(path) == metadata


def test_channels_last_tensors_and_dtype(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_tensors(path, {"w": weight})
    assert torch.equal(load_tensors(path)["w"], weight)
    assert load_tensors(path, dtype=torch.float16)["w"].dtype == torch.float16


def test_every_cut_of_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    save_tensors(tmp_path / "whole.safetensors", TENSORS)
    content = (tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.safetensors is not a whole safetensors file"):
            load_tensors(path)


@pytest.mark.parametrize(
    "content", [b"\0" * 64, b"\xff" * 64, b"PK\x03\x04 a zip file, or so it says", b"{}", b"\x02\0\0\0\0\0\0\0{]"]
)
def test_garbage_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.safetensors"
    path.write_bytes(content)
    for load in (load_tensors, load_metadata):
        with pytest.raises(ValueError, match=r"garbage\.safetensors is not a whole safetensors file"):
            load(path)


def test_an_absent_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.safetensors"):
        load_tensors(tmp_path / "nowhere.safetensors")


def test_foreign_safetensors_have_no_metadata(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "foreign.safetensors")
    assert load_metadata(tmp_path / "foreign.safetensors") is None


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one leaves its name last of all, and comes back when the new one cannot have it."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("1")
    rename, done = os.rename, []

    def fail_once(source: Path, target: Path) -> None:
        if target == path and not done:
            done.append(source)
            raise OSError("Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(OSError, match="Input/output"), whole_folder(path, replace=True) as folder:
        (folder / "new").write_text("2")
    assert [entry.name for entry in path.iterdir()] == ["old"]
    with whole_folder(path, replace=True) as folder:
        (folder / "new").write_text("2")
    assert [entry.name for entry in path.iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000])
def test_metadata_that_is_not_json_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_file(TENSORS, path, metadata={"tintype": text})
    with pytest.raises(ValueError, match=r"odd\.safetensors: 'tintype' in its header is not JSON"):
        load_metadata(path)


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is asked of the system, in order: (flush, name), (rename, new name). Temporary names are "new"."""
    found: list[tuple[str, str]] = []

    def told(path: str) -> str:
        return "new" if path.endswith(".tmp") else os.path.basename(path)

    opened: dict[int, str] = {}
    system_open = os.open

    def open_(path: Path, *rest: int) -> int:
        descriptor = system_open(path, *rest)
        opened[descriptor] = told(str(path))
        return descriptor

    def fsync(descriptor: int) -> None:
        found.append(("flush", opened[descriptor]))

    def renaming(original: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def rename(old: Path, new: Path) -> None:
            found.append(("rename", told(str(new))))
            original(old, new)

        return rename

    monkeypatch.setattr("tintype.common.files.os.open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, renaming(getattr(os, name)))
    return found


def test_bytes_are_on_the_disk_before_a_file_has_its_name(tmp_path: Path, acts: list[tuple[str, str]]) -> None:
    """Else a machine that stops at once leaves the name with nothing in it; and then the name is, in its folder."""
    with whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("all")
    assert acts == [("flush", "new"), ("rename", "a.txt"), ("flush", tmp_path.name)]


def test_all_of_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path, acts: list[tuple[str, str]]) -> None:
    with whole_folder(tmp_path / "step") as temporary:
        (temporary / "shards").mkdir()
        for name in ("a.txt", "shards/b.txt"):
            (temporary / name).write_text("all")
    before = {("flush", "a.txt"), ("flush", "shards"), ("flush", "b.txt"), ("flush", "new")}
    assert set(acts[:4]) == before
    assert acts[4:] == [("rename", "step"), ("flush", tmp_path.name)]
