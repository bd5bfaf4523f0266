"""The contrastive losses against open_clip's on equal features, and on eight samples."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from open_clip_oracles import open_clip
from torch import Tensor

from tintype.common.files import load_tensors
from tintype.common.rng import generator
from tintype.models.clip import CLIPTextConfig
from tintype.models.clip_image import CLIPImageConfig
from tintype.models.clip_pair import CLIP, CLIPConfig
from tintype.objectives.base import GatheredObjective, Settling
from tintype.objectives.contrastive import ContrastiveConfig, ContrastiveObjective, loss_at_chance
from tintype.training.config import TrainConfig
from tintype.training.loop import train
from tintype.training.world import World

Kind = Literal["softmax", "sigmoid"]
KINDS: tuple[Kind, ...] = ("softmax", "sigmoid")
WHOLE = slice(0, 8)


def make(kind: Kind, **settings: float) -> ContrastiveObjective:
    torch.manual_seed(0)
    text = CLIPTextConfig(vocabulary_size=20, context_length=6, width=16, num_layers=1, num_heads=2, projection_dim=8)
    image = CLIPImageConfig(image_size=16, patch_size=4, width=16, num_layers=1, num_heads=2, projection_dim=8)
    clip = CLIP(CLIPConfig(text=text, image=image, logit_bias=kind == "sigmoid"))
    return ContrastiveObjective(clip, ContrastiveConfig(kind=kind, **settings))


def eight() -> dict[str, Tensor]:
    drawn = generator("pairs")
    ids = torch.randint(18, (8, 6), generator=drawn)
    ids[:, 5] = 19
    return {
        "image": torch.rand(8, 3, 16, 16, generator=drawn) * 2 - 1,
        "ids": ids,
        "end": torch.full((8,), 5),
    }


def features(*, seed: int = 5) -> tuple[Tensor, Tensor]:
    images, texts = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(seed)).unbind()
    return F.normalize(images).requires_grad_(), F.normalize(images + texts).detach().requires_grad_()


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_and_its_gradients_are_open_clips(kind: Kind) -> None:
    objective, ours, theirs = make(kind), features(), features()
    loss, _ = objective.gathered_loss("clip", ours, WHOLE, step=0)
    loss.backward()
    scale = objective.clip.logit_scale.detach().clone().requires_grad_()
    bias = None if objective.clip.logit_bias is None else objective.clip.logit_bias.detach().clone().requires_grad_()
    reference = open_clip("loss").ClipLoss() if kind == "softmax" else open_clip("loss").SigLipLoss()
    expected = reference(*theirs, scale.exp(), bias)
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for got, other in ((ours[0], theirs[0]), (ours[1], theirs[1]), (objective.clip.logit_scale, scale)):
        torch.testing.assert_close(got.grad, other.grad, rtol=1e-5, atol=1e-6)
    if bias is not None:
        assert objective.clip.logit_bias is not None
        torch.testing.assert_close(objective.clip.logit_bias.grad, bias.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_shares_of_rows_add_up(kind: Kind) -> None:
    objective, given = make(kind), features()
    shares = [objective.gathered_loss("clip", given, slice(at, at + 2), step=0) for at in range(0, 8, 2)]
    loss, metrics = objective.gathered_loss("clip", given, WHOLE, step=0)
    assert float(sum(share for share, _ in shares)) == pytest.approx(float(loss), rel=1e-6)
    for name, value in metrics.items():
        assert float(sum(told[name] for _, told in shares)) == pytest.approx(float(value), rel=1e-5), name


@torch.no_grad()
def test_what_is_told() -> None:
    objective, (images, texts) = make("softmax"), features()
    _, told = objective.gathered_loss("clip", (images, texts), WHOLE, step=0)
    cosines = images @ images.T
    assert float(told["image_similarity"]) == pytest.approx(float((cosines.sum() - 8) / 56), rel=1e-4)
    assert float(told["text_similarity"]) == pytest.approx(float(((texts @ texts.T).sum() - 8) / 56), rel=1e-4)
    right = sum(int((images[row] @ texts.T).argmax()) == row for row in range(8))
    assert right > 0
    assert float(told["accuracy"]) == right / 8
    assert float(told["scale"]) == pytest.approx(1 / 0.07, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_eight_pairs_are_learned_by_heart(kind: Kind) -> None:
    objective, batch = make(kind), eight()
    start = {name: value.detach().clone() for name, value in objective.clip.named_parameters()}
    optimizer = torch.optim.Adam(objective.clip.parameters(), lr=5e-3)
    losses: list[float] = []
    told: dict[str, Tensor] = {}
    for step in range(120):
        loss, told = objective.loss("clip", batch, generator("train", step), step=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.settle("clip", World())
        losses.append(loss.item())
    chance = loss_at_chance(kind, 8)
    assert losses[-1] < chance / 50 < chance < losses[0]
    assert told["accuracy"] == 1
    for name, value in objective.clip.named_parameters():
        assert not torch.equal(value, start[name]), name


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_loss_of_a_network_that_tells_nothing_apart(kind: Kind) -> None:
    """The best that equal features can do: for the sigmoid loss with the best bias, found by search."""
    objective = make(kind)
    same = F.normalize(torch.ones(8, 8))
    biases = [0.0] if kind == "softmax" else [math.log(1 / 7) - 1 / 0.07 + step / 50 - 1 for step in range(100)]
    losses: list[float] = []
    for bias in biases:
        objective.clip.logit_scale.fill_(math.log(1 / 0.07))
        if objective.clip.logit_bias is not None:
            objective.clip.logit_bias.fill_(bias)
        losses.append(float(objective.gathered_loss("clip", (same, same), WHOLE, step=0)[0]))
    assert min(losses) == pytest.approx(loss_at_chance(kind, 8), rel=1e-4)


class Solved(ContrastiveObjective):
    """Whose features are as good as can be, so that the temperature alone can make the loss less."""

    def features(
        self, part: str, batch: Mapping[str, Tensor], noise: torch.Generator, *, step: int
    ) -> tuple[Tensor, Tensor]:
        nothing = 0 * self.clip.image.class_embedding.sum() + 0 * self.clip.text.norm.bias.sum()
        return torch.eye(8) + nothing, torch.eye(8) + nothing


class Eight:
    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        return eight()


def test_the_temperature_stays_in_bounds_while_it_trains(tmp_path: Path) -> None:
    """In the weights that go on, in their average and in what is saved."""
    objective = Solved(make("softmax").clip, ContrastiveConfig())
    config = TrainConfig(steps=4, batch_size=8, learning_rate=1.0, warmup=1, hold=1.0, weight_decay=0.0, ema_decay=0.5)
    state = train(objective, Eight(), config, tmp_path)
    bound = pytest.approx(math.log(100), rel=1e-6)
    assert float(objective.clip.logit_scale.detach()) == bound
    assert float(load_tensors(tmp_path / "step-00000004" / "clip.safetensors")["logit_scale"]) == bound
    assert math.log(1 / 0.07) < float(state.emas["clip"].state_dict()["logit_scale"]) < math.log(100)


def test_bfloat16_computes_low_and_loses_in_float32() -> None:
    """Towers in bfloat16, features, loss and gradients in float32, and near those of float32."""
    losses: dict[bool, float] = {}
    gradients: dict[bool, Tensor] = {}
    for low in (False, True):
        objective = make("softmax")
        seen: list[torch.dtype] = []
        next(iter(objective.clip.image.layers)).fc1.register_forward_hook(
            lambda _, given, out, to=seen: to.append(out.dtype)
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            found = objective.features("clip", eight(), generator("train"), step=0)
        assert seen == [torch.bfloat16 if low else torch.float32]
        assert [one.dtype for one in found] == [torch.float32, torch.float32]
        loss, _ = objective.gathered_loss("clip", found, WHOLE, step=0)
        loss.backward()
        losses[low] = loss.item()
        gradient = objective.clip.image.patch_embedding.weight.grad
        assert gradient is not None
        gradients[low] = gradient
    assert losses[True] == pytest.approx(losses[False], rel=0.01)
    assert losses[True] != losses[False]
    assert float(F.cosine_similarity(gradients[True].flatten(), gradients[False].flatten(), dim=0)) > 0.99


def test_patches_left_out_are_drawn_anew_for_each_picture() -> None:
    objective, batch = make("softmax", patch_dropout=0.5), eight()
    seen: list[Tensor] = []
    objective.clip.image.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    for seed in (0, 0, 1):
        objective.features("clip", batch, generator(seed), step=0)
    assert seen[0].shape == (8, 8)
    assert all(len(set(row.tolist())) == 8 for row in seen[0])
    assert len({tuple(sorted(row.tolist())) for row in seen[0]}) > 1
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_the_loop_knows_what_it_is() -> None:
    assert isinstance(make("softmax"), GatheredObjective)
    assert isinstance(make("softmax"), Settling)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a sigmoid loss and logit_bias False: expected a bias with sigmoid alone"):
        ContrastiveObjective(make("softmax").clip, ContrastiveConfig(kind="sigmoid"))
    with pytest.raises(ValueError, match=r"patch_dropout 1\.0: expected 0 or more, less than 1"):
        ContrastiveConfig(patch_dropout=1.0)
