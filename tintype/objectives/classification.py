"""Cross-entropy on labelled pictures."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.models.classifier import Classifier
from tintype.objectives.base import Batch

LARGEST_NOISE = 0.15  # std of the noise a training picture may carry, so that the judge forgives a soft picture


class ClassificationObjective:
    """Batches hold "image": B 3 H W in [-1, 1] and "label": B. One part, "classifier"."""

    def __init__(self, classifier: Classifier) -> None:
        self.parts: Mapping[str, nn.Module] = {"classifier": classifier}

    def loss(self, part: str, batch: Batch, noise: torch.Generator, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, label = batch["image"], batch["label"]
        strength = LARGEST_NOISE * torch.rand(len(image), 1, 1, 1, generator=noise)
        noisy = image + (strength * torch.randn(image.shape, generator=noise)).to(image.device)
        logits = self.parts[part](noisy).float()
        accuracy = (logits.argmax(dim=1) == label).float().mean()
        return F.cross_entropy(logits, label), {"accuracy": accuracy.detach()}
