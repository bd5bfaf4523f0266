"""What each filter removes, in which order, and that nothing else is lost."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tintype.data.columns
from tintype.apps.cli import DONE, USAGE, main
from tintype.checkpoints.clip import save_clip
from tintype.common.files import load_tensors, save_tensors
from tintype.conditioning.clip import CLIPModel, CLIPModelConfig
from tintype.data.filters import Clip, FilterConfig, Filtered, filtered
from tintype.data.opening import open_samples
from tintype.data.prepared import Prepared
from tintype.models.clip import CLIPTextConfig
from tintype.models.clip_image import CLIPImageConfig
from tintype.models.clip_pair import CLIP, CLIPConfig

# width, height, caption, p_watermark, p_unsafe; picture 5 is a smaller copy of 4, 7 has the bytes of 6
TABLE = [
    (100, 100, "a red wall", "0.1", "0.0"),
    (40, 90, "a narrow thing", "0.1", "0.0"),
    (90, 90, "x", "0.2", "0.3"),
    (90, 90, "a stock photograph", "0.9", "0.0"),
    (96, 96, "noise", "", "0.0"),
    (64, 64, "noise, smaller", "0.0", "0.0"),
    (80, 80, "the same file", "0.0", "0.05"),
    (80, 80, "the same file again", "0.0", "0.05"),
    (200, 64, "a panorama", "0.0", "0.0"),
    (70, 70, "nothing of the kind", "0.0", "0.0"),
]


def picture(number: int) -> Image.Image:
    width, height = TABLE[number][:2]
    drawn = np.random.default_rng({5: 4, 7: 6}.get(number, number))
    coarse = Image.fromarray(drawn.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize((192, 192), Image.Resampling.BICUBIC).resize((width, height), Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("filters")
    source = base / "source"
    source.mkdir()
    with (source / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "text", "pwatermark", "punsafe"])
        for number, (_, _, caption, watermark, unsafe) in enumerate(TABLE):
            picture(number).save(source / f"{number}.png")
            rows.writerow([f"{number}.png", caption, watermark, unsafe])
    assert main(["prepare", str(source), str(base / "prepared"), "--json"]) == DONE
    return base / "prepared"


@pytest.fixture
def prepared(folder: Path) -> Prepared:
    data = Prepared(folder)
    assert [data[number].caption for number in range(10)] == [row[2] for row in TABLE]  # in the table's order
    return data


def gone(result: Filtered) -> list[int]:
    return sorted(set(range(10)) - set(result.kept.tolist()))


@pytest.mark.parametrize(
    ("config", "removed"),
    [
        (FilterConfig(min_size=64), [1]),
        (FilterConfig(max_aspect=2.25), [8]),
        (FilterConfig(max_aspect=2.0), [1, 8]),
        (FilterConfig(min_caption=2), [2]),
        (FilterConfig(max_caption=18), [7, 9]),
        (FilterConfig(max_watermark=0.8), [3]),
        (FilterConfig(max_unsafe=0.1), [2]),
        (FilterConfig(same_bytes=True), [7]),
        (FilterConfig(duplicates=4), [5, 7]),
    ],
)
def test_each_filter_removes_what_it_says(prepared: Prepared, config: FilterConfig, removed: list[int]) -> None:
    result = filtered(prepared, config, progress=False)
    assert gone(result) == removed
    (told,) = result.report
    assert (told.seen, told.removed, told.share) == (10, len(removed), len(removed) / 10)
    assert [one["number"] for one in told.examples] == removed
    assert [one["key"] for one in told.examples] == [prepared.record(number)["key"] for number in removed]


def test_filters_work_on_what_the_former_left_and_lose_nothing_else(prepared: Prepared) -> None:
    config = FilterConfig(min_size=64, max_aspect=2.0, min_caption=2, max_watermark=0.8, same_bytes=True, duplicates=4)
    result = filtered(prepared, config, progress=False)
    assert [(one.filter, one.seen, one.removed) for one in result.report] == [
        ("min_size 64", 10, 1),
        ("max_aspect 2", 9, 1),
        ("min_caption 2", 8, 1),
        ("max_watermark 0.8", 7, 1),
        ("same_bytes", 6, 1),
        ("duplicates 4", 5, 1),
    ]
    assert result.kept.tolist() == [0, 4, 6, 9]
    assert len(result.kept) + sum(one.removed for one in result.report) == len(prepared)
    assert result.report[3].unknown == 1  # picture 4: its table is silent
    copy = result.report[5].examples[0]
    assert (copy["number"], copy["value"]) == (5, 4)  # 4 is kept in its stead, the larger one


class Judge:
    """Likes pictures as their captions are long; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, pictures: object, captions: list[str]) -> torch.Tensor:
        self.asked += captions
        return torch.tensor([len(caption) / 100 for caption in captions])


def test_clip_scores_are_computed_once_and_kept(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tintype.data.columns, "TOGETHER", 4)
    judge = Judge()
    first = filtered(prepared, FilterConfig(min_size=64, min_clip_score=0.11), clip=Clip(judge, "long"), progress=False)
    expected = [number for number in range(10) if number != 1 and len(TABLE[number][2]) < 11]
    assert [one["number"] for one in first.report[1].examples] == expected
    assert sorted(judge.asked) == sorted(row[2] for number, row in enumerate(TABLE) if number != 1)
    judge.asked.clear()
    again = filtered(prepared, FilterConfig(min_clip_score=0.11), clip=Clip(judge, "long"), progress=False)
    assert judge.asked == [TABLE[1][2]]  # the one that was not asked for before
    assert again.kept.tolist() == sorted([*first.kept.tolist(), 1])
    judge.asked.clear()
    filtered(prepared, FilterConfig(min_clip_score=0.11), clip=Clip(judge, "another"), progress=False)
    assert len(judge.asked) == 10
    judge.asked.clear()
    path = prepared.folder / "columns" / "clip-long" / "00001.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    filtered(prepared, FilterConfig(min_clip_score=0.11), clip=Clip(judge, "long"), progress=False)
    assert judge.asked == [row[2] for row in TABLE[4:8]]  # what was damaged alone
    judge.asked.clear()
    save_tensors(path, load_tensors(path), "the digest of another data set")
    filtered(prepared, FilterConfig(min_clip_score=0.11), clip=Clip(judge, "long"), progress=False)
    assert judge.asked == [row[2] for row in TABLE[4:8]]  # scores of other pictures are none of these


def test_scores_that_were_stopped_go_on(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tintype.data.columns, "TOGETHER", 4)
    judge = Judge()

    def stopped(pictures: object, captions: list[str]) -> torch.Tensor:
        if "a panorama" in captions:
            raise KeyboardInterrupt
        return judge(pictures, captions)

    config = FilterConfig(min_clip_score=0.11)
    with pytest.raises(KeyboardInterrupt):
        filtered(prepared, config, clip=Clip(stopped, "slow"), progress=False)
    assert len(judge.asked) == 8
    resumed = filtered(prepared, config, clip=Clip(judge, "slow"), progress=False)
    assert len(judge.asked) == 10
    whole = filtered(prepared, config, clip=Clip(Judge(), "whole"), progress=False)
    assert resumed.kept.tolist() == whole.kept.tolist()


def test_what_cannot_be_judged_is_said(folder: Path, prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a CLIP score needs a CLIP: --clip FILE"):
        filtered(prepared, FilterConfig(min_clip_score=0.3))
    (tmp_path / "plain").mkdir()
    picture(0).save(tmp_path / "plain" / "a wall.png")
    assert main(["prepare", str(tmp_path / "plain"), str(tmp_path / "prepared"), "--json"]) == DONE
    with pytest.raises(ValueError, match=r"no record of .* tells p_watermark; expected it as a column"):
        filtered(Prepared(tmp_path / "prepared"), FilterConfig(max_watermark=0.5))


def test_a_selection_is_a_data_set(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "kept"
    assert main(["filter", str(folder), str(out), "--min-size", "64", "--duplicates", "4"]) == DONE
    printed = capsys.readouterr().out
    assert "7 of 10 samples kept" in printed
    assert "duplicates 4: 2 of 9 removed (22.22%)" in printed
    samples, digest = open_samples(out)
    assert len(samples) == 7
    assert [samples[place].caption for place in range(7)] == [TABLE[number][2] for number in (0, 2, 3, 4, 6, 8, 9)]
    assert samples.sizes.tolist()[5] == [64, 200]
    report = json.loads((out / "report.json").read_text())
    assert report["kept"] + sum(one["removed"] for one in report["filters"]) == report["samples"] == 10
    assert main(["filter", str(folder), str(out), "--min-size", "70", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["filters"][0]["removed"] == 3
    assert open_samples(out).digest != digest

    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("dear")
    for arguments, said in (
        ([str(out), "--duplicates", "99"], "duplicates 99: expected 0 to 31"),
        ([str(out)], "no filter; expected one or more"),
        ([str(other), "--min-size", "9"], "holds something else"),
        ([str(out), "--min-size", "999"], "nothing is left of 10 samples: min_size 999: 10 of 10 removed"),
    ):
        assert main(["filter", str(folder), *arguments]) == USAGE
        assert said in capsys.readouterr().err


def test_a_clip_from_a_file_judges(
    folder: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    text = CLIPTextConfig(context_length=16, width=16, num_layers=1, num_heads=2, projection_dim=8)
    image = CLIPImageConfig(image_size=32, patch_size=16, width=16, num_layers=1, num_heads=2, projection_dim=8)
    network = CLIP(CLIPConfig(text=text, image=image))
    file = tmp_path / "clip.safetensors"
    save_clip(file, CLIPModelConfig(clip=network.config), network.state_dict(), dtype=torch.float32)
    samples = [prepared[number] for number in range(10)]
    cosines = CLIPModel(network).likeness([one.picture for one in samples], [one.caption for one in samples])
    middle = float(cosines.median()) + 1e-6  # half are below, the lower middle one too
    flags = ["--min-clip-score", repr(middle), "--clip", str(file), "--device", "cpu", "--json"]
    assert main(["filter", str(folder), str(tmp_path / "kept"), *flags]) == DONE
    (told,) = json.loads(capsys.readouterr().out)["filters"]
    below = [number for number, cosine in enumerate(cosines.tolist()) if cosine < middle]
    assert [one["number"] for one in told["examples"]] == below
    assert [one["value"] for one in told["examples"]] == pytest.approx([float(cosines[one]) for one in below], abs=1e-5)
    assert len(below) == 5


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("min_size", -3, "1 or more"),
        ("max_aspect", 0.5, "1 or more"),
        ("min_caption", -1, "0 or more"),
        ("max_unsafe", 1.5, "0 to 1"),
        ("max_watermark", -0.1, "0 to 1"),
        ("min_clip_score", math.nan, "-1 to 1"),
        ("duplicates", 65, "0 to 31"),
        ("duplicates", -1, "0 to 31"),
    ],
)
def test_a_threshold_that_means_nothing_is_refused(name: str, value: float, expected: str) -> None:
    """Before a picture is read."""
    with pytest.raises(ValueError, match=rf"^{name} {value:g}: expected {expected}$"):
        FilterConfig(**{name: value})  # type: ignore[arg-type]
