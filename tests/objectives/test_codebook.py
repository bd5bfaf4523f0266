"""How codebooks learn: running means against the paper's equations, use, revival, and independence of who saw what."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tintype.common.rng import generator
from tintype.models.autoencoder import Codebook, nearest_codes
from tintype.objectives.codebook import CodebookConfig, CodebookLearning

SIZE, DIM = 6, 3


class Alone:
    """One process."""

    def total(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor[None]


class Together:
    """One process's view of several, where the others kept these tensors (in the order they are asked for)."""

    def __init__(self, others: list[CodebookLearning]) -> None:
        kept = [one._kept for one in others]
        self.uses = [one.uses for one in kept if one is not None]
        self.sums = [one.sums for one in kept if one is not None]
        self.chances = [one.chances for one in kept if one is not None]

    def total(self, tensor: Tensor) -> Tensor:
        return tensor + sum(self.uses if tensor.ndim == 1 else self.sums)

    def gather(self, tensor: Tensor) -> Tensor:
        return torch.stack([*self.chances, tensor])


def made(config: CodebookConfig) -> tuple[Codebook, CodebookLearning]:
    torch.manual_seed(0)
    codebook = Codebook(SIZE, DIM)
    torch.nn.init.normal_(codebook.weight)
    return codebook, CodebookLearning(codebook, config)


def latents(key: int, count: int = 4) -> Tensor:
    return torch.randn(count, DIM, 3, 5, generator=generator("latents", key))


def keep(learning: CodebookLearning, codebook: Codebook, latent: Tensor, key: int = 0) -> None:
    learning.keep(latent, nearest_codes(latent, codebook.weight), generator("keep", key))


def test_running_means_follow_the_papers_equations() -> None:
    """Appendix A.1, equations 6 to 8, with the smoothing of the authors' code (sonnet), in float64 by hand."""
    config = CodebookConfig(learning="average", decay=0.9, epsilon=0.05, revive_below=0.0)
    codebook, learning = made(config)
    assert not codebook.weight.requires_grad
    count, mean = torch.ones(SIZE, dtype=torch.float64), codebook.weight.double()
    for step in range(3):
        latent = latents(step)
        indices = nearest_codes(latent, codebook.weight).flatten()
        places = latent.permute(0, 2, 3, 1).reshape(-1, DIM).double()
        unit = SIZE / len(places)  # counts are told in units of the mean use
        for code in range(SIZE):
            users = places[indices == code]
            count[code] = 0.9 * count[code] + 0.1 * len(users) * unit
            mean[code] = 0.9 * mean[code] + 0.1 * users.sum(dim=0) * unit
        n = count.sum()
        expected = mean / ((count + 0.05) / (n + SIZE * 0.05) * n)[:, None]
        keep(learning, codebook, latent)
        learning.settle(codebook.weight, Alone())
        assert torch.allclose(codebook.weight.double(), expected, atol=1e-5)
    assert torch.allclose(learning.counts.double(), count, atol=1e-5)


@pytest.mark.parametrize("learning", ["gradient", "average"])
def test_who_saw_what_does_not_matter(learning: str) -> None:
    """One micro-batch after the other, in either order, or one in each of two processes."""
    config = CodebookConfig(learning=learning, revive_below=0.6, decay=0.5)
    found: list[dict[str, Tensor]] = []
    for way in ("one after the other", "the other way round", "two processes"):
        codebook, mine = made(config)
        other = CodebookLearning(codebook, config)
        keep(mine, codebook, latents(1), key=1)
        if way == "one after the other":
            keep(mine, codebook, latents(2), key=2)
            told = mine.settle(codebook.weight, Alone())
        elif way == "two processes":
            keep(other, codebook, latents(2), key=2)
            told = mine.settle(codebook.weight, Together([other]))
        else:
            codebook, mine = made(config)
            keep(mine, codebook, latents(2), key=2)
            keep(mine, codebook, latents(1), key=1)
            told = mine.settle(codebook.weight, Alone())
        found.append({"weight": codebook.weight.detach(), **mine.state_dict(), **told})
    assert float(found[0]["revived"]) >= 1
    for one in found[1:]:
        for name, value in found[0].items():
            assert torch.allclose(one[name], value, atol=1e-6), name


@pytest.mark.parametrize("learning", ["gradient", "average"])
def test_dead_codes_begin_anew_at_random_places(learning: str) -> None:
    config = CodebookConfig(learning=learning, decay=0.5, revive_below=0.1)
    codebook, mine = made(config)
    with torch.no_grad():
        codebook.weight[2:] += 100  # far from everything
    mine = CodebookLearning(codebook, config)
    before = codebook.weight.detach().clone()
    revived: list[float] = []
    for step in range(4):
        latent = latents(step)
        keep(mine, codebook, latent, key=step)
        revived.append(float(mine.settle(codebook.weight, Alone())["revived"]))
    assert revived == [0, 0, 0, SIZE - 2]  # 0.5 ** 4 is below 0.1
    places = latent.permute(0, 2, 3, 1).reshape(-1, DIM)
    nearest = torch.cdist(codebook.weight[2:], places).amin(dim=1)
    assert (nearest == 0).all()  # places of this batch
    assert torch.equal(mine.counts[2:], torch.ones(SIZE - 2))
    assert torch.equal(mine.sums[2:], codebook.weight[2:])
    if learning == "gradient":
        assert torch.equal(codebook.weight[:2], before[:2])
    keep(mine, codebook, latents(9), key=9)
    told = mine.settle(codebook.weight, Alone())
    assert float(told["usage"]) > 2 / SIZE
    assert float(told["revived"]) == 0


def test_a_codebook_that_is_used_alike_has_as_much_perplexity_as_codes() -> None:
    codebook, learning = made(CodebookConfig(revive_below=0.0))
    latent = codebook.weight.detach().t().reshape(1, DIM, 2, 3)
    keep(learning, codebook, latent)
    told = learning.settle(codebook.weight, Alone())
    assert float(told["perplexity"]) == pytest.approx(SIZE)
    assert float(told["usage"]) == 1
    keep(learning, codebook, latent[:, :, :1, :1])
    told = learning.settle(codebook.weight, Alone())
    assert float(told["perplexity"]) == pytest.approx(1)
    assert float(told["usage"]) == pytest.approx(1 / SIZE)


def test_gradients_go_straight_through_and_each_term_where_it_should() -> None:
    for config in (CodebookConfig(), CodebookConfig(legacy=True), CodebookConfig(learning="average")):
        codebook, learning = made(config)
        latent = latents(1).requires_grad_()
        straight, loss, indices = learning(latent, codebook.weight)
        assert torch.allclose(straight, codebook(latent), atol=1e-6)
        assert indices.shape == (4, 3, 5)
        seed = torch.randn(latent.shape, generator=generator(7))
        [through] = torch.autograd.grad(straight, latent, seed, retain_graph=True)
        assert torch.equal(through, seed)
        [to_latent] = torch.autograd.grad(loss, latent, retain_graph=True)
        commitment = 1.0 if config.legacy else 0.25
        expected = commitment * 2 * (latent - straight) / latent.numel()
        assert torch.allclose(to_latent, expected.detach(), atol=1e-7)
        if config.learning == "gradient":
            [to_codes] = torch.autograd.grad(loss, codebook.weight)
            pull = (0.25 if config.legacy else 1.0) * 2 * (straight - latent).detach() / latent.numel()
            summed = torch.zeros(SIZE, DIM).index_add_(0, indices.flatten(), pull.permute(0, 2, 3, 1).reshape(-1, DIM))
            assert torch.allclose(to_codes, summed, atol=1e-6)


def test_a_step_that_is_not_finite_teaches_nothing() -> None:
    codebook, learning = made(CodebookConfig(learning="average", revive_below=10.0))
    before = {
        "weight": codebook.weight.clone(),
        **{name: value.clone() for name, value in learning.state_dict().items()},
    }
    broken = latents(1)
    broken[0, 0, 0, 0] = float("nan")
    keep(learning, codebook, broken)
    assert float(learning.settle(codebook.weight, Alone())["revived"]) == 0
    for name, value in {"weight": codebook.weight, **learning.state_dict()}.items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("config", [CodebookConfig(), CodebookConfig(learning="average")], ids=lambda one: one.learning)
def test_a_step_whose_update_is_skipped_leaves_the_codes(config: CodebookConfig) -> None:
    """Though its latents are numbers, for a loss may fail behind them; and it is forgotten."""
    codebook, learning = made(replace(config, revive_below=0.995))
    before = [value.clone() for value in (codebook.weight, learning.counts, learning.sums)]
    keep(learning, codebook, latents(1))
    assert float(learning.settle(codebook.weight, Alone(), skip=torch.ones(()))["revived"]) == 0
    for value, old in zip((codebook.weight, learning.counts, learning.sums), before, strict=True):
        assert torch.equal(value, old)
    keep(learning, codebook, latents(2))
    learning.settle(codebook.weight, Alone(), skip=torch.zeros(()))
    other, straight = made(replace(config, revive_below=0.995))
    keep(straight, other, latents(2))
    straight.settle(other.weight, Alone())
    assert torch.equal(codebook.weight, other.weight)
    assert not torch.equal(codebook.weight, before[0])


def test_the_nearest_code_is_looked_for_in_single_precision_under_autocast() -> None:
    """4 and 4.01 are one number in bfloat16."""
    latent, codes = torch.full((1, 1, 1, 1), 4.009), torch.tensor([[4.0], [4.01]])
    with torch.autocast("cpu", torch.bfloat16):
        assert nearest_codes(latent, codes).item() == 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"codebook decay 1\.0: expected 0 or more, below 1"):
        CodebookConfig(decay=1.0)
    with pytest.raises(ValueError, match="a codebook of averages has no term of its own for legacy"):
        CodebookConfig(learning="average", legacy=True)
