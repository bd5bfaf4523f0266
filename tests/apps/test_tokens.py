"""`tintype tokens`, as a user meets it."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from tintype.apps.cli import DONE, USAGE, main
from tintype.checkpoints import load
from tintype.conditioning.text import TextConfig
from tintype.conditioning.towers import TextTowers, TextTowersConfig
from tintype.models.clip import CLIPTextConfig


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["tokens", *arguments]) == DONE
    return capsys.readouterr().out


def test_tokens_ids_weights_and_chunks(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "a (puppy:1.3), [cat:dog:0.5] BREAK x", "--steps", "10").splitlines()
    assert lines[0] == "'a (puppy:1.3), cat BREAK x'  (weight 1, until step 5 of 10)"
    assert [line.split() for line in lines[1:8]] == [
        ["chunk", "1:", "4", "of", "75", "tokens"],
        ["320", "a</w>", "1"],
        ["6829", "puppy</w>", "1.3"],
        ["267", ",</w>", "1"],
        ["2368", "cat</w>", "1"],
        ["chunk", "2:", "1", "of", "75", "tokens"],
        ["343", "x</w>", "1"],
    ]
    assert lines[8].startswith("'a (puppy:1.3), dog BREAK x'  (weight 1, until step 10 of 10)")


def test_parts_of_an_and(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shown(capsys, "a cat :1.2 AND [x|y]", "--steps", "2", "--json"))
    phases = [(one["weight"], one["until"], one["text"]) for one in found["phases"]]
    assert phases == [(1.2, 2, "a cat"), (1.0, 1, " x"), (1.0, 2, " y")]
    assert found["phases"][0]["towers"][0]["chunks"] == [
        [
            {"id": 320, "token": "a</w>", "word": "a", "weight": 1.0},
            {"id": 2368, "token": "cat</w>", "word": "cat", "weight": 1.0},
        ]
    ]


def test_plain_text_shows_what_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "(x:2) AND " + "apple " * 72, "--prompt-style", "plain")
    assert "chunk 1: 75 of 75 tokens" in out
    assert "chunk 2" not in out
    assert "does not fit: 'apple', 'apple', 'apple'" in out


def test_a_model_s_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "a (red:1.5) zyzzyva " + "frog " * 29, "-m", "default")
    assert "chunk 1: 30 of 30 tokens" in out
    assert "the model never saw: 'zyzzyva'" in out
    assert "does not fit: 'frog'" in out


def test_each_tower_of_a_model_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clip = CLIPTextConfig(width=8, num_layers=1, num_heads=1)
    with torch.device("meta"):
        towers = TextTowers(TextTowersConfig(towers=(TextConfig(clip=clip), TextConfig(clip=clip, pooled=True))))
    model = dataclasses.replace(load("default"), conditioner=towers)
    monkeypatch.setattr("tintype.checkpoints.load", lambda name, device: model)
    out = shown(capsys, "a", "-m", "two")
    assert "  tower 1  chunk 1: 1 of 75 tokens" in out
    assert "  tower 2  chunk 1: 1 of 75 tokens" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "--steps", "0"], "--steps 0: expected 1 to 1000"),
        (["(a:1.2.3)"], "weight '1.2.3'; expected a number"),
        (["a", "-m", "nowhere"], "no model 'nowhere'"),
    ],
)
def test_what_cannot_be_shown_is_named(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["tokens", *arguments]) == USAGE
    assert words in capsys.readouterr().err


def test_without_a_model_no_torch_is_loaded() -> None:
    code = "import sys; from tintype.apps.cli import main; main(['tokens', 'a cat']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
