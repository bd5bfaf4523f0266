"""Tar shards as WebDataset and img2dataset write them, and what is cut or damaged."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image
from sources import bytes_of, counts, encoded, findings, picture, prepared, tarred, write

from tintype.data.preparation.origins import SourceOptions
from tintype.data.preparation.processing import PictureOptions
from tintype.data.prepared import Prepared


def img2dataset(count: int = 4, first: int = 0) -> dict[str, bytes | str]:
    """The members of one shard, as img2dataset names them."""
    members: dict[str, bytes | str] = {}
    for number in range(first, first + count):
        key = f"{number:09d}"
        told = {"caption": f"number {number}", "url": f"https://x.org/{number}", "key": key, "error_message": None}
        members[f"{key}.jpg"] = encoded(picture(number, width=64, height=48), "JPEG")
        members[f"{key}.json"] = json.dumps(told | {"status": "success", "width": 64, "exif": "{}"})
        members[f"{key}.txt"] = f"number {number}"
    return members


def test_img2dataset_s_folder_is_read_as_it_is(tmp_path: Path) -> None:
    shards = {f"{number:05d}": img2dataset(4, 4 * number) for number in range(2)}
    files: dict[str, bytes | str] = {f"{name}.tar": tarred(members) for name, members in shards.items()}
    files |= {f"{name}.parquet": b"not read" for name in shards}
    files |= {f"{name}_stats.json": json.dumps({"successes": 4}) for name in shards}
    result = prepared(write(tmp_path / "in", files), tmp_path / "out", shard_size=3)
    assert result.info.options["kind"] == "shards"
    assert counts(result) == {"picture": (8, 8, 0), "caption": (8, 8, 0), "record": (8, 8, 0), "file": (6, 6, 0)}
    assert findings(tmp_path / "out") == []
    data = Prepared(tmp_path / "out")
    assert [data[index].caption for index in range(8)] == [f"number {number}" for number in range(8)]
    assert data.record(5)["given"] == {
        "url": "https://x.org/5", "key": "000000005", "status": "success", "width": 64, "exif": "{}",
    }  # fmt: skip
    assert data.record(5)["origin"] == "00001.tar/000000005.jpg"
    shard = (tmp_path / "out" / "00001.tar").read_bytes()
    assert shards["00001"]["000000005.jpg"] in shard


@pytest.mark.parametrize("where", ["picture", "record", "between", "header", "damaged header", "no end"])
def test_of_a_shard_cut_short_all_before_the_cut_is_used(tmp_path: Path, where: str) -> None:
    members = img2dataset(4)
    whole = tarred(members)
    before = [content if isinstance(content, bytes) else content.encode() for content in list(members.values())[:9]]
    start = sum(512 + -(-len(content) // 512) * 512 for content in before)  # of the fourth picture's header
    size = len(members["000000003.jpg"])
    record = start + 512 + -(-size // 512) * 512
    cut = {
        "picture": whole[: start + 512 + size // 2],
        "record": whole[: record + 512 + 20],
        "between": whole[:start],
        "header": whole[: start + 100],
        "damaged header": whole[:start] + b"\x55" * 512 + whole[start + 512 :],
        "no end": whole[: record + 2048],
    }[where]
    root = write(tmp_path / "in", {"00000.tar": cut, "00000_stats.json": json.dumps({"successes": 4})})
    result = prepared(root, tmp_path / "out")
    kept = 4 if where in ("record", "no end") else 3
    assert len(Prepared(tmp_path / "out")) == kept
    expected = {
        "picture": [("00000.tar/000000003.jpg", "cut short")],
        "record": [("00000.tar/000000003.json", "record cut short"), ("00000.tar/000000003.jpg", "no caption")],
    }.get(where, [])
    assert sorted(findings(tmp_path / "out")) == sorted([*expected, ("00000.tar", "shard cut short")])
    lines = [json.loads(line) for line in (tmp_path / "out" / "report.jsonl").read_text().splitlines()]
    assert [one["detail"] for one in lines if one["reason"] == "shard cut short"] == [
        "00000_stats.json counts 4 pictures in the whole shard"
    ]
    assert counts(result)["picture"] == (kept + (where == "picture"), kept, int(where == "picture"))


def test_members_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    whole = encoded(picture())
    members = [
        ("a.png", whole), ("a.txt", "first"), ("a.jpg", whole), ("a.npy", b"x"),
        ("b.txt", "no picture"), ("b.json", "{}"),
        ("c.png", whole), ("c.json", "[1]"), ("c.cls", "3"),
        ("../d.png", whole), ("../d.txt", b"\xff"), ("../d.cls", "many"),
        ("a.png", whole), ("a.txt", "again"),
        ("e.png", b"no picture"), ("e.mask.png", whole),
    ]  # fmt: skip
    root = write(tmp_path / "in", {"s.tar": tarred(members), "broken.tar": b"no tar at all", "list.csv": "x"})
    result = prepared(root, tmp_path / "out")
    assert sorted(findings(tmp_path / "out")) == sorted(
        [
            ("broken.tar", "broken shard"),
            ("list.csv", "not used"),
            ("s.tar/a.jpg", "duplicate key"),
            ("s.tar/a.npy", "not used"),
            ("s.tar/b.txt", "caption without picture"),
            ("s.tar/b.json", "record without picture"),
            ("s.tar/c.json", "broken record"),
            ("s.tar/../d.txt", "caption not UTF-8"),
            ("s.tar/../d.cls", "broken class"),
            ("s.tar/../d.png", "no caption"),
            ("s.tar/a.png", "duplicate key"),
            ("s.tar/a.txt", "duplicate caption"),
            ("s.tar/e.png", "not a picture"),
            ("s.tar/e.png", "mask of picture left out"),
        ]
    )
    assert sum(found for found, _, _ in counts(result).values()) == len(members) + 3
    data = Prepared(tmp_path / "out")
    assert [(data[i].caption, data[i].label) for i in range(3)] == [("first", None), (None, 3), (None, None)]


@pytest.mark.parametrize("said", ["99999999999999999999", "true", "[" * 100_000, "-1", "1.5"], ids=lambda one: one[:9])
def test_a_class_that_is_no_class_costs_only_itself(tmp_path: Path, said: str) -> None:
    root = write(tmp_path / "in", {"s.tar": tarred({"a.png": encoded(picture()), "a.cls": said})})
    result = prepared(root, tmp_path / "out")
    assert ("s.tar/a.cls", "broken class") in findings(tmp_path / "out")
    assert counts(result)["picture"] == (1, 1, 0)
    assert Prepared(tmp_path / "out")[0].label is None


@pytest.mark.parametrize("hostile", ["sparse", "backwards"])
def test_a_header_that_would_break_the_reader_is_where_its_shard_ends(tmp_path: Path, hostile: str) -> None:
    """Numbers in a header that tarfile takes as they are: no number at all, or a step back for ever."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a.png", "b.png"):
            content, info = encoded(picture()), tarfile.TarInfo(name)
            info.size = len(content)
            info.pax_headers = {"GNU.sparse.map": "none"} if (name, hostile) == ("b.png", "sparse") else {}
            tar.addfile(info, io.BytesIO(content))
    whole = bytearray(stream.getvalue())
    if hostile == "backwards":
        start = whole.rindex(b"b.png")
        header = whole[start : start + 512]
        header[124:136] = (256**12 - 512).to_bytes(12, "big")  # a size of -512 bytes
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}".encode() + b"\0 "
        whole[start : start + 512] = header
    result = prepared(write(tmp_path / "in", {"s.tar": bytes(whole)}), tmp_path / "out")
    assert ("s.tar", "shard cut short") in findings(tmp_path / "out")
    assert counts(result)["picture"] == (1, 1, 0)


def test_a_first_header_beyond_all_memory_is_a_broken_shard(tmp_path: Path) -> None:
    header = bytearray(tarred({"a.png": b""})[:512])
    header[156:157] = b"x"  # what follows is said to be more of the header, of 2^80 bytes
    header[124:136] = b"\x80" + (2**80).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}".encode() + b"\0 "
    files: dict[str, bytes | str] = {
        "s.tar": bytes(header) + bytes(2048),
        "t.tar": tarred({"a.png": encoded(picture())}),
    }
    result = prepared(write(tmp_path / "in", files), tmp_path / "out")
    assert ("s.tar", "broken shard") in findings(tmp_path / "out")
    assert counts(result)["picture"] == (1, 1, 0)


def test_a_prepared_folder_is_a_source_again(tmp_path: Path) -> None:
    files = {
        f"{name}/{number}.png": encoded(picture(number, width=20)) for name in ("owl", "bee") for number in range(3)
    }
    prepared(write(tmp_path / "in", files), tmp_path / "whole")
    result = prepared(tmp_path / "whole", tmp_path / "small", pictures=PictureOptions(size=8))
    assert findings(tmp_path / "small") == []
    assert result.info.classes == ("bee", "owl")
    data = Prepared(tmp_path / "small")
    assert [data[index].label for index in range(6)] == [0, 0, 0, 1, 1, 1]
    assert data[0].picture.shape == (8, 8, 3)


def test_webdataset_reads_what_was_written(tmp_path: Path) -> None:
    """By its rule: members in order, keys up to the first dot."""
    root = write(tmp_path / "in", {f"{n}.png": encoded(picture(n)) for n in range(5)})
    prepared(root, tmp_path / "out")
    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    found = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert [one["__key__"] for one in found] == [f"{n:09d}" for n in range(5)]
    for number, one in enumerate(found):
        assert np.array_equal(one["png"], np.asarray(Image.open(root / f"{number}.png")))
        assert one["json"]["origin"] == f"{number}.png"


def test_shards_and_pictures_together_are_ambiguous(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"s.tar": tarred({"a.png": encoded(picture())}), "b.png": encoded(picture())})
    with pytest.raises(ValueError, match=r"has both \.tar shards and pictures; say which of them is meant: --kind"):
        prepared(root, tmp_path / "out")
    prepared(root, tmp_path / "out", source=SourceOptions(kind="shards"))
    assert findings(tmp_path / "out") == [("b.png", "not used"), ("s.tar/a.png", "no caption")]
    prepared(root, tmp_path / "other", source=SourceOptions(kind="images"))
    assert ("s.tar", "not used") in findings(tmp_path / "other")
    with pytest.raises(ValueError, match="--masks is for folders of pictures"):
        prepared(root, tmp_path / "new", source=SourceOptions(kind="shards", masks="m"))


def test_shards_are_the_same_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "in", {f"{n}.tar": tarred(img2dataset(5, 5 * n)) for n in range(2)})
    prepared(root, tmp_path / "whole")
    with monkeypatch.context() as broken:
        broken.setattr("tintype.data.preparation.run._finish", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepared(root, tmp_path / "out")
    (tmp_path / "out" / ".parts" / "00001.safetensors").unlink()
    prepared(root, tmp_path / "out")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
