"""Tables that say what pictures show: CSV, TSV, JSONL and Parquet, read row by row; a broken row costs only itself."""

import csv
import importlib.util
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tintype.common.config import Json
from tintype.data.preparation.findings import Finding
from tintype.data.preparation.items import scalars, sentences

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
FILE_COLUMNS = ("file_name", "filename", "file", "image", "image_file", "image_name", "image_path", "path", "filepath")
CAPTION_COLUMNS = ("text", "caption", "captions", "prompt", "sentence", "description", "title")
LONGEST_ROW = 64  # lines that one quoted CSV row may have
CHUNK_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A file of rows; `name` is relative to SOURCE, `file` and `caption` are columns of it."""

    root: Path
    name: str
    columns: tuple[str, ...]
    file: str
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """`item` says where the row stands; `file` is as it was written."""

    item: str
    file: str
    captions: tuple[str, ...]
    given: dict[str, Json]


def open_table(root: Path, name: str, *, file: str | None, caption: str | None) -> Table | Finding:
    """Look at the columns. `file` and `caption` name them where they are not called as usual."""
    try:
        columns = _columns(root / name)
    except (OSError, UnicodeError, csv.Error) as error:
        return Finding(item=name, reason="broken table", detail=str(error))
    files = _chosen(columns, (file,) if file else FILE_COLUMNS)
    captions = _chosen(columns, (caption,) if caption else CAPTION_COLUMNS)
    if files is None or captions is None:
        lacks, flag = ("file names", "--file-column") if files is None else ("captions", "--caption-column")
        detail = f"no column of {lacks} among {', '.join(columns)}; name it with {flag}"
        return Finding(item=name, reason="not used", detail=detail)
    return Table(root=root, name=name, columns=columns, file=files, caption=captions)


def read_table(table: Table, known: Callable[[str], bool]) -> Iterator[TableRow | Finding]:
    """All rows. `known` tells whether there is a picture of this name: a quote that was never closed then costs its
    own row and not those it runs into. A file that breaks off is a finding."""
    path = table.root / table.name
    try:
        match path.suffix.lower():
            case ".parquet":
                yield from _parquet_rows(path, table)
            case ".jsonl":
                for number, line in _lines(path):
                    yield _json_row(line, f"{table.name}:{number}", table)
            case suffix:
                yield from _csv_rows(path, table, "\t" if suffix == ".tsv" else ",", known)
    except OSError as error:
        yield Finding(item=table.name, reason="broken table", detail=str(error))


def _chosen(columns: Sequence[str], names: Sequence[str]) -> str | None:
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)


def _columns(path: Path) -> tuple[str, ...]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        check_parquet(path)
        return _parquet_columns(path)
    for _, line in _lines(path):
        if suffix == ".jsonl":
            entries = _object(line)
            if isinstance(entries, dict):
                return tuple(entries)
            continue  # a broken row, which `read_table` reports
        return tuple(field.strip() for field in _fields(line.decode("utf-8-sig"), "\t" if suffix == ".tsv" else ","))
    return ()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered from 1, without line ends; empty ones left out."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line := line.rstrip(b"\r\n"):
                yield number, line


def _made(item: str, entries: dict[str, Json], table: Table) -> TableRow | Finding:
    file = entries.get(table.file)
    if not isinstance(file, str) or not file.strip():
        return Finding(item=item, reason="broken row", detail=f"no file name in column {table.file}")
    try:
        captions = sentences(entries.get(table.caption))
        file.encode()
    except UnicodeError as error:
        return Finding(item=item, reason="broken row", detail=f"not UTF-8: {error}")
    given = scalars(entries, without=(table.file, table.caption))
    return TableRow(item=item, file=file.strip(), captions=captions, given=given)


# JSONL


def _object(line: bytes) -> dict[str, Json] | str:
    """Or what is wrong with the line."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return str(error)
    return cast("dict[str, Json]", value) if isinstance(value, dict) else f"{type(value).__name__}, not an object"


def _json_row(line: bytes, item: str, table: Table) -> TableRow | Finding:
    entries = _object(line)
    return (
        Finding(item=item, reason="broken row", detail=entries)
        if isinstance(entries, str)
        else _made(item, entries, table)
    )


# CSV


def _fields(text: str, delimiter: str) -> list[str]:
    return next(csv.reader([text], delimiter=delimiter, strict=True), [])


def _csv_rows(path: Path, table: Table, delimiter: str, known: Callable[[str], bool]) -> Iterator[TableRow | Finding]:
    lines = _lines(path)
    next(lines, None)  # the header
    place = table.columns.index(table.file)

    def is_row(line: bytes) -> bool:
        try:
            fields = _fields(line.decode(), delimiter)
        except (UnicodeError, csv.Error):
            return False
        return len(fields) == len(table.columns) and known(fields[place].strip())

    waiting = deque[tuple[int, bytes]]()
    while (following := waiting.popleft() if waiting else next(lines, None)) is not None:
        number, line = following
        item = f"{table.name}:{number}"
        try:
            fields = _fields(line.decode(), delimiter)
        except UnicodeError as error:
            yield Finding(item=item, reason="broken row", detail=f"not UTF-8: {error}")
            continue
        except csv.Error as error:
            fields, taken = _longer(line, lines, waiting, delimiter, is_row)
            for _ in range(taken):
                waiting.popleft()
            if not fields:
                yield Finding(item=item, reason="broken row", detail=str(error))
                continue
        if len(fields) != len(table.columns):
            detail = f"{len(fields)} fields; expected {len(table.columns)}"
            yield Finding(item=item, reason="broken row", detail=detail)
            continue
        yield _made(item, dict(zip(table.columns, fields, strict=True)), table)


def _longer(
    line: bytes,
    lines: Iterator[tuple[int, bytes]],
    waiting: deque[tuple[int, bytes]],
    delimiter: str,
    is_row: Callable[[bytes], bool],
) -> tuple[list[str], int]:
    """The fields of a row that begins with `line`, whose quotes go on in the following lines, and how many of these it
    takes; ([], 0) for a quote that is never closed or that would run into another row."""
    text = line
    for taken in range(1, LONGEST_ROW):
        if len(waiting) < taken:
            following = next(lines, None)
            if following is None:
                break
            waiting.append(following)
        following = waiting[taken - 1][1]
        if is_row(following):
            break
        text += b"\n" + following
        try:
            return _fields(text.decode(), delimiter), taken
        except UnicodeError:
            break
        except csv.Error as error:
            if "unexpected end of data" not in str(error):
                break
    return [], 0


# Parquet


def _parquet_columns(path: Path) -> tuple[str, ...]:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_schema

    try:
        return tuple(str(name) for name in read_schema(path).names)
    except ArrowException as error:
        raise OSError(str(error)) from error


def _parquet_rows(path: Path, table: Table) -> Iterator[TableRow | Finding]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            plain = [field.name for field in file.schema_arrow if not _bulky(str(field.type))]
            for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=plain):
                for index in range(batch.num_rows):
                    number += 1
                    item = f"{table.name}:{number}"
                    try:
                        entries = cast("dict[str, Json]", batch.slice(index, 1).to_pylist()[0])
                    except UnicodeError as error:
                        yield Finding(item=item, reason="broken row", detail=f"not UTF-8: {error}")
                    else:
                        yield _made(item, entries, table)
    except ArrowException as error:
        raise OSError(str(error)) from error


def _bulky(kind: str) -> bool:
    """Pictures as bytes, vectors, and other things no record keeps."""
    return "binary" in kind or "struct" in kind or ("list" in kind and "string" not in kind)


def check_parquet(path: Path) -> None:
    """Raises `ValueError` where the library that reads Parquet is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            f"{path} is a Parquet table, which needs pyarrow; expected it installed: pip install --editable "
            "'.[train]' in the clone"
        )
