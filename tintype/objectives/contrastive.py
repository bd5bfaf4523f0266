"""CLIP's objectives: which caption belongs to which picture, among all of a step.

`loss` takes one micro-batch for the whole; the training loop computes `features` of all and then `gathered_loss`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.models.clip_pair import CLIP
from tintype.objectives.base import Batch, Processes

Features = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastiveConfig:
    """softmax: the cross-entropy of the right one among all, both ways (Radford et al. 2021, figure 3); sigmoid: a yes
    or no for each pair (Zhai et al. 2023, algorithm 1), which wants a `logit_bias`. patch_dropout: share of a training
    picture's patches that are left out."""

    kind: Literal["softmax", "sigmoid"] = "softmax"
    patch_dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.patch_dropout < 1:
            raise ValueError(f"patch_dropout {self.patch_dropout}: expected 0 or more, less than 1")


class ContrastiveObjective:
    """Batches hold "image": B 3 S S in [-1, 1], "ids": B L and "end": B. One part, "clip"."""

    def __init__(self, clip: CLIP, config: ContrastiveConfig) -> None:
        if (config.kind == "sigmoid") != clip.config.logit_bias:
            raise ValueError(
                f"a {config.kind} loss and logit_bias {clip.config.logit_bias}: expected a bias with sigmoid alone"
            )
        self.clip = clip
        self.config = config
        self.parts: Mapping[str, nn.Module] = {"clip": clip}

    def loss(self, part: str, batch: Batch, noise: torch.Generator, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.features(part, batch, noise, step=step)
        return self.gathered_loss(part, features, slice(0, len(features[0])), step=step)

    def features(self, part: str, batch: Batch, noise: torch.Generator, *, step: int) -> Features:
        """(pictures, texts): B D each, of length 1."""
        image = batch["image"]
        kept = self._kept(len(image), noise)
        return self.parts[part](image, batch["ids"], batch["end"], None if kept is None else kept.to(image.device))

    def gathered_loss(
        self, part: str, features: Features, rows: slice, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The share of these pictures, and of these texts, in the loss of all N."""
        images, texts = features
        scale, count = self.clip.logit_scale.exp(), len(images)
        right = torch.arange(count, device=images.device)[rows]
        logits = scale * images[rows] @ texts.T  # R N
        if self.clip.logit_bias is None:
            back = scale * texts[rows] @ images.T
            both = [F.cross_entropy(one, right, reduction="sum") for one in (logits, back)]
            loss = (both[0] + both[1]) / (2 * count)
        else:
            logits = logits + self.clip.logit_bias
            answers = torch.full_like(logits, -1.0)
            answers[torch.arange(len(right)), right] = 1
            loss = -F.logsigmoid(answers * logits).sum() / count
        return loss, _told(logits.detach(), right, features, rows) | {"scale": scale.detach()[0] * len(right) / count}

    def settle(self, part: str, processes: Processes, *, skip: Tensor | None = None) -> dict[str, Tensor]:
        """The temperature stays from 1 to 100 after each update, as open_clip keeps it."""
        self.clip.clamp()
        return {}

    def _kept(self, count: int, noise: torch.Generator) -> Tensor | None:
        """Which patches of each picture are looked at, drawn anew for each."""
        if not self.config.patch_dropout:
            return None
        patches = self.clip.config.image.num_patches
        most = max(1, int(patches * (1 - self.config.patch_dropout)))
        return torch.rand(count, patches, generator=noise).argsort(dim=1)[:, :most]


@torch.no_grad()
def _told(logits: Tensor, right: Tensor, features: Features, rows: slice) -> dict[str, Tensor]:
    """accuracy: of pictures, how many find their own text first. image_similarity, text_similarity: mean cosine of two
    different samples; at 1 all features are one (their standard deviation over the step, root mean square over
    dimensions, is about sqrt((1 - similarity) / D))."""
    count = len(features[0])
    told = {"accuracy": (logits.argmax(dim=1) == right).sum() / count}
    for name, every in zip(("image_similarity", "text_similarity"), features, strict=True):
        others = every.sum(dim=0) - every[rows]  # R D: the sum of all but oneself
        told[name] = (every[rows] * others).sum() / (count * max(count - 1, 1))
    return told


def loss_at_chance(kind: Literal["softmax", "sigmoid"], count: int) -> float:
    """What the loss of `count` samples is when all features are the same: the network tells nothing apart. With a
    sigmoid loss: at the bias for which that is least."""
    if kind == "softmax":
        return math.log(count)
    return math.log(count) + (count - 1) * math.log(count / (count - 1)) if count > 1 else 0.0
