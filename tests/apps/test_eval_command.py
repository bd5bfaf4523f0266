"""`tintype eval scenes` as a user meets it, on very few pictures."""

import dataclasses
import json
from collections.abc import Sequence

import pytest
from PIL import Image

import tintype
import tintype.evaluation.scenes
from tintype.apps.cli import DONE, USAGE, main
from tintype.families.base import LatentDiffusion
from tintype.generation import generate_each
from tintype.tasks.request import Request

FEW = ["--objects", "2", "--pairs", "2"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def sketch(model: LatentDiffusion, prompts: Sequence[str], request: Request) -> list[Image.Image]:
        return generate_each(model, prompts, dataclasses.replace(request, steps=2))

    monkeypatch.setattr(tintype.evaluation.scenes, "generate_each", sketch)
    monkeypatch.setattr(tintype.evaluation.scenes, "RECONSTRUCTED", 2)


@pytest.mark.usefixtures("quick")
def test_eval_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "scenes", "default", "--device", "cpu", *FEW, "--json"]) == DONE
    told = capsys.readouterr()
    assert told.err == ""
    result = json.loads(told.out)
    groups = ["one_object_held_out", "one_object_seen", "two_objects_held_out"]
    assert list(result) == ["model", "judge", "unread_words", "autoencoder", *groups]
    assert result["model"] == tintype.load("default", device="cpu").digest
    assert len(result["judge"]) == 10
    assert result["autoencoder"].keys() == {"psnr", "psnr_of_mean_error"}
    scores = {"classifier_top1", "classifier_top5", "template_top1"}
    for name in groups:
        figures = result[name]
        others = {"pictures", "distinct", "background", "shuffled_classifier_top1", "rendered", "reconstructed"}
        assert figures.keys() == scores | others
        assert figures["rendered"].keys() == figures["reconstructed"].keys() == scores
        assert figures["pictures"] == 2


def test_eval_refuses_too_few_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "scenes", "default", "--device", "cpu", "--pairs", "1", "--json"]) == USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("tintype eval: objects 500, pairs 1: expected 2 or more")
