"""How sure and how varied a classifier finds pictures; with Inception's logits it is the Inception score (Salimans et
al. 2016, section 4)."""

import torch
from torch import Tensor

from tintype.evaluation.frechet import checked


class ClassScore:
    """exp(E KL(p(y|x) || p(y))) from running sums in float64, in `splits` groups.

    The picture at position n is in group n mod splits, so that pictures which come class by class spread over all
    groups (torch-fidelity shuffles for that, which needs all of them in memory).
    """

    def __init__(self, classes: int, *, splits: int = 10) -> None:
        if splits < 1:
            raise ValueError(f"{splits} splits; expected 1 or more")
        self.splits = splits
        self.counts = torch.zeros(splits, dtype=torch.float64)
        self.chances = torch.zeros(splits, classes, dtype=torch.float64)  # sum of p
        self.certainty = torch.zeros(splits, dtype=torch.float64)  # sum of p log p, over classes as well

    def update(self, logits: Tensor, first: int) -> None:
        """logits: B K, of the pictures at positions first to first + B - 1."""
        log_p = checked(logits, self.chances.shape[1]).to("cpu", torch.float64).log_softmax(dim=1)
        group = torch.arange(first, first + len(log_p)) % self.splits
        self.counts.index_add_(0, group, torch.ones(len(log_p), dtype=torch.float64))
        self.chances.index_add_(0, group, log_p.exp())
        self.certainty.index_add_(0, group, (log_p.exp() * log_p).sum(dim=1))

    def score(self) -> tuple[float, float]:
        """The mean over groups and their standard deviation. Raises `ValueError` when a group is empty."""
        if (fewest := int(self.counts.min())) < 1:
            raise ValueError(
                f"{int(self.counts.sum())} pictures in {self.splits} splits; expected {fewest + 1} in each"
            )
        overall = self.chances / self.counts[:, None]
        gain = self.certainty / self.counts - torch.special.xlogy(overall, overall).sum(dim=1)
        each = gain.exp()
        return float(each.mean()), float(each.std(correction=0))
