"""What ends a run from outside: a disk that is full, a folder that goes. It says so, and loses nothing."""

import errno
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_training import assert_equal, everything, run

from tintype.training.hooks import Log
from tintype.training.loop import Hook, Report
from tintype.training.state import checkpoints

SETTINGS = {"save_every": 2, "keep": 1}


def after(step: int, act: Callable[[], object]) -> Hook:
    def hook(report: Report) -> None:
        if report.state.step == step:
            act()

    return hook


@contextmanager
def restored_limit() -> Generator[None]:
    """Of the size of files, which stands for that of the disk: writing beyond it is an error of the system's."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize(("size", "file"), [(100, "network.safetensors"), (3000, "train.pt")])
def test_a_full_disk(tmp_path: Path, size: int, file: str) -> None:
    """The checkpoint before is whole and alone, and the run goes on from it once there is room."""
    (tmp_path / "whole").mkdir()
    whole = everything(run(tmp_path / "whole", save_every=12))
    out = tmp_path / "out"
    out.mkdir()
    with restored_limit(), pytest.raises(OSError, match=file) as error:
        run(out, **SETTINGS, hooks=[after(3, lambda: limit(size))])
    assert str(error.value).startswith(f"stopped after step 4: {out}/.step-00000004.")
    assert "cannot be written" in str(error.value)
    assert str(error.value).endswith(f"; the last good checkpoint is {out / 'step-00000002'}")
    assert os.listdir(out) == ["step-00000002"]
    assert_equal(everything(run(out, **SETTINGS)), whole)


@pytest.mark.parametrize(
    ("steps", "said"), [(3, "after step 3; the same command goes on from .*0002"), (1, "after step 1; .* begins anew")]
)
def test_an_interrupt_says_what_goes_on(tmp_path: Path, steps: int, said: str) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    settings = SETTINGS if steps > 2 else SETTINGS | {"save_every": 5}
    with pytest.raises(KeyboardInterrupt, match=said):
        run(tmp_path, **settings, hooks=[after(steps, interrupt)])


def test_a_full_disk_under_the_log(tmp_path: Path) -> None:
    """A line that was cut short gives way when the run goes on."""
    path = tmp_path / "log.jsonl"
    hooks = [Log(path, every=1, last=12), after(4, lambda: limit(path.stat().st_size + 20))]
    with (
        restored_limit(),
        pytest.raises(OSError, match=r"stopped after step 5: .*too large; the last good checkpoint is .*0004$"),
    ):
        run(tmp_path, save_every=4, hooks=hooks)
    assert not path.read_text().endswith("\n")
    run(tmp_path, save_every=4, hooks=[Log(path, every=1, last=12)])
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == [
        f'{{"step": {step}' for step in range(1, 13)
    ]


def test_the_folder_is_gone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(OSError, match=rf"stopped after step 4: .*No such file.*; there is no checkpoint in {out}$"):
        run(out, **SETTINGS, hooks=[after(3, lambda: shutil.rmtree(out))])
    assert not out.exists()


def test_the_disk_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with pytest.raises(OSError, match=r"stopped after step 4: .*Read-only file system; the last good .*step-00000002$"):
        run(tmp_path, **SETTINGS, hooks=[after(3, lambda: monkeypatch.setattr(tempfile, "mkdtemp", refuse))])
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002"]


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    def replace() -> None:
        path.unlink()
        path.mkdir()

    with pytest.raises(OSError, match=r"stopped after step 4: .*Is a directory.*; the last good .*step-00000004$"):
        run(tmp_path, **SETTINGS, hooks=[Log(path, every=1, last=12), after(3, replace)])


def test_who_reads_the_progress_line_may_go(tmp_path: Path) -> None:
    def leave() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(tmp_path, hooks=[after(3, leave)])
