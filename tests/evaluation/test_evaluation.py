"""The judges must see what is there, miss what is not, and the prompts must be what they claim."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import Tensor

import tintype
import tintype.evaluation.scenes
from tintype.checkpoints.native import save_network
from tintype.conditioning.text import TextConditioner, TextConfig, word_ids
from tintype.data.glyphs import FONT_VARIABLE
from tintype.data.scenes import COLOURS, Plan, SceneConfig, Scenes, held_out, is_held_out
from tintype.data.sources import reading, to_tensor
from tintype.evaluation.scenes import (
    SEED,
    Judge,
    Judged,
    background_right,
    captioned,
    evaluate_scenes,
    judged_objects,
    one_object_plans,
    reconstruction,
    table,
    two_object_plans,
    unread_words,
)
from tintype.evaluation.templates import border_colour
from tintype.families.base import LatentDiffusion
from tintype.models.autoencoder import Posterior
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.models.clip import CLIPTextConfig
from tintype.tasks.request import Request

EXPECTED = {"one_object": 0.85, "two_objects": 0.70, "background": 0.98, "psnr": 26.0, "shuffled": 0.05}


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(SceneConfig(split="all", plain_captions=True, seed=SEED))


@pytest.fixture(scope="module")
def judge(scenes: Scenes) -> Judge:
    return Judge(scenes)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default", device="cpu")


def rendered(scenes: Scenes, plans: Sequence[Plan]) -> Tensor:
    return to_tensor([scenes.render(plan).picture for plan in plans])


# The prompts


def test_prompts_are_held_out_and_the_seen_ones_are_not(scenes: Scenes) -> None:
    for plan in one_object_plans(scenes, 500, unseen=True):
        assert held_out("colour", plan.placements[0].emoji.name, plan.colours[0])
    for plan in one_object_plans(scenes, 100, unseen=False):
        assert not any(is_held_out(plan))
    for plan in two_object_plans(scenes, 200):
        assert held_out("pair", plan.placements[0].emoji.name, plan.placements[1].emoji.name)


def test_no_prompt_comes_twice_before_all_have_come(scenes: Scenes) -> None:
    names = [emoji.name for emoji in scenes.emoji]
    combinations = sum(held_out("colour", name, colour) for name in names for colour in COLOURS)
    captions = [plan.caption for plan in one_object_plans(scenes, combinations + 10, unseen=True)]
    assert len(set(captions)) == combinations
    assert captions[combinations:] == captions[:10]


def test_the_prompts_never_move(scenes: Scenes) -> None:
    """Published numbers rest on them."""
    groups = (
        one_object_plans(scenes, 2, unseen=True),
        one_object_plans(scenes, 2, unseen=False),
        two_object_plans(scenes, 2),
    )
    assert [plan.caption for plans in groups for plan in plans] == [
        "a pencil on a gray background",
        "a hot beverage on a blue background",
        "a hammer on a green background",
        "fire on a navy background",
        "a microphone to the right of a cupcake on a pink background",
        "a locomotive above a rainbow on a sky blue background",
    ]
    again = Scenes(scenes.config)
    assert groups == (
        one_object_plans(again, 2, unseen=True),
        one_object_plans(again, 2, unseen=False),
        two_object_plans(again, 2),
    )


# The judges


def test_judges_read_rendered_scenes_and_not_shuffled_ones(scenes: Scenes, judge: Judge) -> None:
    for plans in (one_object_plans(scenes, 30, unseen=True), two_object_plans(scenes, 30)):
        image = rendered(scenes, plans)
        judged = judged_objects(judge, scenes, image, plans)
        scores, shuffled = judged.scores(), judged.shuffled().scores()
        assert min(scores.values()) >= 0.95
        assert max(shuffled["classifier_top1"], shuffled["template_top1"]) <= 0.1
        assert background_right(image, plans) == 1.0


def test_scores_count_the_best_answer_and_the_best_five() -> None:
    ranking = torch.arange(8).repeat(4, 1)
    judged = Judged(wanted=torch.tensor([0, 3, 4, 7]), classifier=ranking, templates=ranking.roll(1, dims=1))
    assert judged.scores() == {"classifier_top1": 0.25, "classifier_top5": 0.75, "template_top1": 0.25}
    assert sorted(judged.shuffled().wanted.tolist()) == [0, 3, 4, 7]
    assert not (judged.shuffled().wanted == judged.wanted).any()


@pytest.mark.parametrize("count", [2, 3, 4, 200, 400, 500, 842])
def test_shuffled_answers_are_held_against_other_pictures(count: int) -> None:
    """Whether a picture has one row or two; 421 prompts come round twice in 842."""
    rows = torch.arange(count)
    judged = Judged(wanted=rows, classifier=rows[:, None], templates=rows[:, None])
    shuffled = judged.shuffled().wanted
    assert sorted(shuffled.tolist()) == rows.tolist()
    assert not (shuffled == rows).any()
    if count >= 4:
        assert not (shuffled // 2 == rows // 2).any()
    assert int((shuffled % 421 == rows % 421).sum()) <= 2


def test_templates_lie_on_the_ground_of_the_whole_picture(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a half, a large part of the border may be the object's."""
    grounds: list[Tensor] = []

    def distances(image: Tensor, background: Tensor) -> Tensor:
        grounds.append(background)
        return torch.zeros(len(image), 256)

    monkeypatch.setattr(judge.single, "distances", distances)
    monkeypatch.setattr(judge.half, "distances", distances)
    image = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    judge.objects(image, [0, 0, 0], ["whole", "left", "top"])
    assert torch.equal(torch.cat(grounds), border_colour(image))
    assert not torch.equal(grounds[1], border_colour(reading(image[1:2], "left")))


def test_swapped_objects_count_as_wrong(scenes: Scenes, judge: Judge) -> None:
    plans = [plan for plan in two_object_plans(scenes, 40) if plan.relation.startswith("to the")]
    scores = judged_objects(judge, scenes, rendered(scenes, plans).flip(-1), plans).scores()
    assert max(scores["classifier_top1"], scores["template_top1"]) <= 0.1


def test_wrong_backgrounds_count_as_wrong(scenes: Scenes) -> None:
    plans = [plan for plan in one_object_plans(scenes, 40, unseen=True) if plan.colours[0] != "gray"]
    gray = torch.full((len(plans), 3, 64, 64), 0.07)
    assert background_right(gray, plans) == 0.0
    some = torch.cat((rendered(scenes, plans)[:9], gray[9:]))
    assert background_right(some, plans) == round(9 / len(plans), 4)


def test_reconstruction_is_the_error_in_decibels(
    model: LatentDiffusion, scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first stage that is off by 0.02 of a range of 2: 40 dB."""
    monkeypatch.setattr(tintype.evaluation.scenes, "RECONSTRUCTED", 3)
    gray = SimpleNamespace(
        post_quant_conv=model.autoencoder.post_quant_conv,
        encode=lambda image: Posterior(image, image),
        decode=lambda latent: latent - 0.02 * latent.sign(),
    )
    off = dataclasses.replace(model, autoencoder=gray)
    assert reconstruction(off, scenes) == pytest.approx({"psnr": 40.0, "psnr_of_mean_error": 40.0}, abs=0.01)


# The whole


def test_a_model_gets_the_marks_of_its_own_pictures(
    model: LatentDiffusion, scenes: Scenes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of each four, the second shows other objects, the third and fourth stand on white, which none asks for."""
    groups = {
        "one_object_held_out": one_object_plans(scenes, 4, unseen=True),
        "one_object_seen": one_object_plans(scenes, 4, unseen=False),
        "two_objects_held_out": two_object_plans(scenes, 4),
    }
    asked: list[str] = []
    drawn: list[Image.Image] = []

    def careless(plan: Plan, row: int) -> Plan:
        if row == 1:
            others = scenes.emoji[100:]  # fruit, which no prompt names
            placed = zip(plan.placements, others, strict=False)
            return dataclasses.replace(plan, placements=tuple(dataclasses.replace(one, emoji=to) for one, to in placed))
        return dataclasses.replace(plan, colours=("white",)) if row > 1 else plan

    def generate_each(_: LatentDiffusion, prompts: Sequence[str], request: Request) -> list[Image.Image]:
        plans = list(groups.values())[len(asked) // 4]
        asked.extend(prompts)
        pictures = [scenes.render(careless(plan, row)).picture for row, plan in enumerate(plans)]
        drawn.extend(Image.fromarray(picture) for picture in pictures)
        return drawn[-4:]

    monkeypatch.setattr(tintype.evaluation.scenes, "generate_each", generate_each)
    monkeypatch.setattr(tintype.evaluation.scenes, "RECONSTRUCTED", 2)
    sheet = tmp_path / "sheet.png"
    result = evaluate_scenes(model, objects=4, pairs=4, sheet=sheet, quiet=True)

    assert asked == [plan.caption for plans in groups.values() for plan in plans]
    full = {"classifier_top1": 1.0, "classifier_top5": 1.0, "template_top1": 1.0}
    for name in groups:
        figures = result[name]
        assert isinstance(figures, dict)
        assert {key: figures[key] for key in full} == dict.fromkeys(full, 0.75)
        assert figures["background"] == 0.5
        assert figures["rendered"] == figures["reconstructed"] == full
    shown = [*zip(drawn[:4], asked[:4], strict=True), *zip(drawn[8:], asked[8:], strict=True)]
    with Image.open(sheet) as picture:
        for number, (one, caption) in enumerate(shown):
            cell = captioned([one], [caption], columns=1)
            left = number * cell.width
            assert picture.crop((left, 0, left + cell.width, cell.height)).tobytes() == cell.tobytes()


@pytest.fixture
def perfect(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Instead of a model's pictures, those the prompts ask for. Holds the seed of each picture asked for."""
    plans = [*one_object_plans(scenes, 7, unseen=True), *one_object_plans(scenes, 4, unseen=False)]
    drawn = {plan.caption: plan for plan in (*plans, *two_object_plans(scenes, 4))}
    seeds: list[int] = []

    def generate_each(_: LatentDiffusion, prompts: Sequence[str], request: Request) -> list[Image.Image]:
        assert request == Request(seed=request.seed)  # everything else is the model's own choice
        seeds.extend(range(request.seed, request.seed + len(prompts)))
        return [Image.fromarray(scenes.render(drawn[prompt]).picture) for prompt in prompts]

    monkeypatch.setattr(tintype.evaluation.scenes, "generate_each", generate_each)
    monkeypatch.setattr(tintype.evaluation.scenes, "RECONSTRUCTED", 4)
    monkeypatch.setattr(tintype.evaluation.scenes, "BATCH", 5)
    return seeds


def test_a_perfect_model_gets_full_marks(model: LatentDiffusion, perfect: list[int], tmp_path: Path) -> None:
    sheet = tmp_path / "new" / "sheet.PNG"
    result = evaluate_scenes(model, objects=7, pairs=4, sheet=sheet, quiet=True)
    counts = {"one_object_held_out": 7, "one_object_seen": 4, "two_objects_held_out": 4}
    assert list(result) == ["model", "judge", "unread_words", "autoencoder", *counts]
    assert (result["model"], result["unread_words"]) == (model.digest, [])
    shipped = Path(tintype.__file__).parent / "weights" / "judge.safetensors"
    assert result["judge"] == hashlib.sha256(shipped.read_bytes()).hexdigest()[:10]
    for name, count in counts.items():
        figures = result[name]
        assert isinstance(figures, dict)
        assert (figures["pictures"], figures["distinct"]) == (count, count)
        assert (figures["classifier_top5"], figures["template_top1"], figures["background"]) == (1.0, 1.0, 1.0)
        assert figures["rendered"] == {key: figures[key] for key in figures["rendered"]}
        assert figures["shuffled_classifier_top1"] <= 0.5  # two of the four that were seen show fire
    assert perfect == [SEED + number for count in counts.values() for number in range(count)]
    assert [entry.name for entry in sheet.parent.iterdir()] == ["sheet.PNG"]
    with Image.open(sheet) as picture:
        assert (picture.format, picture.width) == ("PNG", 8 * 136)


def test_a_prompt_that_comes_twice_is_one_of_the_distinct(
    model: LatentDiffusion, perfect: list[int], scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = one_object_plans(scenes, 3, unseen=True)
    monkeypatch.setattr(tintype.evaluation.scenes, "one_object_plans", lambda *_, **__: [*plans, plans[1]])
    result = evaluate_scenes(model, objects=4, pairs=4, quiet=True)
    figures = result["one_object_held_out"]
    assert isinstance(figures, dict)
    assert (figures["pictures"], figures["distinct"], len(perfect)) == (4, 3, 12)


def test_the_whole_evaluation_runs(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tintype.evaluation.scenes, "RECONSTRUCTED", 32)
    result = evaluate_scenes(model, objects=4, pairs=4, quiet=True)
    assert result["autoencoder"]["psnr"] > 20
    for name in ("one_object_held_out", "one_object_seen", "two_objects_held_out"):
        assert result[name]["reconstructed"]["classifier_top1"] >= 0.75
        assert result[name]["background"] >= 0.75  # what even an unfinished model draws right
    lines = table(result).splitlines()
    assert lines[:3] == [f"model: {model.digest}", f"judge: {result['judge']}", "unread_words: none"]
    assert f"  {'background':28}{result['two_objects_held_out']['background']}" in lines


@pytest.mark.slow
def test_the_embedded_model_draws_what_it_is_asked(model: LatentDiffusion) -> None:
    result = evaluate_scenes(model, quiet=True)
    one, two = result["one_object_held_out"], result["two_objects_held_out"]
    assert result["unread_words"] == []
    assert result["autoencoder"]["psnr"] >= EXPECTED["psnr"]
    assert one["classifier_top1"] >= EXPECTED["one_object"]
    assert two["classifier_top1"] >= EXPECTED["two_objects"]
    assert min(one["background"], two["background"]) >= EXPECTED["background"]
    assert max(one["shuffled_classifier_top1"], two["shuffled_classifier_top1"]) <= EXPECTED["shuffled"]


# What is refused


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("this is to be refused before any work")

    for name in ("Judge", "reconstruction", "generate_each"):
        monkeypatch.setattr(tintype.evaluation.scenes, name, work)


def test_another_judge_is_asked_when_named(scenes: Scenes, judge: Judge, tmp_path: Path) -> None:
    torch.manual_seed(0)
    for number, config in enumerate((judge.classifier.config, ClassifierConfig(num_classes=3, widths=(8,)))):
        path = tmp_path / f"{number}.safetensors"
        weights = Classifier(config).state_dict()
        save_network(path, "classifier", config, weights, dtype=torch.float16)
    plans = one_object_plans(scenes, 30, unseen=True)
    image = rendered(scenes, plans)
    other = Judge(scenes, weights=tmp_path / "0.safetensors")
    assert other.digest != judge.digest
    untrained = judged_objects(other, scenes, image, plans)
    assert (
        untrained.scores()["classifier_top1"]
        < 0.2
        < judged_objects(judge, scenes, image, plans).scores()["classifier_top1"]
    )
    with pytest.raises(ValueError, match=r"1\.safetensors tells 3 things apart at 64 pixels; expected 256 at 64"):
        Judge(scenes, weights=tmp_path / "1.safetensors")


@pytest.mark.usefixtures("no_work")
def test_too_few_prompts_are_refused(model: LatentDiffusion) -> None:
    for given in ({"objects": 1}, {"pairs": 1}):
        with pytest.raises(ValueError, match=r"(objects 1,|pairs 1:).* expected 2 or more"):
            evaluate_scenes(model, **given)


@pytest.mark.usefixtures("no_work")
def test_a_model_of_another_size_is_refused(model: LatentDiffusion) -> None:
    larger = dataclasses.replace(model, config=dataclasses.replace(model.config, size=96))
    with pytest.raises(ValueError, match="draws 96 x 96 pixels; the judge reads 64 x 64: use a model of size 64"):
        evaluate_scenes(larger)


@pytest.mark.usefixtures("no_work")
def test_without_the_font_nothing_is_done(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no-such-font"):
        evaluate_scenes(model, font="no-such-font.ttf")
    monkeypatch.setenv(FONT_VARIABLE, "no-such-font.ttf")
    with pytest.raises(ValueError, match="no-such-font"):
        evaluate_scenes(model)


@pytest.mark.usefixtures("no_work")
def test_a_sheet_that_cannot_be_written_is_refused(
    model: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    for name, message in (
        ("sheet.jpg", r"sheet\.jpg: expected the name of a file that ends in \.png"),
        ("sheet", r"expected the name of a file that ends in \.png"),
        ("folder.png", r"folder\.png: expected the name of a file"),
        ("file/sheet.png", "name a folder that can be made"),
        ("file/deeper/sheet.png", "name a folder that can be made"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_scenes(model, sheet=tmp_path / name)
    monkeypatch.setattr("os.access", lambda *_: False)  # file modes do not stop root
    with pytest.raises(ValueError, match="cannot be written; name a folder that you may write to"):
        evaluate_scenes(model, sheet=tmp_path / "sheet.png")


def test_words_that_a_model_does_not_read_are_named(model: LatentDiffusion) -> None:
    words = ("a", "apple", "background", "green", "on", "red")
    clip = CLIPTextConfig(context_length=6, width=8, num_layers=1, num_heads=1, vocabulary_size=len(word_ids(words)))
    taught = dataclasses.replace(model, conditioner=TextConditioner(TextConfig(clip=clip, words=words)))
    assert unread_words(taught, ["a red apple on a green background", "a red owl"]) == [
        "a",
        "background",
        "green",
        "owl",
    ]
    assert unread_words(taught, ["a red apple", "an owl", "an owl"]) == ["an", "owl"]
