"""`tintype eval` on tiny folders: one JSON and one picture, whatever is measured."""

import itertools
import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tintype
import tintype.evaluation.pictures
from tintype.apps.cli import DONE, USAGE, main
from tintype.apps.evaluate_inputs import pictures_named, stored
from tintype.checkpoints.native import save_network
from tintype.conditioning.clip import CLIPModel
from tintype.data.preparation.run import PrepareOptions, prepare
from tintype.data.prepared import Prepared
from tintype.data.selection import save_selection
from tintype.evaluation.extractors import JudgeFeatures
from tintype.evaluation.frechet import FrechetStatistics, frechet_distance, load_gaussian
from tintype.evaluation.pair_figures import PairSums
from tintype.evaluation.pictures import Sampled
from tintype.evaluation.retrieval import class_features, retrieval, zero_shot
from tintype.models.clip import CLIPTextConfig
from tintype.models.clip_image import CLIPImageConfig
from tintype.models.clip_pair import CLIP, CLIPConfig

COUNT, SIDE = 14, 64
FEW = "pictures for 256 features"


def folder(path: Path, *, count: int = COUNT, seed: int = 0, side: int = SIDE, captions: bool = False) -> Path:
    path.mkdir()
    for number in range(count):
        generator = np.random.default_rng((seed, number))
        levels = generator.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(levels).resize((side, side), Image.Resampling.BICUBIC).save(path / f"{number:03}.png")
        if captions:
            (path / f"{number:03}.txt").write_text(["a red apple", "a green frog"][number % 2])
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return folder(tmp_path / "pictures", seed=1)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return folder(tmp_path / "reference", seed=2, captions=True)


def measured(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str | Path) -> Mapping[str, object]:
    out = tmp_path / "out"
    (out / "result.json").unlink(missing_ok=True)
    command = ["eval", *map(str, arguments), "--device", "cpu", "--out", str(out), "--json"]
    assert main(command) == DONE, capsys.readouterr().err
    told = capsys.readouterr()
    assert told.err == ""
    result = json.loads(told.out)
    assert json.loads((out / "result.json").read_text()) == result
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 8 * 128
        assert np.asarray(sheet).std() > 10  # something is drawn
    assert sorted(path.name for path in out.iterdir()) == ["result.json", "sheet.png"]
    return result


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str | Path) -> str:
    out = tmp_path / f"refused{len(list(tmp_path.glob('refused*')))}"
    assert main(["eval", *map(str, arguments), "--device", "cpu", "--out", str(out), "--json"]) == USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert not (out / "result.json").exists()
    return told.err


def pixels(path: Path) -> Tensor:
    shown = [np.asarray(Image.open(one).convert("RGB")) for one in sorted(path.glob("*.png"))]
    return torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2)


def test_pictures_against_a_reference(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, reference: Path
) -> None:
    statistics = tmp_path / "reference.safetensors"
    judge = ["--extractor", "judge"]
    told = measured(
        capsys, tmp_path, "pictures", pictures, "--reference", reference, *judge, "--save-statistics", statistics
    )
    sums = [FrechetStatistics(256) for _ in range(2)]
    for one, path in zip(sums, (pictures, reference), strict=True):
        one.update(JudgeFeatures()(pixels(path)).pooled)
    expected = frechet_distance(sums[0].gaussian(), sums[1].gaussian())
    assert told["frechet_distance"] == pytest.approx(expected, rel=1e-6)
    assert str(told["extractor"]).startswith("judge-")
    assert "fid" not in told
    assert {"kernel_distance", "precision", "recall", "class_score"} <= told.keys()
    assert [FEW in line for line in told["warnings"]] == [True, True, False]
    again = measured(capsys, tmp_path, "pictures", pictures, "--reference", statistics, *judge)
    assert again["frechet_distance"] == pytest.approx(told["frechet_distance"], rel=1e-12)
    assert again["class_score"] == told["class_score"]
    assert load_gaussian(statistics).count == COUNT


def test_a_person_reads_a_table(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, reference: Path
) -> None:
    out = tmp_path / "out"
    command = ["eval", "pairs", str(pictures), "--reference", str(reference), "--out", str(out)]
    assert main(command) == DONE
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[:-1]] == [
        *("pictures", "reference", "psnr", "psnr_of_mean_error", "identical", "ssim")
    ]
    assert told[-1].endswith("sheet.png")


def test_pairs(capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, reference: Path) -> None:
    told = measured(capsys, tmp_path, "pairs", pictures, "--reference", reference, "--batch-size", "5")
    error = (pixels(pictures).double() - pixels(reference).double()).square().mean(dim=(1, 2, 3))
    assert told["psnr"] == pytest.approx(float((10 * torch.log10(255**2 / error)).mean()), rel=1e-9)
    same = measured(capsys, tmp_path, "pairs", reference, "--reference", reference)
    assert (same["psnr"], same["identical"], same["ssim"]) == (None, COUNT, pytest.approx(1))


def test_reconstructions_of_an_autoencoder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    reference = folder(tmp_path / "few", count=2)
    model = tintype.load("default", device="cpu")
    file = tmp_path / "autoencoder.safetensors"
    save_network(file, "autoencoder", model.config.autoencoder, model.autoencoder.state_dict(), dtype=torch.float32)
    asked = ["--data", reference, "--extractor", "judge"]
    told = measured(capsys, tmp_path, "reconstruction", file, *asked)
    image = pixels(reference)
    with torch.inference_mode():
        made = model.autoencoder.decode(model.autoencoder.encode(image.float() / 127.5 - 1).mean)
    levels = (made.clamp(-1, 1) * 127.5 + 127.5).round()
    error = (levels.double() - image.double()).square().mean(dim=(1, 2, 3))
    assert told["psnr"] == pytest.approx(float((10 * torch.log10(255**2 / error)).mean()), rel=1e-4)
    assert {"ssim", "reconstruction_frechet_distance"} <= told.keys()
    assert "rfid" not in told
    whole = measured(capsys, tmp_path, "reconstruction", "default", *asked)
    assert whole["psnr"] == told["psnr"]


def test_a_model_is_sampled_from_the_captions_of_the_reference(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, reference: Path
) -> None:
    flags = ["--extractor", "judge", "--count", "3", "--steps", "1", "--figures", "fid", "--batch-size", "2"]
    told = measured(capsys, tmp_path, "pictures", "default", "--reference", reference, *flags)
    model = tintype.load("default", device="cpu")
    request = tintype.Request(seed=0, steps=1, batch_size=2)
    made = tintype.evaluation.pictures.generate_each(model, ["a red apple", "a green frog"], request)
    made += tintype.evaluation.pictures.generate_each(
        model, ["a red apple"], tintype.Request(seed=2, steps=1, batch_size=1)
    )
    sums = [FrechetStatistics(256) for _ in range(2)]
    shown = torch.from_numpy(np.stack([np.asarray(one) for one in made])).permute(0, 3, 1, 2)
    sums[0].update(JudgeFeatures()(shown).pooled)
    sums[1].update(JudgeFeatures()(pixels(reference)).pooled)
    expected = frechet_distance(*(one.gaussian() for one in sums))
    assert told["frechet_distance"] == pytest.approx(expected, rel=1e-4)
    assert told["pictures"]["model"] == model.digest


def test_what_is_sampled_from_other_captions_is_told_otherwise(tmp_path: Path, reference: Path) -> None:
    def named(captions: Path | None) -> object:
        told = {"pictures": "default", "captions": captions, "count": 3, "seed": 0, "steps": 1, "size": None}
        return pictures_named(Namespace(**told, device="cpu"), stored(str(reference), None)).told

    other = folder(tmp_path / "other", seed=2, captions=True)
    assert named(None) == named(reference) != named(other)
    before = named(reference)
    (reference / "003.txt").write_text("a blue whale")
    assert named(reference) != before


def tiny_clip(path: Path) -> CLIPModel:
    torch.manual_seed(0)
    text = CLIPTextConfig(vocabulary_size=49_408, width=8, num_layers=1, num_heads=2, projection_dim=6)
    image = CLIPImageConfig(image_size=32, patch_size=16, width=8, num_layers=1, num_heads=2, projection_dim=6)
    clip = CLIPModel(CLIP(CLIPConfig(text=text, image=image)))
    save_network(path, "clip", clip.config, clip.network.state_dict(), dtype=torch.float32)
    return clip


def test_clip_score(capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, reference: Path) -> None:
    clip = tiny_clip(tmp_path / "clip.safetensors")
    command = ["clip-score", pictures, "--clip", tmp_path / "clip.safetensors", "--captions", reference]
    told = measured(capsys, tmp_path, *command, "--batch-size", "4")
    shown = [np.asarray(Image.open(one)) for one in sorted(pictures.glob("*.png"))]
    captions = [one.read_text() for one in sorted(reference.glob("*.txt"))]
    assert told["clip_score"] == pytest.approx(float(clip.score(shown, captions).double().mean()), rel=1e-5)
    for command in (["clip-score", pictures, "--clip"], ["retrieval", "--data", pictures]):
        said = refused(capsys, tmp_path, *command, tmp_path / "clip.safetensors")
        assert f"14 of 14 samples of {pictures} have no caption (first: 000.png); expected one for each" in said
    extractor = ["--extractor", "clip", "--weights", tmp_path / "clip.safetensors"]
    by_clip = measured(capsys, tmp_path, "pictures", pictures, "--reference", reference, *extractor)
    assert str(by_clip["extractor"]).startswith("clip-")
    assert "class_score" not in by_clip
    assert any("tells no classes apart" in line for line in by_clip["warnings"])


def test_retrieval_and_zero_shot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path / "clip.safetensors")
    source = tmp_path / "source"
    source.mkdir()
    for seed, name in enumerate(("apple", "frog")):
        folder(source / name, count=4, seed=seed, captions=True)
    assert main(["prepare", str(source), str(tmp_path / "data"), "--kind", "classes", "--json"]) == DONE
    capsys.readouterr()
    data = Prepared(tmp_path / "data")
    samples = [data[number] for number in range(len(data))]
    told = measured(
        capsys, tmp_path, "retrieval", tmp_path / "clip.safetensors", "--data", tmp_path / "data", "--batch-size", "3"
    )
    images = clip.encode_pictures([one.picture for one in samples if one.picture is not None])
    texts = clip.encode_captions([one.caption for one in samples if one.caption is not None])
    expected = retrieval(images, texts, torch.arange(len(samples)))
    assert {name: told[name] for name in expected} == pytest.approx(expected)
    accuracy = zero_shot(images, class_features(clip, data.classes), torch.tensor([one.label for one in samples]))
    assert told["zero_shot_top1"] == pytest.approx(accuracy["top1"])
    assert told["captions"] == 8


def test_a_result_of_other_settings_is_not_lost(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    pictures: Path,
    reference: Path,
) -> None:
    def run(what: str, *arguments: str | Path) -> int:
        return main(["eval", what, *map(str, arguments), "--out", str(tmp_path / "out"), "--device", "cpu", "--json"])

    pairs = ["pairs", pictures, "--reference", reference]
    result = tmp_path / "out" / "result.json"
    assert run(*pairs, "--size", "32") == DONE
    kept = result.read_bytes()
    for other, words in (
        (pairs, "size was 32, is None"),
        (["pairs", reference, "--reference", reference, "--size", "32"], f"pictures was {pictures}, is {reference}"),
        (["reconstruction", "default", "--data", reference], "measure was pairs, is reconstruction"),
    ):
        assert run(*other) == USAGE
        message = capsys.readouterr().err
        assert words in message
        assert "name one with --out, or remove that file" in message
        assert result.read_bytes() == kept
    assert run(*pairs, "--size", "32") == DONE  # the same, measured again
    assert not caplog.records
    (pictures / "000.png").write_bytes((reference / "000.png").read_bytes())
    assert run(*pairs, "--size", "32") == DONE
    assert "result.json is replaced; it had other pictures, psnr," in caplog.text


def test_a_stopped_measurement_goes_on(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    pictures: Path,
    reference: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["pairs", pictures, "--reference", reference, "--batch-size", "3"]
    whole = measured(capsys, tmp_path, *command)
    update, calls = PairSums.update, 0

    def dying(self: PairSums, first: int, samples: list[object]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        update(self, first, samples)

    clock = SimpleNamespace(monotonic=itertools.count(step=100).__next__)  # so that it saves after every batch
    monkeypatch.setattr("tintype.evaluation.streaming.time", clock)
    monkeypatch.setattr(PairSums, "update", dying)
    flags = ["--device", "cpu", "--out", str(tmp_path / "out"), "--json"]
    assert main(["eval", *map(str, command), *flags]) == 130
    capsys.readouterr()
    assert measured(capsys, tmp_path, *command) == whole
    assert calls == 3 + 3  # batches of 3: two are done, the rest of 14 takes three


def test_bad_input_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    larger = folder(tmp_path / "larger", side=80)
    fewer = folder(tmp_path / "fewer", count=3)
    judge = ["--extractor", "judge"]
    cases: list[tuple[list[str | Path], str]] = [
        (
            ["pictures", tmp_path / "empty", "--reference", reference, *judge],
            "has no pictures; expected files that end",
        ),
        (["pictures", "nowhere", "--reference", reference, *judge], "nowhere: no such folder or model"),
        (["pictures", larger, "--reference", reference, *judge], "pictures of 80 x 80, a reference of 64 x 64"),
        (["pictures", pictures, "--reference", reference, "--extractor", "inception"], "6726825d.pth from https://"),
        (
            ["pictures", pictures, "--reference", reference, "--extractor", "inception", "--weights", "no.pth"],
            "no.pth: no such file; expected Inception's weights",
        ),
        (
            ["pictures", pictures, "--reference", reference, *judge, "--figures", "fdi"],
            "--figures fdi: expected some of",
        ),
        (
            ["pictures", pictures, "--reference", reference, *judge, "--count", "3"],
            "--count and --steps are for models",
        ),
        (["pictures", pictures, "--reference", reference, *judge, "--batch-size", "0"], "--batch-size 0"),
        (["pictures", pictures, "--reference", reference, *judge, "--neighbours", "20"], "20 neighbours among 14"),
        (
            ["pictures", fewer, "--reference", reference, *judge, "--figures", "inception_score"],
            "3 pictures in 10 splits",
        ),
        (["pictures", "default", "--reference", pictures, *judge], "a sample without a caption"),
        (["pictures", "default", "--reference", reference, *judge, "--size", "32"], "the model makes pictures of 64"),
        (["pairs", fewer, "--reference", reference], "3 pictures, 14 of the reference; expected as many"),
        (["pairs", larger, "--reference", reference], "pictures of 80 x 80, a reference of 64 x 64"),
        (
            ["reconstruction", "default", "--data", reference, "--size", "30"],
            "pictures of 30 x 30; expected multiples of",
        ),
        (["clip-score", "default", "--clip", "c"], "nothing to tell it; name a data set with --captions"),
        (
            ["pictures", pictures, "--reference", "nope.npz", *judge],
            "nope.npz: no such file or folder; expected statist",
        ),
    ]
    drawn = ["pictures", "default", "--reference", reference, *judge, "--count", "3"]
    with monkeypatch.context() as patch:
        patch.setattr(Sampled, "batch", lambda *_: pytest.fail("nothing is to be drawn"))
        assert "3 neighbours among 3; expected 1 to 2" in refused(capsys, tmp_path, *drawn)
    for command, words in cases:
        message = refused(capsys, tmp_path, *command)
        assert words in message, (command, message)
    (pictures / "003.png").write_bytes(b"not a picture")
    assert "003.png is not a readable picture" in refused(capsys, tmp_path, "pairs", pictures, "--reference", reference)
    (pictures / "003.png").rename(pictures / "0035.png")
    assert "picture 0035 stands beside 003" in refused(capsys, tmp_path, "pairs", pictures, "--reference", reference)


def test_sizes_are_made_equal_when_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path, reference: Path) -> None:
    larger = folder(tmp_path / "larger", seed=2, side=128)
    told = measured(capsys, tmp_path, "pairs", larger, "--reference", reference, "--size", "32")
    assert float(str(told["psnr"])) > 25  # the same pictures, drawn at two sizes
    assert told["size"] == 32


def test_a_filtered_folder_is_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    prepare(folder(tmp_path / "pictures", seed=1), tmp_path / "prepared", PrepareOptions())
    (tmp_path / "chosen").mkdir()
    save_selection(tmp_path / "chosen", Prepared(tmp_path / "prepared"), np.arange(3, 12))
    found = measured(capsys, tmp_path, "pairs", tmp_path / "chosen", "--reference", tmp_path / "chosen")
    assert found["pictures"]["pictures"] == 9
