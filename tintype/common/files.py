"""Files that appear whole or not at all, and tensors in safetensors files."""

import fcntl  # Linux and macOS, which is where tintype trains
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:  # the server holds its folder before torch is there
    import torch
    from torch import Tensor

METADATA_KEY = "tintype"
LONGEST_NAME = 240  # bytes; file systems take 255, and `whole_file` needs some for the name it writes under


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed to disk and renamed, on error removed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Generator[Path]:
    """As `whole_file`, for a folder of files. One of that name is an error, or with `replace` gives way as a whole, so
    that no reader finds a mixture of both."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        for file in temporary.rglob("*"):
            flush(file)
        flush(temporary)
        if replace and path.exists():
            _exchange(temporary, path)
        else:
            os.rename(temporary, path)
        flush(path.parent)
    finally:
        remove_folder(temporary)


def _exchange(new: Path, old: Path) -> None:
    """Give `new` the name of `old`, which is removed last: nothing is lost if this fails or the process dies."""
    aside = Path(tempfile.mkdtemp(prefix=f".{old.name}.", suffix=".tmp", dir=old.parent))
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except OSError:
        os.rename(aside, old)
        raise
    shutil.rmtree(aside)


def remove_folder(path: Path) -> None:
    """Remove a folder of files and folders; absent is fine. It loses its name first, so no half of it is ever seen."""
    if not path.exists():
        return
    if not path.name.startswith("."):
        path = path.rename(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    shutil.rmtree(path)


@contextmanager
def reserved(folder: Path, *, what: str = "a run") -> Generator[None]:
    """Keep others of the kind `what` out of a folder, until this one ends in whatever way. Raises `ValueError` when one
    is there."""
    with (folder / ".lock").open("a") as file:  # it stays: if it were removed, two could lock two files of this name
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{what} is going on in {folder}; wait for its end, or name another folder") from error
        yield


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_tensors(
    path: Path, tensors: "Mapping[str, Tensor]", metadata: object = None, *, texts: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; `metadata` (anything JSON can hold) travels in its header, or `texts` as they are.
    Raises `OSError` when the disk does not take it."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as temporary:
        header = {} if metadata is None else {METADATA_KEY: json.dumps(metadata)}
        try:
            save_file(contiguous, temporary, metadata=dict(texts or header))
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(f"{path} cannot be written ({error})") from error


def load_tensors(
    path: Path, *, dtype: "torch.dtype | None" = None, names: Sequence[str] | None = None
) -> "dict[str, Tensor]":
    """All tensors of a safetensors file, or those of these names. Raises `ValueError` when it is unreadable or cut
    short, or has none of a name."""
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}
    if dtype is None:
        return tensors
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def load_metadata(path: Path) -> object:
    """What `save_tensors` was given as `metadata`, or None. Reads the header only.

    Raises `ValueError` when the file is unreadable or cut short, or its metadata is not JSON.
    """
    with _opened(path) as file:
        text = (file.metadata() or {}).get(METADATA_KEY, "null")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: {METADATA_KEY!r} in its header is not JSON ({error}); expected a file written by tintype; "
            "copy or download it again"
        ) from error


@contextmanager
def _opened(path: Path) -> Generator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); expected a header and all its tensors; "
            "copy or download it again"
        ) from error
