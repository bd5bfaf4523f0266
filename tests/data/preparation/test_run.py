"""Folders of pictures with captions become data sets."""

import json
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sources import bytes_of, counts, encoded, files_below, findings, picture, prepared, write

from tintype.data.preparation import run as prepare_module
from tintype.data.preparation.origins import SourceOptions
from tintype.data.preparation.processing import PictureOptions
from tintype.data.preparation.run import PrepareOptions
from tintype.data.prepared import Prepared, damaged


def album(root: Path, count: int = 11) -> Path:
    files: dict[str, bytes | str] = {}
    for number in range(count):
        files[f"{number % 3}/p{number:02d}.png"] = encoded(picture(number, width=10 + number))
        files[f"{number % 3}/p{number:02d}.txt"] = f"number {number}\n"
    return write(root, files)


def test_a_folder_becomes_samples_with_the_bytes_of_its_files(tmp_path: Path) -> None:
    root = album(tmp_path / "in")
    result = prepared(root, tmp_path / "out")
    assert counts(result) == {"picture": (11, 11, 0), "caption": (11, 11, 0)}
    assert result.report["left_out"] == result.report["noted"] == {}
    data = Prepared(tmp_path / "out")
    assert len(data) == 11
    assert [shard.samples for shard in data.info.shards] == [4, 4, 3]
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    for index, name in enumerate(names):
        sample, record = data[index], data.record(index)
        assert np.array_equal(sample.picture, np.asarray(Image.open(root / name)))
        assert sample.caption == f"number {int(name[3:5])}"
        assert (record["origin"], record["key"]) == (name, f"{index:09d}")
        assert tuple(data.sizes[index]) == sample.picture.shape[:2]
        shard = (tmp_path / "out" / data.info.shards[index // 4].name).read_bytes()
        assert (root / name).read_bytes() in shard
    assert np.array_equal(data[-1].picture, data[10].picture)
    with pytest.raises(IndexError, match="sample 11: there are 11"):
        data[11]


def test_the_same_source_gives_the_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    options = {"pictures": PictureOptions(size=8)}
    prepared(album(tmp_path / "in"), tmp_path / "a", **options, workers=1)
    prepared(album(tmp_path / "elsewhere"), tmp_path / "b", **options, workers=3)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_a_finished_folder_is_left_as_it_is(tmp_path: Path) -> None:
    first = prepared(album(tmp_path / "in"), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = prepared(tmp_path / "in", tmp_path / "out")
    assert (again.info, again.report) == (first.info, first.report)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def die_writing(root: Path, out: Path, samples: int) -> None:
    """As by SIGKILL, in the middle of a shard."""
    write_sample, written = prepare_module._write_sample, []

    def write_or_die(*given):
        if len(written) == samples:
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(given)
        return write_sample(*given)

    prepare_module._write_sample = write_or_die
    prepared(root, out)


@pytest.mark.parametrize("died_after", [0, 1, 2])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path: Path, died_after: int) -> None:
    root = write(album(tmp_path / "in"), {"0/bad.png": "no picture", "1/notes.md": "x"})
    prepared(root, tmp_path / "whole")
    process = multiprocessing.get_context("fork").Process(
        target=die_writing, args=(root, tmp_path / "out", 4 * died_after + 2)
    )
    process.start()
    process.join()
    assert process.exitcode == -9
    out = tmp_path / "out"
    assert not (out / "dataset.json").exists()
    shards = sorted(out.glob("*.tar"))
    assert len(shards) == died_after
    before = {path: path.stat().st_ino for path in shards}
    prepared(root, out)
    assert {path: path.stat().st_ino for path in shards} == before  # kept, not made again
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_a_finished_shard_that_was_damaged_since_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = album(tmp_path / "in"), tmp_path / "out"
    prepared(root, tmp_path / "whole")
    with monkeypatch.context() as broken:
        broken.setattr("tintype.data.preparation.run._finish", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepared(root, out)
    content = bytearray((out / "00001.tar").read_bytes())
    content[700] ^= 1
    (out / "00001.tar").write_bytes(content)
    prepared(root, out)
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    root = album(tmp_path / "in")
    prepared(root, tmp_path / "out")
    with pytest.raises(ValueError, match="was prepared otherwise: size null, now 8 differ"):
        prepared(root, tmp_path / "out", pictures=PictureOptions(size=8))
    write(root, {"new.png": encoded(picture())})
    with pytest.raises(ValueError, match="prepared otherwise: the source's files differ; expected the same, or name"):
        prepared(root, tmp_path / "out")
    write(tmp_path / "mine", {"thesis.txt": "x"})
    with pytest.raises(ValueError, match="mine holds other files; expected an empty folder"):
        prepared(root, tmp_path / "mine")
    for out in (root, root / "out", tmp_path):
        with pytest.raises(ValueError, match="lie within each other"):
            prepared(root, out)
    with pytest.raises(ValueError, match="nowhere is no folder; expected one with pictures"):
        prepared(tmp_path / "nowhere", tmp_path / "new")
    write(tmp_path / "words", {"a.txt": "x"})
    with pytest.raises(ValueError, match="words has no pictures; expected files in"):
        prepared(tmp_path / "words", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_keeps_what_is_finished_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = album(tmp_path / "in"), tmp_path / "out"
    prepared(root, tmp_path / "whole")
    os.mkdir(out)
    with monkeypatch.context() as full:
        real = os.replace

        def replace(source: str, target: Path) -> None:
            if Path(target).name == "00001.tar":
                raise OSError(28, "No space left on device")
            real(source, target)

        full.setattr(os, "replace", replace)
        with pytest.raises(
            OSError, match=r"no space left for .*out; 1 finished shards are kept: make room, and the same"
        ):
            prepared(root, out)
    assert sorted(path.name for path in out.iterdir()) == [".lock", ".parts", "00000.tar"]
    prepared(root, out)
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_damaged_shards_are_listed_and_name_themselves(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepared(album(tmp_path / "in"), out)
    assert list(damaged(out)) == []
    data = Prepared(out)
    content = bytearray((out / "00001.tar").read_bytes())
    content[512 + 20] ^= 255  # in the header of the shard's first picture
    (out / "00001.tar").write_bytes(content)
    (out / "00002.tar").unlink()
    assert list(damaged(out)) == [("00001.tar", "its checksum is another"), ("00002.tar", "absent")]
    with pytest.raises(ValueError, match=r"00001.tar is damaged: sample 4 .*prepare --verify"):
        data[4]
    with pytest.raises(ValueError, match=r"00002.tar cannot be read \(No such file"):
        data[8]
    assert data[3].caption
    (out / "00000.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00000.tar is damaged: sample 0 \(\d+ bytes are missing"):
        data.record(0)


def test_what_is_no_prepared_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"is not a prepared data set, or not a whole one: it has no dataset.json"):
        Prepared(tmp_path)
    prepared(album(tmp_path / "in"), out)
    told = json.loads((out / "dataset.json").read_text())
    write(out, {"dataset.json": json.dumps(told | {"version": 2})})
    with pytest.raises(ValueError, match="is of version 2, this program reads 1; prepare the folder again"):
        Prepared(out)
    write(out, {"dataset.json": json.dumps({"kind": "other"})})
    with pytest.raises(ValueError, match="is not of a prepared data set"):
        Prepared(out)
    write(out, {"dataset.json": json.dumps(told | {"index": "0" * 64})})
    with pytest.raises(ValueError, match=r"is not the index that dataset.json was written with"):
        Prepared(out)


def test_everything_found_is_used_or_listed(tmp_path: Path) -> None:
    root = album(tmp_path / "in")
    whole = encoded(picture(3, width=64, height=64), "JPEG")
    outside = write(tmp_path / "outside", {"secret.png": encoded(picture())})
    write(
        root,
        {
            "a red-apple_3.jpg": whole,
            "IMG_0042.jpg": whole,
            "cut.jpg": whole[: len(whole) // 2],
            "cut.txt": "said of nothing",
            "zero.jpg": b"",
            "page.jpg": "<html>not found</html>",
            "latin.jpg": whole,
            "latin.txt": "caf\xe9".encode("latin-1"),
            "blank.jpg": whole,
            "blank.txt": " \n",
            "alone.txt": "no picture of this name",
            "Thumbs.db": b"x",
        },
    )
    os.symlink(outside / "secret.png", root / "leaves.png")
    os.symlink(root / "IMG_0042.jpg", root / "again.jpg")
    os.symlink(tmp_path / "nothing", root / "dangling.png")
    os.symlink(outside, root / "folder")
    result = prepared(root, tmp_path / "out")
    assert sorted(findings(tmp_path / "out")) == sorted(
        [
            ("folder", "link"),
            ("leaves.png", "link"),
            ("dangling.png", "link"),
            ("a red-apple_3.jpg", "caption from file name"),
            ("again.jpg", "caption from file name"),
            ("latin.jpg", "caption from file name"),
            ("blank.jpg", "caption from file name"),
            ("IMG_0042.jpg", "no caption"),
            ("cut.jpg", "cut short"),
            ("cut.txt", "caption of picture left out"),
            ("zero.jpg", "empty"),
            ("page.jpg", "not a picture"),
            ("latin.txt", "caption not UTF-8"),
            ("blank.txt", "empty caption"),
            ("alone.txt", "caption without picture"),
            ("Thumbs.db", "not used"),
        ]
    )
    told = counts(result)
    assert all(found == used + left_out for found, used, left_out in told.values())
    assert sum(found for found, _, _ in told.values()) == files_below(root).total()
    assert told["picture"][0] == 11 + 8
    assert told["picture"][1] == len(Prepared(tmp_path / "out")) == 11 + 5
    captions = {data["origin"]: data.get("caption") for data in map(Prepared(tmp_path / "out").record, range(16))}
    assert captions["a red-apple_3.jpg"] == "a red apple"
    assert captions["IMG_0042.jpg"] is None


def test_suffixes_in_capitals_are_the_same(tmp_path: Path) -> None:
    files = {"A.PNG": encoded(picture()), "A.JSON": '{"caption": "an apple", "id": 3}', "b.png": encoded(picture())}
    prepared(write(tmp_path / "in", files | {"b.TXT": "a boat"}), tmp_path / "out")
    data = Prepared(tmp_path / "out")
    assert [data[index].caption for index in (0, 1)] == ["an apple", "a boat"]
    assert data.record(0)["given"] == {"id": 3}
    assert findings(tmp_path / "out") == []


def test_captions_may_be_required_and_not_be_names(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"dog.png": encoded(picture()), "cat.png": encoded(picture()), "cat.txt": "a cat"})
    strict = PictureOptions(require_caption=True)
    result = prepared(root, tmp_path / "out", pictures=strict, source=SourceOptions(captions="given"))
    assert findings(tmp_path / "out") == [("dog.png", "caption required")]
    assert counts(result)["picture"] == (2, 1, 1)
    prepared(root, tmp_path / "none", source=SourceOptions(captions="none"))
    assert [Prepared(tmp_path / "none")[i].caption for i in (0, 1)] == [None, None]
    assert findings(tmp_path / "none") == [("cat.txt", "not used")]


def test_folders_of_classes(tmp_path: Path) -> None:
    files = {f"{name}/{number}.png": encoded(picture(number)) for name in ("owl", "bee") for number in range(3)}
    result = prepared(write(tmp_path / "in", files), tmp_path / "out")
    data = Prepared(tmp_path / "out")
    assert result.info.options["kind"] == "classes"
    assert data.classes == ("bee", "owl")
    assert [data[index].label for index in range(6)] == data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert findings(tmp_path / "out") == []
    assert data.record(5)["class"] == "owl"


def test_pictures_outside_the_folders_of_classes_have_none(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"owl/a.png": encoded(picture()), "b.png": encoded(picture())})
    prepared(root, tmp_path / "out", source=SourceOptions(kind="classes"))
    assert [Prepared(tmp_path / "out")[index].label for index in (0, 1)] == [None, 0]
    assert findings(tmp_path / "out") == [("b.png", "no class")]


@pytest.mark.parametrize(
    ("strays", "said"),
    [
        (["b.png"], "for 1 of 7 are not in one of its 2 folders: b.png; for classes say --kind classes"),
        (["bee/deep/b.png"], "for 1 of 7 are not in one of its 2 folders: bee/deep/b.png;"),
        ([], None),
        ([f"{number}.png" for number in range(6)], None),
    ],
)
def test_a_stray_picture_beside_folders_of_classes_is_said(
    tmp_path: Path, strays: list[str], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    names = [*(f"{name}/{number}.png" for name in ("owl", "bee") for number in range(3)), *strays]
    result = prepared(write(tmp_path / "in", dict.fromkeys(names, encoded(picture()))), tmp_path / "out")
    assert result.info.options["kind"] == ("images" if strays else "classes")
    assert said in caplog.text if said else not caplog.records


def test_absurd_sizes_are_left_out_before_they_cost_anything(tmp_path: Path) -> None:
    files = {
        "line.png": encoded(Image.new("L", (1, 9000))),
        "long.txt": "word " * 300_000,
        "long.png": encoded(picture()),
    }
    root = write(tmp_path / "in", files)
    few = PictureOptions(size=64, max_pixels=10**6)
    prepared(root, tmp_path / "out", pictures=few, source=SourceOptions(captions="given"))
    assert sorted(findings(tmp_path / "out")) == [
        ("line.png", "too long"),  # 64 x 576,000 after resizing
        ("long.png", "enlarged"),
        ("long.png", "no caption"),
        ("long.txt", "caption too large"),
    ]
    prepared(root, tmp_path / "bytes", pictures=PictureOptions(max_bytes=60), source=SourceOptions(captions="none"))
    assert ("long.png", "too many bytes") in findings(tmp_path / "bytes")


def test_threads_and_processes_may_share_a_reader(tmp_path: Path) -> None:
    prepared(album(tmp_path / "in"), tmp_path / "out")
    data = Prepared(tmp_path / "out")
    expected = [data[index].picture.tobytes() for index in range(11)]
    order = [index % 11 for index in range(0, 7 * 220, 7)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: data[index].picture.tobytes(), order))
    assert found == [expected[index] for index in order]
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert processes.map(read_bytes, [(data, index) for index in range(11)]) == expected  # pickled as well


def read_bytes(asked: tuple[Prepared, int]) -> bytes:
    return asked[0][asked[1]].picture.tobytes()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PrepareOptions(shard_size=0), "shard size 0: expected 1 or more"),
        (lambda: PrepareOptions(workers=-1), "workers -1: expected 1 or more"),
        (lambda: PictureOptions(size=0), "size 0: expected 1 to 8192"),
        (lambda: PictureOptions(min_size=0), "min size 0: expected 1 or more"),
        (lambda: PictureOptions(max_aspect=0.5), "max aspect 0.5: expected 1"),
        (lambda: PictureOptions(max_pixels=10**9), "max pixels 1000000000: expected 1 to"),
    ],
)
def test_options_that_mean_nothing_are_named(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("line", "pictures", "reason"),
    [
        ((30_000, 1, "PNG"), PictureOptions(size=256), "too long"),
        ((1, 30_000, "PNG"), PictureOptions(size=256, crop="none"), "too long"),
        ((2000, 50, "PNG"), PictureOptions(size=500, crop="none", encoding="webp"), "too long"),
        ((20_000, 2, "BMP"), PictureOptions(encoding="webp"), "too long"),
        ((70_000, 2, "BMP"), PictureOptions(encoding="jpg"), "too long"),
    ],
)
def test_a_picture_that_could_not_be_made_is_left_out(
    tmp_path: Path, line: tuple[int, int, str], pictures: PictureOptions, reason: str
) -> None:
    width, height, kind = line
    files: dict[str, bytes | str] = {
        "long line.png": encoded(picture(width=width, height=height), kind),
        "round apple.png": encoded(picture()),
        "kept line.png": encoded(picture(width=60, height=30)),
    }
    result = prepared(write(tmp_path / "in", files), tmp_path / "out", pictures=pictures)
    assert [one for one in findings(tmp_path / "out") if one[0] == "long line.png"] == [("long line.png", reason)]
    assert counts(result)["picture"] == (3, 2, 1)
