"""Sheets: cells that are the plain command's pictures, labels, going on, and being made again."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

import tintype
from tintype.apps import commands
from tintype.apps import sheet as module
from tintype.apps.axes import LARGEST_SHEET, REPLACED, Axis, Sheet, read_axis
from tintype.apps.cli import DONE, USAGE, main
from tintype.apps.labelled import LINES, SMALLEST, drawn, laid_out, wrapped
from tintype.common.config import to_json
from tintype.families.base import LatentDiffusion
from tintype.tasks.request import Request

PROMPT = "a red apple on a blue background"
QUICK = ["--steps", "1", "--cfg-scale", "1"]


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default")


@pytest.fixture(autouse=True)
def _opened_once(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "load", lambda *_, **__: model)


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    capsys.readouterr()
    assert main(["sheet", *arguments, "--json"]) == DONE
    return json.loads(capsys.readouterr().out)


def levels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).astype(int)


def test_cells_are_the_plain_pictures_in_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new" / "sheet.png"
    axes = ["--x", f"{REPLACED}=apple,frog", "--y", "seed=7,8"]
    told = report(capsys, PROMPT, *axes, *QUICK, "-o", str(target))
    assert told["drawn"] == 4
    cells = [Path(cell) for cell in told["cells"]]
    assert {cell.parent for cell in cells} == {target.parent / "sheet-cells"}
    layout = laid_out(["apple", "frog"], ["seed: 7", "seed: 8"], [""], cell=(64, 64))
    with Image.open(target) as whole:
        assert whole.size == layout.size
        for cell, (left, top) in zip(cells, layout.pictures, strict=True):
            with Image.open(cell) as picture:
                assert np.array_equal(levels(whole.crop((left, top, left + 64, top + 64))), levels(picture))
    plain = tmp_path / "plain.png"
    for number, (thing, seed) in {1: ("frog", "7"), 2: ("apple", "8")}.items():
        prompt = PROMPT.replace("apple", thing)
        assert main(["txt2img", prompt, "--seed", seed, *QUICK, "-o", str(plain)]) == DONE
        assert plain.read_bytes() == cells[number].read_bytes()


def test_it_goes_on_and_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, again = tmp_path / "sheet.png", tmp_path / "again.png"
    asked = [PROMPT, *QUICK, "--x", "variation_strength=0.0,0.5", "-o", str(target)]  # seeds are drawn
    told = report(capsys, *asked)
    repeated = report(capsys, "--from", str(target), "-o", str(again))
    assert (told["drawn"], repeated["drawn"]) == (2, 2)
    assert target.read_bytes() == again.read_bytes()
    first, second = (Path(cell) for cell in told["cells"])
    kept = [first.read_bytes(), second.read_bytes()]

    first.write_bytes(kept[0][:-40])  # cut
    assert report(capsys, "--from", str(target), "-o", str(target))["drawn"] == 1
    middle = len(kept[1]) // 2
    second.write_bytes(kept[1][:middle] + bytes([kept[1][middle] ^ 1]) + kept[1][middle + 1 :])  # damaged
    assert report(capsys, "--from", str(target), "-o", str(target))["drawn"] == 1
    second.write_bytes(kept[0])  # another's
    assert report(capsys, "--from", str(target), "-o", str(target))["drawn"] == 1
    assert [first.read_bytes(), second.read_bytes()] == kept

    monkeypatch.delattr(module, "generate")
    assert report(capsys, "--from", str(target), "-o", str(target))["drawn"] == 0
    assert target.read_bytes() == again.read_bytes()


def test_sheets_of_other_tasks_tell_their_pictures_by_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, target, again = tmp_path / "in.png", tmp_path / "sheet.png", tmp_path / "again.png"
    Image.effect_noise((64, 64), 90).convert("RGB").save(begun)
    asked = [PROMPT, "--task", "img2img", "-i", str(begun), "--x", "strength=0,0.5,1", "--steps", "2", "--seed", "7"]
    told = report(capsys, *asked, "-o", str(target))
    assert told["drawn"] == 3
    with Image.open(told["cells"][0]) as cell, Image.open(begun) as picture:
        assert np.array_equal(levels(cell), levels(picture))
    assert str(tmp_path).encode() not in target.read_bytes()
    assert report(capsys, *asked, "-o", str(target))["drawn"] == 0
    assert report(capsys, "--from", str(target), "-i", str(begun), "-o", str(again))["drawn"] == 3
    assert target.read_bytes() == again.read_bytes()
    assert main(["sheet", "--from", str(target), "-o", str(again)]) == USAGE
    assert "image: the picture it was made from is not stored in it; give it" in capsys.readouterr().err


def test_cells_of_any_size_are_shown_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an inpainted part the whole picture comes back, whatever it is worked on at."""
    files = [str(tmp_path / name) for name in ("in.png", "mask.png")]
    Image.effect_noise((96, 80), 90).convert("RGB").save(files[0])
    Image.new("L", (96, 80), 255).save(files[1])
    asked = ["--task", "inpaint", "-i", files[0], "--mask", files[1], "--only-masked", "--x", "seed=1,2"]
    report(capsys, PROMPT, *asked, *QUICK, "-o", str(tmp_path / "sheet.png"))
    with Image.open(tmp_path / "sheet.png") as whole:
        assert whole.size == laid_out(["seed: 1", "seed: 2"], [""], [""], cell=(96, 80)).size
    told = report(capsys, "--task", "class2img", "--x", "label=pizza,frog", *QUICK, "-o", str(tmp_path / "two.png"))
    assert len(told["cells"]) == 2


def test_without_axes_the_pictures_of_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = report(capsys, PROMPT, *QUICK, "--seed", "7", "-b", "3", "-o", str(tmp_path / "sheet.png"))
    assert len(told["cells"]) == 3
    with Image.open(tmp_path / "sheet.png") as whole, Image.open(told["cells"][2]) as third:
        assert json.loads(third.info["tintype"])["request"]["seed"] == 9
        size, places = whole.size, laid_out(["", ""], ["", ""], [""], cell=(64, 64)).pictures
        assert size == laid_out(["", ""], ["", ""], [""], cell=(64, 64)).size
        left, top = places[2]
        assert np.array_equal(levels(whole.crop((left, top, left + 64, top + 64))), levels(third))
        left, top = places[3]
        assert levels(whole.crop((left, top, *size))).min() == 255  # nothing there


def test_every_value_has_its_request_in_the_order_of_the_sheet() -> None:
    sheet = Sheet(
        axes=(
            read_axis("z", "Seed=1, 2"),
            read_axis("x", "cfg-scale=1,none"),
            read_axis("y", 'prompt="a frog, big",a key'),
        ),
        request=Request(steps=3),
    )
    cells = [(cell.seed, cell.prompt, cell.cfg_scale, cell.steps) for cell in sheet.cells()]
    frogs = [(seed, prompt, scale, 3) for seed in (1, 2) for prompt in ("a frog, big", "a key") for scale in (1, None)]
    assert cells == frogs
    assert read_axis("x", "exact=true,False").values == (True, False)
    assert read_axis("x", "cfg_scale=0.1,3,none").labels == ["cfg_scale: 0.1", "cfg_scale: 3", "cfg_scale: none"]


def test_words_are_replaced_as_in_a1111() -> None:
    axes = (read_axis("y", "prompt S/R=red,blue"), read_axis("x", "Prompt S/R=apple,frog"))
    cells = Sheet(axes=axes, request=Request(prompt="a red apple", negative_prompt="red")).cells()
    assert [cell.prompt for cell in cells] == ["a red apple", "a red frog", "a blue apple", "a blue frog"]
    assert [cell.negative_prompt for cell in cells] == ["red", "red", "blue", "blue"]
    assert axes[1].labels == ["apple", "frog"]


def test_seeds_are_drawn_once_for_all_cells() -> None:
    varied = Sheet(axes=(read_axis("x", "variation_strength=0,0.5"),), request=Request()).with_seeds().cells()
    assert len({(cell.seed, cell.variation_seed) for cell in varied}) == 1
    assert varied[0].seed >= 0
    assert varied[0].variation_seed is not None
    axis = Sheet(axes=(read_axis("x", "seed=-1,5,-1"),), request=Request()).with_seeds().axes[0]
    assert axis.values[1] == 5
    assert len(set(axis.values)) == 3
    assert min(axis.values) >= 0


def test_labels_are_in_the_places_of_their_columns_rows_and_blocks() -> None:
    picture = Image.new("RGB", (64, 64), "blue")

    def sheet(across: str = "seed: 1", down: str = "frog", block: str = "steps: 9") -> np.ndarray:
        return levels(
            drawn(laid_out(["one", across], ["the wider one", down], ["three", block], cell=(64, 64)), [picture] * 8)
        )

    usual = sheet()
    assert (usual == sheet()).all()
    places = laid_out(["one", "seed: 1"], ["the wider one", "frog"], ["three", "steps: 9"], cell=(64, 64)).pictures
    for changed, where in (({"across": "seed: 2"}, 0), ({"down": "free"}, 1), ({"block": "steps: 8"}, 2)):
        differing = np.argwhere((usual != sheet(**changed)).any(axis=2))
        assert len(differing) > 0
        top, left = differing.min(axis=0)
        bottom, right = differing.max(axis=0)
        if where == 0:
            assert left >= places[1][0]  # above the second column
        elif where == 1:
            assert right < places[0][0]  # left of the second row
            assert top >= places[2][1]
        else:
            assert places[3][1] + 64 <= top <= bottom < places[4][1]  # above the second block


def test_long_labels_are_wrapped_and_cut() -> None:
    font = ImageFont.load_default(SMALLEST)
    assert wrapped("", font, 80) == []
    assert wrapped("a frog", font, 80) == ["a frog"]
    for text in ("a frog on a sky blue background", "frog" * 20, "word " * 100):
        lines = wrapped(text, font, 80)
        assert 1 < len(lines) <= LINES
        assert all(font.getlength(line) <= 80 for line in lines)
        left_out = len("".join(lines).replace(" ", "")) < len(text.replace(" ", ""))
        assert lines[-1].endswith("…") == left_out


def test_smaller_pictures_are_padded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = report(capsys, PROMPT, *QUICK, "--x", "width=32,64", "-o", str(tmp_path / "sheet.png"))
    layout = laid_out(["width: 32", "width: 64"], [""], [""], cell=(64, 64))
    left, top = layout.pictures[0]
    with Image.open(told["output"]) as whole, Image.open(told["cells"][0]) as small:
        assert (whole.size, small.size) == (layout.size, (32, 64))
        assert np.array_equal(levels(whole.crop((left, top, left + 32, top + 64))), levels(small))
        assert levels(whole.crop((left + 32, top, left + 64, top + 64))).min() == 255


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--x", "cfg_scal=1,2"], ["cfg_scal", "cfg_scale"]),
        (["--x", "image=1.png"], ["image", "no axis"]),
        (["--x", "cfg_scale"], ["expected a field and its values"]),
        (["--x", "cfg_scale="], ["--x cfg_scale: got no values"]),
        (["--x", "cfg_scale=1,,3"], ["cfg_scale ''"]),
        (["--x", "cfg_scale=1,many"], ["cfg_scale 'many'", "number from 0 to 100"]),
        (["--x", "steps=1,2.5"], ["steps '2.5'", "whole number"]),
        (["--x", "exact=true,perhaps"], ["exact 'perhaps'", "true or false"]),
        (["--x", "sampler=ddim,eulr"], ["eulr", "euler"]),
        (["--x", "width=64,70"], ["70", "72"]),
        (["--x", 'sampler="ddim'], ["--x sampler", "quotes"]),
        (["--x", "seed=1", "--x", "steps=1"], ["--x is given twice"]),
        (["--x", "seed=1", "--y", "seed=2"], ["seed is given twice, by --x and --y"]),
        (["--x", "seed=1", "--seed", "2"], ["seed is given twice, by --x and by itself"]),
        (["--x", "prompt=a frog"], ["prompt is given twice"]),
        (["--x", "prompt S/R=frog,panda"], ["'frog' is not in the prompt"]),
        (["--x", 'prompt S/R="",panda'], ["prompt S/R", "to search for"]),
        (["--x", "prompt S/R=red,a", "--y", "prompt S/R=red,b"], ["prompt S/R is given twice"]),
        (["--x", "seed=1,2", "-b", "2"], ["batch_size 2"]),
        (["--x", f"seed={','.join('1' * 33)}", "--y", f"steps={','.join('1' * 32)}"], ["1056 cells", "1024"]),
        (["--x", "width=8,8192", "--y", f"height={','.join(['8192'] * 9)}"], ["pixels", "fewer or smaller"]),
        (["--from", "absent.png"], ["leave out prompt"]),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.delattr(module, "generate")
    assert main(["sheet", PROMPT, *arguments, "-o", str(tmp_path / "sheet.png")]) == USAGE
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    for name, words in (
        ("sheet.jpg", "expected a name in .png"),
        ("folder.png", "is a folder"),
        ("a" * 236 + ".png", "expected 240 or less"),
        ("file/sheet.png", "expected a folder that can be made"),
    ):
        assert main(["sheet", PROMPT, "-o", str(tmp_path / name)]) == USAGE
        assert words in capsys.readouterr().err
    assert main(["sheet", "--x", "seed=1", "-o", str(tmp_path / "sheet.png")]) == USAGE
    assert "no prompt" in capsys.readouterr().err


def test_from_refuses_what_is_no_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, picture = tmp_path / "sheet.png", Image.new("RGB", (8, 8))
    axis = Axis(side="x", field="seed", values=(1, 2))
    told = module.Told(sheet=Sheet(axes=(axis,), request=Request(seed=1)), model="default", digest="0123456789")

    def refused() -> str:
        assert main(["sheet", "--from", str(path), "-o", str(tmp_path / "again.png")]) == USAGE
        return capsys.readouterr().err

    assert "no such picture" in refused()
    path.write_text("text")
    assert "not a readable PNG" in refused()
    picture.save(path)
    assert "holds no sheet" in refused()
    module._save(picture, path, told)
    assert "made by model default (0123456789)" in refused()
    broken = json.dumps(to_json(told)).replace('"seed", "values"', '"seeb", "values"')
    monkeypatch.setattr(module, "to_json", lambda _: json.loads(broken))
    module._save(picture, path, told)
    assert "damaged" in refused()
    assert not (tmp_path / "again.png").exists()


def test_what_the_model_does_not_know_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["a zorgon", *QUICK, "--x", "seed=1,2", "-o", str(tmp_path / "sheet.png")]
    assert main(["sheet", *arguments]) == DONE
    assert "2 cells, 2 drawn" in capsys.readouterr().out
    assert sum("zorgon" in record.getMessage() for record in caplog.records) == 1
    told = report(capsys, *arguments)
    assert told["drawn"] == 0
    assert "zorgon" in told["warnings"][0]


def test_the_limit_itself_is_allowed() -> None:
    axis = Axis(side="x", field="seed", values=tuple(range(LARGEST_SHEET)))
    assert len(Sheet(axes=(axis,), request=Request()).cells()) == LARGEST_SHEET
