"""Retrieval against torchmetrics, against sorting by hand, and against guessing."""

import dataclasses
import math

import fidelity_oracle  # noqa: F401  (torchmetrics does not come without)
import pytest
import torch
import torch.nn.functional as F
from network_oracles import randomize
from test_clip_pair import SMALL
from torch import Tensor
from torchmetrics.retrieval import RetrievalHitRate

from tintype.conditioning.clip import CLIPModel
from tintype.evaluation import retrieval as module
from tintype.evaluation.retrieval import class_features, ranks, retrieval, zero_shot
from tintype.models.clip_pair import CLIP


def features(count: int, captions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, `captions` texts of each in another order, and whose they are."""
    drawn = torch.Generator().manual_seed(1)
    images = torch.randn(count, 6, generator=drawn)
    image_of = torch.arange(count).repeat(captions)[torch.randperm(count * captions, generator=drawn)]
    texts = images[image_of] + 1.2 * torch.randn(len(image_of), 6, generator=drawn)
    return F.normalize(images), F.normalize(texts), image_of


@pytest.mark.parametrize("captions", [1, 3])
@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_is_torchmetrics(captions: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their hit rate; a query of theirs is a row of all cosines. Ours compares in chunks that do not come out even."""
    monkeypatch.setattr(module, "QUERIES", 7)
    monkeypatch.setattr(module, "GALLERY", 11)
    images, texts, image_of = features(40, captions)
    cosines = images @ texts.T
    right = image_of[None] == torch.arange(40)[:, None]
    got = retrieval(images, texts, image_of, at=(k,))
    for name, scores, target in (("image_to_text", cosines, right), ("text_to_image", cosines.T, right.T)):
        rows = torch.arange(len(scores))[:, None].expand_as(scores)
        expected = float(RetrievalHitRate(top_k=k)(scores.flatten(), target.flatten(), indexes=rows.flatten()))
        assert 0.1 < expected < 1
        assert got[f"{name}_r{k}"] == pytest.approx(expected, abs=1e-6)


def test_features_that_are_all_the_same_score_what_guessing_does() -> None:
    same = F.normalize(torch.ones(20, 6))
    found = retrieval(same, same.repeat(3, 1), torch.arange(20).repeat(3))
    for k in (1, 5, 10):
        assert found[f"text_to_image_r{k}"] == pytest.approx(k / 20)
        none_of_three = math.comb(57, k) / math.comb(60, k)
        assert found[f"image_to_text_r{k}"] == pytest.approx(1 - none_of_three, abs=1e-6)


def test_a_tie_is_half_a_hit() -> None:
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = retrieval(images, images, torch.arange(3), at=(1, 2))
    assert found["text_to_image_r1"] == pytest.approx((0.5 + 0.5 + 1) / 3, abs=1e-6)
    assert found["text_to_image_r2"] == 1


def test_equal_features_tie_in_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the products of equal features are rounded there."""
    vector = F.normalize(torch.randn(1, 333, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(module, "GALLERY", 7)
    found = ranks(vector, vector.repeat(50, 1), torch.tensor([[0, 20]]))
    assert (found.before.tolist(), found.tied.tolist(), found.right.tolist()) == ([0], [49], [1])


def test_zero_shot_by_hand() -> None:
    classes = F.normalize(torch.tensor([[1.0, 0.1], [0.1, 1.0], [-1.0, 0.0]]))
    images = F.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.3], [-1.0, 0.2], [0.0, -1.0]]))
    found = zero_shot(images, classes, torch.tensor([0, 1, 2, 2]), at=(1, 2, 3))
    assert found == {"top1": 0.75, "top2": 1.0, "top3": 1.0}


def test_classes_are_means_over_templates() -> None:
    text = dataclasses.replace(SMALL.text, vocabulary_size=6)
    model = CLIPModel(randomize(CLIP(dataclasses.replace(SMALL, text=text))), ("apple", "red", "sun", "the"))
    got = class_features(model, ["apple", "sun"], ("the {}", "red {}"))
    expected = sum(model.encode_captions([f"{word} apple", f"{word} sun"]) for word in ("the", "red"))
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(got, F.normalize(expected))
    with pytest.raises(ValueError, match=r"template 'an apple': expected one \{\} in it"):
        class_features(model, ["apple"], ("an apple",))


def test_what_does_not_fit_is_refused() -> None:
    images = F.normalize(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"image_of \(2,\) for texts \(3, 2\); expected one for each"):
        retrieval(images, images, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"1 without an answer, the first is number 1"):
        retrieval(images, images, torch.tensor([0, 0, 2]))
    with pytest.raises(ValueError, match=r"image_of names picture 3; expected numbers from 0 to 2"):
        retrieval(images, images, torch.tensor([0, 1, 3]))
    with pytest.raises(ValueError, match=r"pair \(0, 3\); expected numbers below 3 and 3"):
        ranks(images, images, torch.tensor([[0, 3]]))
    with pytest.raises(ValueError, match="not finite"):
        retrieval(images, torch.full((3, 2), torch.nan), torch.arange(3))
