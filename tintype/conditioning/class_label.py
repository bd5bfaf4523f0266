"""A class as conditioning: one learned vector a class, read as a context of one token (LDM's ClassEmbedder)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tintype.diffusion.denoiser import Conditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassConfig:
    """`null_class`: the one that stands for no class, where a model was trained to do without (the last of 1001 in
    cin256-v2). Defaults are ImageNet's, without one."""

    num_classes: int = 1000
    width: int = 512
    null_class: int | None = None

    def __post_init__(self) -> None:
        if self.null_class is not None and not 0 <= self.null_class < self.num_classes:
            raise ValueError(f"null_class {self.null_class}: expected 0 to {self.num_classes - 1}, one of the classes")


class ClassConditioner(nn.Module):
    """classes -> Conditioning(context: B 1 D)."""

    def __init__(self, config: ClassConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.num_classes, config.width)

    def encode(self, ids: Tensor) -> Conditioning:
        """ids: B int64."""
        return Conditioning(context=self.embedding(ids)[:, None])

    def forward(self, classes: Sequence[int]) -> Conditioning:
        """Raises `ValueError` for a class that there is not."""
        last = self.config.num_classes - 1
        for one in classes:
            if not 0 <= one <= last:
                raise ValueError(f"class {one}: this model has the classes 0 to {last}; use one of them")
        return self.encode(torch.tensor(classes, dtype=torch.int64, device=self.embedding.weight.device))

    def empty(self, count: int) -> Conditioning:
        """No class, `count` times. Raises `ValueError` for a model that was never trained without one."""
        if self.config.null_class is None:
            raise ValueError("this model has no null class, so nothing to guide away from; expected cfg_scale 1")
        return self([self.config.null_class] * count)
