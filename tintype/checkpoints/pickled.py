"""Tensors of a `.ckpt` (what `torch.save` writes) without unpickling: its instructions are read, never obeyed.

A pickle is a program. This reader walks its instructions (`pickletools` cuts them) with a stack that can hold plain
values and descriptions of tensors. A global may be named, as Lightning names the classes of its callbacks; one that is
called must be in a short list, or the file is refused. Nothing is imported, and no tensor is read before it is wanted.
"""

import lzma
import math
import os
import pickletools
import struct
import zipfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from tintype.checkpoints.stored import Stored

LARGEST_PROGRAM = 16 * 2**20  # bytes; Stable Diffusion's has 0.3 MiB
LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a zip entry (APPNOTE 4.3.7)
ENCRYPTED = 1  # of an entry's flags (APPNOTE 4.4.4)

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True, slots=True)
class _Global:
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: torch.dtype
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor as the pickle describes it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Inert:
    """What a harmless call would have made (a numpy scalar, a set), which no one here wants to know."""


_MARK = object()
_NUMPY = ("numpy.core.multiarray.", "numpy._core.multiarray.")
_INERT_CALLS = {
    *(f"{module}{name}" for module in _NUMPY for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray", "_codecs.encode", "__builtin__.set", "builtins.set"),
}
_PLAIN = {
    *("INT", "LONG", "FLOAT", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class _Refused(Exception):
    pass


def read_program(code: bytes | BytesIO) -> object:
    """What a pickle builds, of dicts, lists, tuples, plain values and `Described` tensors. Of a stream, just as many
    bytes are read as the program has.

    Raises `ValueError` for an instruction or a call outside the list, or a program that is damaged.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(code):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except _Refused as refused:
        raise ValueError(
            f"its pickle holds {refused}, which tensors do not need and which could run code; nothing was run. If you "
            "trust where it comes from, have it converted to .safetensors there"
        ) from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its pickle is damaged ({error}); copy or download it again") from None
    raise ValueError("its pickle is cut short; copy or download it again")


class _Machine:
    """The pickle machine (Lib/pickle.py), of its instructions those that tensors need."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:  # noqa: PLR0912, PLR0915 (one case an instruction)
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(_MARK)
            case "POP":
                stack.pop()
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._popped(int(name[-1]))))
            case "APPEND":
                value = stack.pop()
                list.append(stack[-1], value)
            case "APPENDS":
                items = self._marked()
                list.extend(stack[-1], items)
            case "SETITEM":
                self._set(self._popped(2))
            case "SETITEMS":
                self._set(self._marked())
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(_Global(*str(argument).split(" ")))
            case "STACK_GLOBAL":
                module, attribute = self._popped(2)
                if not isinstance(module, str) or not isinstance(attribute, str):
                    raise ValueError("a global without a name")
                stack.append(_Global(module, attribute))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self._popped(2)
                stack.append(_called(function, arguments))
            case "BUILD":  # attributes of what lies below, say a state dict's version numbers
                stack.pop()
                if isinstance(stack[-1], _Global):
                    raise _Refused(f"state for {stack[-1]}")
            case _ if name in _PLAIN:
                stack.append(argument)
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case _:
                raise _Refused(f"the instruction {name}")

    def _popped(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("its stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _marked(self) -> list[Any]:
        """What was put on since the last mark, which goes as well."""
        place = max(index for index, item in enumerate(self.stack) if item is _MARK)
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def _set(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            dict.__setitem__(self.stack[-1], _checked_key(key), value)


def _checked_key(key: Any) -> Any:
    """Tuples within tuples, harmless to build, take forever (or the stack) to hash and to print."""
    if not isinstance(key, str | bytes | int | float | _Global | _Inert | None):
        raise ValueError(f"a key of type {type(key).__name__}")
    return key


def _storage(identity: Any) -> _Storage:
    kind, storage_type, key, _, count, *view = identity
    if view not in ([], [None]):  # a sixth before version 1.6: part of another storage, as version 0.3 wrote them
        raise ValueError("a storage within another; save it anew")
    if kind != "storage" or not isinstance(storage_type, _Global) or not isinstance(key, str | int):
        raise ValueError("a persistent object that is no storage")
    if storage_type.module != "torch" or storage_type.name not in DTYPES:
        raise _Refused(f"storage of {storage_type}")
    return _Storage(DTYPES[storage_type.name], str(key), int(count))


def _called(function: Any, arguments: tuple[Any, ...]) -> object:
    if not isinstance(function, _Global):
        raise _Refused(f"a call of a {type(function).__name__}")
    match str(function):
        case "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor":
            storage, offset, shape, stride = arguments[:4]
            return _described(storage, offset, shape, stride)
        case "torch._utils._rebuild_parameter":
            return arguments[0]
        case "collections.OrderedDict":
            pairs = list(*arguments)
            return {_checked_key(key): value for key, value in pairs}
        case "torch.Size":
            return tuple(arguments[0])
        case name if name in _INERT_CALLS:
            return _Inert()
        case name:
            raise _Refused(f"a call of {name}")


def _described(storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Described:
    """Raises `ValueError` for a tensor that would reach beyond its storage, or repeats what is there (strides of 0), by
    which a small file could ask for any amount of memory."""
    counts = (offset, *shape, *stride)
    if not isinstance(storage, _Storage) or len(shape) != len(stride) or not all(map(_counts, counts)):
        raise ValueError("a tensor of no shape")
    reach = offset + sum((side - 1) * step for side, step in zip(shape, stride, strict=True)) + 1
    if math.prod(shape) and reach > storage.count:
        raise ValueError(f"a tensor of {reach} values in a storage of {storage.count}")
    if math.prod(shape) > storage.count:
        raise ValueError(f"a tensor of {math.prod(shape)} values, repeated from a storage of {storage.count}")
    return Described(storage, offset, tuple(shape), tuple(stride))


def _counts(value: object) -> bool:
    return type(value) is int and value >= 0


def pickled_tensors(path: Path) -> dict[str, Stored]:
    """Where the tensors of a `.ckpt` lie, those at its root or under "state_dict".

    Raises `ValueError` for anything but such a file; nothing in it is run or allocated before that.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            programs = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(programs) != 1:
                raise ValueError(f"a zip with {len(programs)} pickles in it; expected one, as torch.save writes it")
            [program] = programs
            if entries[program].compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    "its pickle is compressed, which torch.save never does and a bomb would be; save it anew"
                )
            if entries[program].file_size > LARGEST_PROGRAM:
                raise ValueError(f"its pickle has {entries[program].file_size} bytes; expected fewer than 16 MiB")
            if entries[program].flag_bits & ENCRYPTED:
                raise ValueError("its pickle is encrypted; expected a file as torch.save writes it")
            root = read_program(archive.read(program))
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path} is not a whole .ckpt ({error}); copy or download it again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    described = _by_name(root)
    if not described:
        raise ValueError(f"{path} holds no tensors by name; expected a checkpoint of a network")
    folder = program.removesuffix("data.pkl")
    with path.open("rb") as file:
        return {
            name: _stored(file, entries.get(f"{folder}data/{one.storage.key}"), name, one)
            for name, one in described.items()
        }


# Before version 1.6 (August 2020): four pickles, the names of the storages, and the storages one after another

BARE_PICKLE = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # torch.serialization.MAGIC_NUMBER
OLD_PROTOCOL = 1001


def bare_tensors(path: Path) -> dict[str, Stored]:
    """As `pickled_tensors`, for a file that begins with `BARE_PICKLE`. All storages must belong to tensors by name, as
    they do in files of weights: only their sizes tell where the next one begins."""
    try:
        with path.open("rb") as file:
            file.seek(len(BARE_PICKLE))
            programs = BytesIO(file.read(LARGEST_PROGRAM))
            protocol, machine, root, keys = (read_program(programs) for _ in range(4))
            if protocol != OLD_PROTOCOL or not isinstance(machine, dict) or machine.get("little_endian") is not True:
                raise ValueError(f"its protocol is {protocol}; expected {OLD_PROTOCOL}, of a little-endian machine")
            described = _by_name(root)
            file.seek(len(BARE_PICKLE) + programs.tell())
            begins = _places(file, {one.storage for one in described.values()}, keys)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); expected a file of weights") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not described:
        raise ValueError(f"{path} holds no tensors by name; expected a checkpoint of a network")
    return {
        name: Stored(begins[one.storage.key], one.storage.dtype, one.shape, one.stride, one.offset)
        for name, one in described.items()
    }


def _places(file: BinaryIO, storages: set[_Storage], keys: object) -> dict[str, int]:
    """Where the content of each storage begins; before it lies the count of its elements."""
    order = [str(key) for key in cast("list[object]", keys)] if isinstance(keys, list) else []
    by_key = {one.key: one for one in storages}
    if len(storages) != len(order) or by_key.keys() != set(order):
        raise ValueError(f"{len(order)} storages for {len(storages)} of tensors by name; save the state_dict alone")
    begins: dict[str, int] = {}
    end = os.fstat(file.fileno()).st_size
    for storage in (by_key[key] for key in order):
        count = int.from_bytes(file.read(8), "little")
        size = storage.count * storage.dtype.itemsize
        begins[storage.key] = file.tell()
        if count != storage.count or begins[storage.key] + size > end:
            raise ValueError(f"a storage of {count} values is not {storage.count}, or cut short; download it again")
        file.seek(size, os.SEEK_CUR)
    return begins


def _by_name(root: object) -> dict[str, Described]:
    """Where there are none, those one level down, so that a caller can say what the file looks like."""
    found = _entries(_entries(root).get("state_dict", root))
    inner = {f"{name}.{key}": one for name, value in found.items() for key, one in _entries(value).items()}
    named = {name: one for name, one in found.items() if isinstance(one, Described)}
    return named or {name: one for name, one in inner.items() if isinstance(one, Described)}


def _entries(value: object) -> dict[str, object]:
    entries = cast("dict[object, object]", value) if isinstance(value, dict) else {}
    return {name: one for name, one in entries.items() if isinstance(name, str)}


def _stored(file: BinaryIO, entry: zipfile.ZipInfo | None, name: str, one: Described) -> Stored:
    size = one.storage.count * one.storage.dtype.itemsize
    has = _unlike(entry, size)
    if entry is None or has is not None:
        raise ValueError(f"{file.name}: the data of {name} {has}; expected {size}; copy or download the file again")
    begin = _content(file, entry.header_offset)
    if begin is None or begin + size > os.fstat(file.fileno()).st_size:
        raise ValueError(
            f"{file.name}: the data of {name} lies elsewhere than it says; copy or download the file again"
        )
    return Stored(begin, one.storage.dtype, one.shape, one.stride, one.offset)


def _unlike(entry: zipfile.ZipInfo | None, size: int) -> str | None:
    """What it is that keeps an entry from being so many plain bytes."""
    if entry is None:
        return "is missing"
    if entry.flag_bits & ENCRYPTED:
        return "is encrypted"
    if entry.compress_type != zipfile.ZIP_STORED:
        return "is compressed"
    return None if entry.file_size == size else f"has {entry.file_size} bytes"


def _content(file: BinaryIO, offset: int) -> int | None:
    """Where the bytes of the entry with its header here begin; None where there is no header."""
    file.seek(offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        return None
    *_, name_length, extra_length = LOCAL_HEADER.unpack(header)
    return offset + LOCAL_HEADER.size + name_length + extra_length
