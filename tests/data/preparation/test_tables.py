"""Captions in tables, whole and broken."""

import builtins
import importlib.util
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import counts, encoded, files_below, findings, picture, prepared, write

from tintype.data.preparation.origins import SourceOptions
from tintype.data.prepared import Prepared


def captions(out: Path) -> dict[str, list[str]]:
    data = Prepared(out)
    records = [data.record(index) for index in range(len(data))]
    return {str(record["origin"]): record.get("captions", []) for record in records}


def pictures(*names: str) -> dict[str, bytes]:
    return {name: encoded(picture(number)) for number, name in enumerate(names)}


CSV = 'file_name,text,stars\r\na.png,"red, round\nand ""sweet""",5\r\nsub/b.png,blue,4\r\n'
JSONL = '{"file_name": "a.png", "text": "red, round and \\"sweet\\"", "stars": 5}\n\n' + (
    '{"file_name": "sub/b.png", "text": "blue", "stars": 4, "vector": [1, 2]}\n'
)


def parquet(path: Path, columns: dict[str, list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_of_any_kind_says_what_pictures_show(tmp_path: Path, kind: str) -> None:
    root = write(tmp_path / "in", pictures("a.png", "sub/b.png"))
    match kind:
        case "parquet":
            rows = {"file_name": ["a.png", "sub/b.png"], "text": ['red, round and "sweet"', "blue"], "stars": [5, 4]}
            parquet(root / "metadata.parquet", rows | {"bytes": [b"x", b"y"], "vector": [[1.0], [2.0]]})
        case "tsv":
            write(root, {"metadata.tsv": "\ufeff" + CSV.replace(",", "\t").replace("red\t", "red,")})
        case "csv":
            write(root, {"metadata.csv": "\ufeff" + CSV})
        case _:
            write(root, {"metadata.jsonl": JSONL})
    result = prepared(root, tmp_path / "out")
    assert captions(tmp_path / "out") == {"a.png": ['red, round and "sweet"'], "sub/b.png": ["blue"]}
    assert counts(result) == {"picture": (2, 2, 0), "row": (2, 2, 0), "file": (1, 1, 0)}
    given = Prepared(tmp_path / "out").record(0)["given"]
    assert given == {"stars": "5" if kind in ("csv", "tsv") else 5}


def test_a_table_in_a_folder_names_the_files_of_that_folder(tmp_path: Path) -> None:
    root = write(
        tmp_path / "in", {**pictures("x/a.png", "y/a.png"), "x/metadata.jsonl": '{"file_name":"a.png","text":"one"}'}
    )
    write(root, {"y/metadata.jsonl": json.dumps({"file_name": str(root / "y" / "a.png"), "text": "two"})})
    prepared(root, tmp_path / "out")
    assert captions(tmp_path / "out") == {"x/a.png": ["one"], "y/a.png": ["two"]}


def test_a_picture_may_have_several_captions(tmp_path: Path) -> None:
    rows = [("a.png", "one"), ("a.png", "two"), ("a.png", "one"), ("b.png", ["three", "four"])]
    lines = "\n".join(json.dumps({"image": file, "captions": said}) for file, said in rows)
    root = write(tmp_path / "in", {**pictures("a.png", "b.png"), "a.txt": "beside", "all.jsonl": lines})
    result = prepared(root, tmp_path / "out")
    assert captions(tmp_path / "out") == {"a.png": ["beside", "one", "two"], "b.png": ["three", "four"]}
    sample = Prepared(tmp_path / "out")[0]
    assert (sample.caption, sample.other_captions) == ("beside", ("one", "two"))
    assert findings(tmp_path / "out") == [("all.jsonl:3", "duplicate row")]
    assert counts(result)["row"] == (4, 3, 1)


BROKEN = {
    b"p00.png,one,two,three": "too many fields",
    b"p00.png": "too few",
    b'p00.png,"never closed,x': "a quote",
    b'p00.png,"closed" too early,x': "a quote",
    b"p00.png,caf\xe9,x": "not UTF-8",
    b",without a file,x": "no file name",
}


@pytest.mark.parametrize("seed", range(3))
def test_one_broken_row_in_twenty_costs_only_itself(tmp_path: Path, seed: int) -> None:
    count, draw = 200, random.Random(seed)
    names = [f"p{number:03d}.png" for number in range(count)]
    lines = [
        f'{name},"caption of\n{name}",x'.encode() if draw.random() < 0.3 else f"{name},caption of {name},x".encode()
        for name in names
    ]
    broken = draw.sample(range(count), count // 20)
    for number in broken:
        lines[number] = draw.choice(list(BROKEN))
    root = write(
        tmp_path / "in",
        {**dict.fromkeys(names, encoded(picture())), "all.csv": b"file,caption,more\n" + b"\n".join(lines)},
    )
    result = prepared(root, tmp_path / "out", shard_size=64)
    assert counts(result) == {"picture": (200, 200, 0), "row": (200, 190, 10), "file": (1, 1, 0)}
    told = captions(tmp_path / "out")
    for number, name in enumerate(names):
        assert told[name] == ([] if number in broken else [f"caption of {name}"]), name
    reasons = [reason for _, reason in findings(tmp_path / "out")]
    assert {reason: reasons.count(reason) for reason in reasons} == {"broken row": 10, "no row": 10, "no caption": 10}


def test_rows_that_lead_nowhere_are_listed(tmp_path: Path) -> None:
    write(tmp_path, pictures("secret.png"))
    rows = ["../secret.png", str(tmp_path / "secret.png"), "absent.png", "a.png", "sub\\b.png", "c.png"]
    lines = "\n".join(json.dumps({"file_name": one, "text": "" if one == "c.png" else "said"}) for one in rows)
    more = '\n[1]\n{"file_name": 7, "text": "x"}\n{"file_name": "a.png", "text": "\\ud800"}\n{"file_name": "a.png"'
    root = write(tmp_path / "in", {**pictures("a.png", "sub/b.png", "c.png", "IMG_1.png"), "t.jsonl": lines + more})
    result = prepared(root, tmp_path / "out")
    assert findings(tmp_path / "out") == [
        ("t.jsonl:1", "row outside"),
        ("t.jsonl:2", "row outside"),
        ("t.jsonl:3", "absent file"),
        ("t.jsonl:6", "row without caption"),
        ("t.jsonl:7", "broken row"),
        ("t.jsonl:8", "broken row"),
        ("t.jsonl:9", "broken row"),
        ("t.jsonl:10", "broken row"),
        ("IMG_1.png", "no row"),
        ("IMG_1.png", "no caption"),
        ("c.png", "no caption"),
    ]
    assert counts(result) == {"picture": (4, 4, 0), "row": (10, 2, 8), "file": (1, 1, 0)}
    assert captions(tmp_path / "out") == {"IMG_1.png": [], "a.png": ["said"], "c.png": [], "sub/b.png": ["said"]}


def test_a_parquet_file_that_breaks_off_is_listed(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {**pictures("a.png"), "a.txt": "said"})
    parquet(root / "t.parquet", {"file": ["a.png"], "text": ["more"]})
    write(root, {"t.parquet": (root / "t.parquet").read_bytes()[:-20], "u.csv": "name;what\n", "v.csv": b"\xff\xfe"})
    result = prepared(root, tmp_path / "out")
    assert findings(tmp_path / "out") == [
        ("t.parquet", "broken table"),
        ("u.csv", "not used"),
        ("v.csv", "broken table"),
        ("a.png", "no row"),
    ]
    assert sum(found for found, _, _ in counts(result).values()) == files_below(root).total()


def test_columns_of_other_names_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {**pictures("a.png"), "t.csv": "bild,was\na.png,rot\n"})
    with pytest.raises(
        ValueError, match=r"--table t.csv: no column of file names among bild, was; name it with --file"
    ):
        prepared(root, tmp_path / "out", source=SourceOptions(tables=("t.csv",)))
    with pytest.raises(
        ValueError, match=r"--table u.csv: no such file in .*; expected a name of one in it, from there or"
    ):
        prepared(root, tmp_path / "out", source=SourceOptions(tables=("u.csv",)))
    prepared(root, tmp_path / "out", source=SourceOptions(file_column="bild", caption_column="Was"))
    assert captions(tmp_path / "out") == {"a.png": ["rot"]}
    for options in (SourceOptions(caption_column="nope"), SourceOptions(file_column="bild", caption_column="nope")):
        with pytest.raises(ValueError, match=r"--caption-column nope: none of 1 tables in .* has such columns"):
            prepared(root, tmp_path / "other", source=options)


def test_without_pyarrow_a_parquet_table_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "in", pictures("a.png"))
    parquet(root / "t.parquet", {"file": ["a.png"], "text": ["said"]})
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else real(name))
    monkeypatch.setattr(builtins, "__import__", _without_pyarrow(builtins.__import__))
    with pytest.raises(
        ValueError, match=r"t.parquet is a Parquet table, which needs pyarrow; .*pip install --editable '\.\[train\]'"
    ):
        prepared(root, tmp_path / "out")


def _without_pyarrow(real):
    def imported(name, *rest, **named):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *rest, **named)

    return imported


def test_a_table_is_named_from_its_source_or_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"photos/a.png": encoded(picture(1)), "photos/b.csv": "image,text\na.png,here\n", "photos/c.csv": "x,y\n"}
    root = write(tmp_path / "in", files) / "photos"
    monkeypatch.chdir(root.parent)
    for number, name in enumerate(("b.csv", "photos/b.csv", str(root / "b.csv"))):
        out = tmp_path / f"out{number}"
        prepared(root, out, source=SourceOptions(tables=(name,)))
        assert Prepared(out)[0].caption == "here"
