"""`tintype prepare`, as a user meets it."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from sources import counts_of, encoded, files_below, picture, tarred, write

from tintype.apps.cli import DONE, FAILED, USAGE, main
from tintype.data.prepared import Prepared


def bomb(side: int = 30_000) -> bytes:
    """A real PNG of side x side white pixels, one bit each: 110 KB that become 2.7 GB of RGB."""
    rows = zlib.compressobj(1)
    row = b"\0" + b"\xff" * (-(-side // 8))
    data = b"".join(rows.compress(row * 100) for _ in range(side // 100)) + rows.flush()
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0), b"IDAT" + data, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks
    )


def rough_folder(root: Path) -> Path:
    """A hundred pictures: the table has a broken row in twenty, four JPEGs are cut, one PNG is a bomb."""
    lines, files = ["file_name,text"], dict[str, bytes | str]()
    for number in range(100):
        name = f"{number:03d}.jpg"
        content = encoded(picture(number, width=64, height=64), "JPEG")
        files[name] = content[: len(content) * 2 // 3] if number % 25 == 7 else content
        lines.append(f'{name},"never closed' if number % 20 == 3 else f"{name},number {number}")
    return write(root, {**files, "bomb.png": bomb(), "captions.csv": "\n".join(lines)})


def test_a_rough_folder_is_prepared_and_all_of_it_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = rough_folder(tmp_path / "in"), tmp_path / "out"
    assert main(["prepare", str(root), str(out), "--captions", "given", "--shard-size", "30"]) == DONE
    said = capsys.readouterr()
    assert said.err == ""
    assert f"{out}: 96 samples in 4 shards (from images)" in said.out
    assert "picture        101 found        96 kept         5 left out" in said.out
    assert "row            100 found        95 used         5 left out" in said.out
    report = json.loads((out / "report.json").read_text())
    assert report["left_out"] == {"cut short": 4, "too many pixels": 1, "broken row": 5}
    assert report["noted"] == {"no caption": 5, "no row": 6 - 1}
    listed = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert {one["item"] for one in listed if one["reason"] == "cut short"} == {
        "007.jpg",
        "032.jpg",
        "057.jpg",
        "082.jpg",
    }
    assert {one["item"] for one in listed if one["reason"] == "too many pixels"} == {"bomb.png"}
    assert {one["item"] for one in listed if one["reason"] == "broken row"} == {
        f"captions.csv:{number + 2}" for number in range(3, 100, 20)
    }
    data = Prepared(out)
    told = {str(record["origin"]): record.get("caption") for record in map(data.record, range(len(data)))}
    cut = range(7, 100, 25)
    assert told == {
        f"{number:03d}.jpg": None if number % 20 == 3 else f"number {number}"
        for number in range(100)
        if number not in cut
    }
    assert sum(found for found, _, _ in counts_of(report).values()) == files_below(root).total() + 100  # and rows


def test_shards_one_of_them_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = {
        f"{number}.{kind}": encoded(picture(number)) if kind == "png" else "said"
        for number in range(6)
        for kind in ("png", "txt")
    }
    whole = tarred(members)
    root = write(tmp_path / "in", {"0.tar": whole, "1.tar": whole[: len(whole) // 3]})
    assert main(["prepare", str(root), str(tmp_path / "out"), "--json"]) == DONE
    told = json.loads(capsys.readouterr().out)
    assert told["noted"]["shard cut short"] == 1
    assert 6 < told["samples"] < 12
    assert told["samples"] == len(Prepared(tmp_path / "out")) == told["counts"]["picture"]["used"]


def test_a_damaged_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "in", {f"{number}.png": encoded(picture(number)) for number in range(4)})
    out = tmp_path / "out"
    assert main(["prepare", str(root), str(out), "--shard-size", "2", "--size", "8", "--format", "jpg"]) == DONE
    capsys.readouterr()
    assert main(["prepare", "--verify", str(out)]) == DONE
    assert capsys.readouterr().out == "2 shards, 4 samples: all good\n"
    content = bytearray((out / "00001.tar").read_bytes())
    content[1000] ^= 1
    (out / "00001.tar").write_bytes(content)
    assert main(["prepare", "--verify", str(out)]) == FAILED
    assert capsys.readouterr().out.splitlines() == [
        f"{out / '00001.tar'}: its checksum is another",
        "2 shards, 4 samples: 1 damaged",
    ]
    assert main(["prepare", "--verify", str(out), "--json"]) == FAILED
    assert json.loads(capsys.readouterr().out)["damaged"] == {"00001.tar": "its checksum is another"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "out"], "nowhere is no folder; expected one with pictures"),
        (["."], "no OUT; expected a folder to prepare into"),
        (["--verify", ".", "out"], "--verify checks one prepared folder; leave out OUT"),
        (["--verify", "."], "is not a prepared data set"),
        (["a", "b", "--size", "0"], "size 0: expected 1 to 8192"),
        (["a", "b", "--shard-size", "0"], "shard size 0"),
    ],
)
def test_what_cannot_be_prepared_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *arguments]) == USAGE
    assert words in capsys.readouterr().err


def test_flags_need_no_torch() -> None:
    code = "import sys; from tintype.apps.cli import build_parser; build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_where_nothing_is_kept_the_command_fails_and_may_be_given_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "in", {"a.png": encoded(picture(1)), "a.txt": "small"})
    command = ["prepare", str(root), str(tmp_path / "out"), "--min-size"]
    for more in ([], ["--json"]):
        assert main([*command, "512", *more]) == FAILED
        said = capsys.readouterr()
        assert said.err == f"tintype prepare: nothing in {root} can be used, so {tmp_path / 'out'} has no samples\n"
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["left_out"] == {"too small": 1, "caption of picture left out": 1}
        assert counts_of(report) == {"picture": (1, 0, 1), "caption": (1, 0, 1)}
    assert main([*command, "8"]) == DONE
    assert f"{tmp_path / 'out'}: 1 sample in 1 shard (from images)" in capsys.readouterr().out
