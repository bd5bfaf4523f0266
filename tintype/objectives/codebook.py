"""How a codebook learns ("Neural Discrete Representation Learning", van den Oord et al. 2017, 3.2 and appendix A)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tintype.common.shares import like, whole
from tintype.models.autoencoder import Codebook, looked_up, nearest_codes
from tintype.objectives.base import Processes


@dataclass(frozen=True, kw_only=True, slots=True)
class CodebookConfig:
    """learning: "gradient" pulls each code towards the places that use it; "average" makes it their running mean, by
    `decay`. A code that is used less than `revive_below` times as often as the mean (averaged likewise) begins anew
    where a random place is."""

    learning: Literal["gradient", "average"] = "gradient"
    weight: float = 1.0
    commitment: float = 0.25  # of the term that holds latents to their codes
    legacy: bool = False  # the commitment's weight on the codes' term instead, as released models were trained
    decay: float = 0.99
    epsilon: float = 1e-5  # Laplace smoothing of counts, in units of the mean use
    revive_below: float = 0.03  # 0: never

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"codebook decay {self.decay}: expected 0 or more, below 1")
        if self.learning == "average" and self.legacy:
            raise ValueError("a codebook of averages has no term of its own for legacy to weigh; leave one of them out")


class CodebookLearning(nn.Module):
    """Beside a codebook of K codes of C numbers: how much each is used, and where its users lie.

    Counts are in units of the mean use, so that neither batch size nor the number of processes matters. What single
    micro-batches say is kept until `settle`, which comes once a step: it is no state.
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, codebook: Codebook, config: CodebookConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("counts", torch.ones(len(codebook.weight)))  # K
        self.register_buffer("sums", codebook.weight.detach().clone())  # K C; its mean over counts is the code
        self._kept: _Kept | None = None
        if config.learning == "average":
            codebook.requires_grad_(False)

    def forward(self, latent: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """latent: B C h w -> (its codes, through which the gradient goes straight to the latent; the loss; indices
        B h w)."""
        indices = nearest_codes(latent, codebook)
        codes = looked_up(indices, codebook)
        latent_term = (codes.detach() - latent).square().mean()
        straight = latent + (codes - latent).detach()
        if self.config.learning == "average":
            return straight, self.config.commitment * latent_term, indices
        code_term = (codes - latent.detach()).square().mean()
        if self.config.legacy:
            return straight, latent_term + self.config.commitment * code_term, indices
        return straight, self.config.commitment * latent_term + code_term, indices

    @torch.no_grad()
    def keep(self, latent: Tensor, indices: Tensor, noise: torch.Generator) -> None:
        """Remember who used which code, and for each code a random place where it could begin anew."""
        places, used, size = latent.permute(0, 2, 3, 1).flatten(0, 2).float(), indices.flatten(), len(self.counts)
        chosen = torch.randint(len(places), (size,), generator=noise).to(latent.device)
        lot = torch.rand(size, 1, generator=noise).to(latent.device)
        one = _Kept(
            uses=torch.zeros_like(self.counts).index_add_(0, used, torch.ones_like(places[:, 0])),
            sums=torch.zeros_like(self.sums).index_add_(0, used, places),
            chances=torch.cat((lot, places[chosen]), dim=1),
        )
        self._kept = one if self._kept is None else self._kept.merged(one)

    @torch.no_grad()
    def settle(self, codebook: Tensor, processes: Processes, *, skip: Tensor | None = None) -> dict[str, Tensor]:
        """Take in the step: move codes (K C, in place) to the mean of their users if they learn so, and revive the
        dead. A step that was not finite, or whose update was skipped, changes nothing. Reports usage (the share of
        codes used in this step), perplexity (how many codes, were they used alike, would tell as much) and the number
        revived."""
        assert self._kept is not None  # a loss was asked for before
        uses, sums = processes.total(self._kept.uses), processes.total(self._kept.sums)
        chances = _luckiest(processes.gather(self._kept.chances))[:, 1:]
        self._kept = None
        sound = sums.isfinite().all()
        if skip is not None:
            sound = sound & ~skip.bool()
        decay, unit = self.config.decay, len(uses) / uses.sum()

        counts = self.counts.lerp(uses * unit, 1 - decay)
        means = self.sums.lerp(sums * unit, 1 - decay)
        now = codes = whole(codebook)
        if self.config.learning == "average":
            total, epsilon = counts.sum(), self.config.epsilon
            smoothed = (counts + epsilon) / (total + len(counts) * epsilon) * total
            codes = means / smoothed[:, None]
        dead = counts < self.config.revive_below
        revived = torch.where(dead[:, None], chances, codes)
        codebook.copy_(like(torch.where(sound, revived, now), codebook))
        self.counts.copy_(torch.where(sound, torch.where(dead, 1.0, counts), self.counts))
        self.sums.copy_(torch.where(sound, torch.where(dead[:, None], chances, means), self.sums))

        share = uses / uses.sum()
        return {
            "usage": (uses > 0).float().mean(),
            "perplexity": torch.special.entr(share).sum().exp(),
            "revived": (dead & sound).sum().float(),
        }


@dataclass(frozen=True, slots=True)
class _Kept:
    """uses: K; sums: K C; chances: K 1+C, a lot drawn and a place."""

    uses: Tensor
    sums: Tensor
    chances: Tensor

    def merged(self, other: "_Kept") -> "_Kept":
        chances = _luckiest(torch.stack((self.chances, other.chances)))
        return _Kept(self.uses + other.uses, self.sums + other.sums, chances)


def _luckiest(chances: Tensor) -> Tensor:
    """N K 1+C -> K 1+C: of each code the one with the highest lot, which is the same whoever held it."""
    winner = chances[..., 0].argmax(dim=0)  # K
    return chances[winner, torch.arange(len(winner), device=winner.device)]
