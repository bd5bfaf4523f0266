"""The command line as a user meets it: real processes where that matters, `main` where it does not."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import tintype
from tintype.apps import commands
from tintype.apps.cli import DONE, FAILED, USAGE, main
from tintype.recipes import Recipe
from tintype.tasks.infotext import Provenance, save, stamp
from tintype.tasks.request import Request

PROMPT = "a red apple on a blue background"
QUICK = ["--steps", "2", "--seed", "7"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tintype.apps.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that must end with exit code 2."""
    assert main(arguments) == USAGE
    return capsys.readouterr().err


def test_help_is_quick_and_loads_no_torch() -> None:
    program = "import sys; from tintype.apps.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    heavy = "print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program + heavy], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    times = []
    for _ in range(3):
        started = time.perf_counter()
        assert run("--help").returncode == 0
        times.append(time.perf_counter() - started)
    assert min(times) < 0.5


def test_every_command_has_help() -> None:
    for command in ("txt2img", "train", "eval", "info", "tokens", "samplers", "doctor"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0


def test_python_cli_and_replay_give_identical_bytes(tmp_path: Path) -> None:
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    assert main(["txt2img", PROMPT, *QUICK, "-o", str(first)]) == DONE
    assert main(["txt2img", "--from", str(first), "-o", str(again)]) == DONE
    assert first.read_bytes() == again.read_bytes()
    request = tintype.Request(prompt=PROMPT, steps=2, seed=7)
    picture = tintype.generate(tintype.load("default"), request)[0]
    tintype.save(picture, tmp_path / "python.png")
    assert first.read_bytes() == (tmp_path / "python.png").read_bytes()
    with Image.open(first) as saved:
        assert saved.info["parameters"] == picture.info["parameters"]


def test_one_of_a_batch_is_repeated_with_its_batch(tmp_path: Path) -> None:
    assert main(["txt2img", PROMPT, *QUICK, "-b", "3", "-o", str(tmp_path)]) == DONE
    third = next(tmp_path.glob("*-9.png"))
    again = tmp_path / "again.png"
    assert main(["txt2img", "--from", str(third), "-o", str(again)]) == DONE
    assert third.read_bytes() == again.read_bytes()


def test_seed_is_printed_when_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["txt2img", PROMPT, "--steps", "1", "-o", str(tmp_path)]) == DONE
    out = capsys.readouterr().out
    seed = int(out.split("(seed ")[1].split(")")[0])
    assert f"-{seed}.png" in out


def test_json_reports_everything_and_nothing_else(tmp_path: Path) -> None:
    done = run("txt2img", "a red apple on a zorgon", *QUICK, "--json", "-o", str(tmp_path))
    assert done.returncode == DONE
    report = json.loads(done.stdout)
    assert Path(report["images"][0]).is_file()
    assert report["seeds"] == [7]
    assert report["unknown_words"] == ["zorgon"]
    assert "zorgon" in report["warnings"][0]
    assert report["request"]["steps"] == 2
    assert done.stderr == ""


def test_unknown_words_are_named_once(tmp_path: Path) -> None:
    done = run("txt2img", "a zorgon and a zorgon by Rembrandt", *QUICK, "-o", str(tmp_path))
    assert done.returncode == DONE
    assert done.stderr.count("zorgon") == 1
    assert "rembrandt" in done.stderr


def test_pictures_are_never_overwritten_in_a_folder(tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["txt2img", PROMPT, *QUICK, "-o", str(tmp_path)]) == DONE
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sampler", "eulr"], ["eulr", "euler"]),
        (["--scheduler", "karas"], ["karas", "karras"]),
        (["--model", "defalt"], ["defalt", "default"]),
        (["--device", "abacus"], ["abacus", "cpu or cuda"]),
        (["--width", "70"], ["70", "64", "72"]),
        (["--height", "1"], ["height 1"]),
        (["--steps", "0"], ["steps 0", "1", "1000"]),
        (["--steps", "1000000000"], ["steps 1000000000"]),
        (["--cfg-scale", "nan"], ["cfg_scale nan"]),
        (["--cfg-scale", "inf"], ["cfg_scale inf"]),
        (["--seed", "-2"], ["seed -2"]),
        (["--batch-size", "0"], ["batch_size 0"]),
        (["--sampler", "heun", "--eta", "1"], ["eta", "euler_ancestral"]),
        (["--prompt", "twice"], ["twice"]),
    ],
)
def test_bad_values_end_with_a_clear_error_and_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    message = refused(capsys, "txt2img", PROMPT, *arguments, "-o", str(tmp_path / "out"))
    assert all(word in message for word in words), message
    assert not (tmp_path / "out").exists()


def test_values_that_are_no_numbers_are_wrong_usage() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["txt2img", PROMPT, "--steps", "many"])
    assert stopped.value.code == USAGE


def test_no_prompt_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no prompt" in refused(capsys, "txt2img")


def test_from_refuses_what_is_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(plain)
    assert "no tintype request" in refused(capsys, "txt2img", "--from", str(plain))
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    assert "not a readable picture" in refused(capsys, "txt2img", "--from", str(text))
    assert "no such picture" in refused(capsys, "txt2img", "--from", str(tmp_path / "absent.png"))


def test_from_refuses_another_model_of_the_same_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "first.png"
    request = Request(prompt=PROMPT, seed=7, steps=1, cfg_scale=1.0)
    made = Provenance(request=request, position=0, model="default", digest="0123456789")
    save(stamp(Image.new("RGB", (64, 64)), made), path)
    error = refused(capsys, "txt2img", "--from", str(path), "-o", str(tmp_path / "again.png"))
    assert "made by model default (0123456789)" in error
    assert not (tmp_path / "again.png").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["a frog"], "prompt"),
        (["--prompt", "a frog"], "prompt"),
        (["--steps", "3", "--exact"], "steps, exact"),
        (["--cfg-scale", "0"], "cfg_scale"),
    ],
)
def test_from_stands_alone(capsys: pytest.CaptureFixture[str], more: list[str], named: str) -> None:
    error = refused(capsys, "txt2img", "--from", "absent.png", *more)
    assert error.endswith(f"leave out {named}\n")


@pytest.mark.parametrize("damage", ["cut", "garbage", "absent", "config", "swapped"])
def test_damaged_models_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(Path(tintype.__file__).parent / "weights" / "default", folder)
    weights = folder / "conditioner.safetensors"
    match damage:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "garbage":
            weights.write_bytes(os.urandom(5000))
        case "absent":
            weights.unlink()
        case "config":
            (folder / "model.json").write_text('{"name": "tintype"')
        case _:
            shutil.copy(folder / "autoencoder.safetensors", weights)
    message = refused(capsys, "txt2img", PROMPT, "--model", str(folder), "-o", str(tmp_path / "out"))
    assert ("model.json" if damage == "config" else "conditioner.safetensors") in message
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    message = refused(capsys, "txt2img", PROMPT, *QUICK, "-o", str(tmp_path / "file" / "folder"))
    assert "--output" in message
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in refused(capsys, "txt2img", PROMPT, *QUICK, "-o", str(tmp_path / "folder.png"))

    def denied(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", denied)  # file modes do not stop root
    message = refused(capsys, "txt2img", PROMPT, *QUICK, "-o", str(tmp_path / "new.png"))
    assert "cannot be written (Permission denied)" in message
    assert "expected a folder that you may write to" in message


def test_formats_that_are_not_written_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tintype.load("default")
    monkeypatch.setattr(commands, "load", lambda *_, **__: model)
    for ending in ("jpg", "jpeg", "JPG", "webp", "gif", "bmp", "tif", "tiff"):
        error = refused(capsys, "txt2img", PROMPT, *QUICK, "-o", str(tmp_path / f"pic.{ending}"))
        assert "pictures are written as PNG; expected a name in .png, or a folder" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["é" * 119 + ".png", "a" * 300 + ".png", "a" * 300])
def test_names_that_are_too_long_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delattr(commands, "steps")
    for place in (tmp_path, tmp_path / "new"):
        error = refused(capsys, "txt2img", PROMPT, *QUICK, "-o", str(place / name))
        assert "expected 240 or less; shorten it" in error or "File name too long" in error
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_the_longest_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 236 + ".png")
    assert main(["txt2img", PROMPT, *QUICK, "-o", str(path)]) == DONE
    assert path.is_file()


def test_train_takes_the_font_and_shows_without_training(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Recipe] = []
    monkeypatch.setattr("tintype.recipes.run", lambda recipe, out: trained.append(recipe))
    command = ["train", "scene_classifier", "--font", "my.ttf", "--set", "train.steps=3"]
    assert main([*command, "--show"]) == DONE
    shown = json.loads(capsys.readouterr().out)
    assert (shown["font"], shown["train"]["steps"]) == ("my.ttf", 3)
    assert trained == []
    assert main(command) == DONE
    assert [(recipe.font, recipe.train.steps) for recipe in trained] == [("my.ttf", 3)]


def test_train_into_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for out, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "run", "Not a directory")):
        error = refused(capsys, "train", "scene_classifier", "--out", str(out))
        assert f"{out} cannot be the folder of a run ({reason}); expected a folder" in error
        assert "name another" in error


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", no_space)
    assert main(["txt2img", PROMPT, *QUICK, "-o", str(tmp_path)]) == FAILED
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_had_enough_is_no_error() -> None:
    """As in `tintype samplers | head -1`."""
    command = [sys.executable, "-m", "tintype", "samplers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == DONE


def test_info_samplers_doctor_and_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["picture"] == "64x64"
    assert main(["samplers"]) == DONE
    listed = capsys.readouterr().out
    for name in ("dpmpp_2m_sde", "DPM++ 2M SDE", "EulerDiscreteScheduler", "SGM Uniform = sgm_uniform"):
        assert name in listed
    assert main(["samplers", "--json"]) == DONE
    listing = json.loads(capsys.readouterr().out)
    assert "DPM++ 2M" in listing["also"]["dpmpp_2m"]
    assert set(listing["samplers"]) >= set(listing["also"])
    assert main(["doctor", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["model default"].startswith("good")
    assert main(["train", "list"]) == DONE
    assert "default_text2img" in capsys.readouterr().out


def test_doctor_is_ill_when_a_model_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ValueError("unet.safetensors is cut short")

    monkeypatch.setattr(commands, "load", fail)
    assert main(["doctor", "--json"]) == FAILED
    assert json.loads(capsys.readouterr().out)["model default"] == "BAD: unet.safetensors is cut short"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("steps 0"), 2, "steps 0"),
        (OSError("no space"), 1, "no space"),
        (FloatingPointError("the loss is nan"), 1, "the loss is nan"),
        (MemoryError(), 1, "MemoryError"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_each_failure_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setitem(commands.COMMANDS, "info", fail)
    assert main(["info"]) == code
    assert capsys.readouterr().err == f"tintype info: {words}\n"


def test_train_refuses_unknown_recipes_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert "default_autoencoder" in refused(capsys, "train", "default_autoencode")
    message = refused(capsys, "train", "default_autoencoder", "--set", "train.step=3")
    assert "train.step" in message
    assert "steps" in message
    assert "int" in refused(capsys, "train", "default_autoencoder", "--set", "train.steps=many")


def test_from_asks_for_the_folder_of_another_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(Path(tintype.__file__).parent / "weights" / "default", folder)
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    assert main(["txt2img", PROMPT, *QUICK, "-m", str(folder), "-o", str(first)]) == DONE
    assert "mine (" in (error := refused(capsys, "txt2img", "--from", str(first), "-o", str(again)))
    assert "name its folder with --model" in error
    assert main(["txt2img", "--from", str(first), "-m", str(folder), "-o", str(again)]) == DONE
    assert first.read_bytes() == again.read_bytes()


def test_json_names_unknown_words_of_both_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["txt2img", "a zorgon", "-n", "a blurp and a zorgon", *QUICK, "--json", "-o", str(tmp_path)]
    assert main(command) == DONE
    assert json.loads(capsys.readouterr().out)["unknown_words"] == ["zorgon", "blurp"]


def test_more_steps_than_the_schedule_has_leave_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, "txt2img", PROMPT, "--steps", "1000", "-o", str(tmp_path / "new"))
    assert "1000 steps: this schedule has" in error
    assert not (tmp_path / "new").exists()


def test_too_little_memory_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    def broken(_: object) -> int:
        raise RuntimeError("shapes differ")

    monkeypatch.setitem(commands.COMMANDS, "info", fail)
    assert main(["info"]) == FAILED
    assert capsys.readouterr().err == "tintype info: not enough memory; ask for smaller or fewer pictures\n"
    monkeypatch.setitem(commands.COMMANDS, "train", fail)
    assert main(["train", "list"]) == FAILED
    assert "ask for a smaller train.batch_size" in capsys.readouterr().err
    monkeypatch.setitem(commands.COMMANDS, "info", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["info"])


def test_a_home_that_is_not_there_and_a_bomb_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model '~nosuchuser/m'" in refused(capsys, "info", "~nosuchuser/m")
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    assert "not a readable picture" in refused(capsys, "txt2img", "--from", str(bomb))


def test_a_model_in_the_folder_one_stands_in_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(Path(tintype.__file__).parent / "weights" / "default", folder)
    monkeypatch.chdir(folder)
    assert main(["txt2img", PROMPT, *QUICK, "-m", ".", "-o", "../here.png"]) == DONE
    with Image.open(tmp_path / "here.png") as picture:
        assert "Model: mine" in picture.info["parameters"]


def test_a_picture_is_not_drawn_over_the_one_it_is_made_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = tmp_path / "in.png"
    Image.new("RGB", (64, 64), "red").save(begun)
    before = begun.read_bytes()
    assert main(["img2img", "a frog", "-i", str(begun), "-o", str(begun), "--steps", "2"]) == USAGE
    assert "is the image it is made from; expected another name" in capsys.readouterr().err
    assert begun.read_bytes() == before
