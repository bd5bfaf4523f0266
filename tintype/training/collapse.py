"""A warning when contrastive training goes nowhere, which its falling loss alone may hide for long."""

import logging

import torch
from torch import Tensor

from tintype.training.loop import Report

log = logging.getLogger(__name__)
ALIKE = 0.99  # mean cosine between different samples: each of D dimensions then varies by less than sqrt(0.01 / D)
GUESSING = 0.995  # of the loss at chance


class CollapseWatch:
    """Warns when, over `every` steps, all features are nearly one, or the loss is what guessing gives; once until it
    is over. Not before step `after`: new networks are like that, and the learning rate has to rise first.

    It reads the metrics "image_similarity", "text_similarity" and "loss" of `ContrastiveObjective`; chance: the loss
    of features that are all the same (`loss_at_chance`).
    """

    def __init__(self, *, chance: float, after: int, every: int = 100) -> None:
        self.chance, self.after, self.every = chance, after, every
        self._sums: dict[str, Tensor] = {}  # on their device: only a look waits for it
        self._count = 0
        self._warned = False

    def __call__(self, report: Report) -> None:
        step = report.state.step
        if step <= self.after:
            return
        for name in ("image_similarity", "text_similarity", "loss"):
            self._sums[name] = report.metrics[name] + self._sums.get(name, 0.0)
        self._count += 1
        if self._count < self.every:
            return
        means = dict(zip(self._sums, (torch.stack(list(self._sums.values())) / self._count).tolist(), strict=True))
        self._sums, self._count = {}, 0
        found = self._found(means)
        if found and not self._warned:
            log.warning(
                "step %d: %s: the network tells samples no longer apart, or not yet; lower train.learning_rate, raise "
                "train.warmup, or take more samples a step (train.batch_size, train.accumulate)",
                step,
                found,
            )
        self._warned = bool(found)

    def _found(self, means: dict[str, float]) -> str:
        """What is wrong, in words; empty: nothing."""
        said = [
            f"the mean cosine between different {kind}s is {means[f'{kind}_similarity']:.4f}"
            for kind in ("image", "text")
            if means[f"{kind}_similarity"] > ALIKE
        ]
        if means["loss"] > GUESSING * self.chance:
            said.append(f"the loss is {means['loss']:.4f}, {self.chance:.4f} is what guessing gives")
        return "; ".join(said)
