"""What steers a diffusion model, as training reads it: columns of a batch to a `Conditioning`, now and then nothing.

Each is left out with a probability of its own, so that the model also learns to do without (Ho & Salimans 2022,
algorithm 1): a caption gives way to "", a class to the null class, a layout to the empty one, a map to zeros.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.common.device import sent
from tintype.conditioning.class_label import ClassConditioner
from tintype.conditioning.layout import LayoutConditioner, layout_ids
from tintype.conditioning.objects import Objects, placeless, without
from tintype.conditioning.spatial import SpatialConditioner
from tintype.conditioning.text import TextConditioner, Tokens
from tintype.diffusion.denoiser import Conditioning
from tintype.diffusion.latent_space import LatentSpace
from tintype.models.autoencoder import Autoencoder
from tintype.objectives.base import Batch


class Condition(Protocol):
    """`name`: under which `network`, what it trains, stands in checkpoints."""

    @property
    def name(self) -> str: ...
    @property
    def network(self) -> nn.Module | None: ...

    def __call__(self, batch: Batch, noise: torch.Generator | None) -> Conditioning:
        """Of each sample; left out as `noise` says, without it never."""
        ...


class TextCondition:
    """Columns "ids": B L and "end": B, the tokens of a caption; where the network reads objects as well, "labels": B K
    and "places": B K 4 (see `Objects`).

    `objects` says how often they are left out, and how often only their places are; captions are left out
    independently of that.
    """

    name = "text"

    def __init__(self, network: TextConditioner, *, dropout: float, objects: tuple[float, float] = (0.0, 0.0)) -> None:
        self.network = network
        self.dropout = _rate(dropout)
        self.without, self.placeless = map(_rate, objects)
        self._empty = network.tokens([""])

    def __call__(self, batch: Batch, noise: torch.Generator | None) -> Conditioning:
        ids, end, empty = batch["ids"].long(), batch["end"], self._empty
        gone = _gone(ids, self.dropout, noise)
        ids = torch.where(gone[:, None], empty.ids.to(ids.device), ids)
        tokens = Tokens(ids, torch.where(gone, empty.end.to(end.device), end))
        return self.network.encode(tokens, objects=self._objects(batch, noise))

    def _objects(self, batch: Batch, noise: torch.Generator | None) -> Objects | None:
        config = self.network.config.objects
        if config is None:
            return None
        objects = Objects(batch["labels"].long(), batch["places"].float())
        objects = placeless(objects, _gone(objects.labels, self.placeless, noise))
        return without(objects, _gone(objects.labels, self.without, noise), config)


class RepaintCondition:
    """Columns "image": B 3 H W in [-1, 1] and "mask": B H W, 1 where it is drawn anew: beside the noise the mask and
    the latent of the picture that is gray under it, as Stable Diffusion's inpainting models have them. A picture that
    is new everywhere costs no encoding. The first stage is not trained."""

    name = "repaint"
    network = None

    def __init__(self, first_stage: Autoencoder, space: LatentSpace, *, size: int) -> None:
        self.first_stage = first_stage.eval().requires_grad_(False)
        self.space = space
        self.size = size

    def __call__(self, batch: Batch, noise: torch.Generator | None) -> Conditioning:
        mask = batch["mask"].float()[:, None]  # B 1 H W
        partly = (mask < 1).flatten(1).any(dim=1)
        latent = self._gray.expand(len(mask), *self._gray.shape[1:]).clone()
        if partly.any():
            latent[partly] = self._encoded(batch["image"][partly] * (1 - mask[partly]))
        cells = F.max_pool2d(mask, self.first_stage.config.factor)
        return Conditioning(concat=torch.cat((cells, latent), dim=1))

    @cached_property
    def _gray(self) -> Tensor:
        return self._encoded(torch.zeros(1, 3, self.size, self.size, device=next(self.first_stage.parameters()).device))

    @torch.no_grad()
    def _encoded(self, image: Tensor) -> Tensor:
        return self.space.wrap(self.first_stage.encode(image).mean.float())


class ClassCondition:
    """Column "label": B. Raises `ValueError` when a class is to be left out and there is no null class."""

    name = "class"

    def __init__(self, network: ClassConditioner, *, dropout: float) -> None:
        self.network = network
        self.dropout = _rate(dropout)
        if dropout and network.config.null_class is None:
            raise ValueError(f"dropout {dropout:g} of a class without a null class; give null_class, or dropout 0")

    def __call__(self, batch: Batch, noise: torch.Generator | None) -> Conditioning:
        label, null = batch["label"].long(), self.network.config.null_class
        if null is None:
            return self.network.encode(label)
        return self.network.encode(torch.where(_gone(label, self.dropout, noise), null, label))


class LayoutCondition:
    """Column "layout": B L, the tokens of boxes (`layout_ids`)."""

    name = "layout"

    def __init__(self, network: LayoutConditioner, *, dropout: float) -> None:
        self.network = network
        self.dropout = _rate(dropout)
        self._empty = torch.tensor([layout_ids((), network.config)])

    def __call__(self, batch: Batch, noise: torch.Generator | None) -> Conditioning:
        ids = batch["layout"].long()
        gone = _gone(ids, self.dropout, noise)
        return self.network.encode(torch.where(gone[:, None], self._empty.to(ids.device), ids))


class SpatialCondition:
    """Column "mask": B H W, a class at each pixel."""

    name = "spatial"

    def __init__(self, network: SpatialConditioner, *, dropout: float = 0.0) -> None:
        self.network = network
        self.dropout = _rate(dropout)

    def __call__(self, batch: Batch, noise: torch.Generator | None) -> Conditioning:
        cond = self.network(batch["mask"].long())
        return cond.map(lambda slot: _zeroed(slot, self.dropout, noise))


class ConcatCondition:
    """Column "concat": B C h w, put beside the noisy latent as it is (a small picture, a masked one's latent)."""

    name = "concat"
    network = None

    def __init__(self, *, dropout: float = 0.0) -> None:
        self.dropout = _rate(dropout)

    def __call__(self, batch: Batch, noise: torch.Generator | None) -> Conditioning:
        return Conditioning(concat=_zeroed(batch["concat"].float(), self.dropout, noise))


def condition_of(
    network: TextConditioner | ClassConditioner | LayoutConditioner | SpatialConditioner, *, dropout: float
) -> Condition:
    """How training reads what this network turns into conditioning."""
    match network:
        case TextConditioner():
            return TextCondition(network, dropout=dropout)
        case ClassConditioner():
            return ClassCondition(network, dropout=dropout)
        case LayoutConditioner():
            return LayoutCondition(network, dropout=dropout)
        case SpatialConditioner():
            return SpatialCondition(network, dropout=dropout)


class Frozen:
    """A condition that is not trained: no gradient, and no place among the trained weights or in checkpoints."""

    network = None

    def __init__(self, condition: Condition, *, device: str = "cpu") -> None:
        self.name = condition.name
        self._condition = condition
        if condition.network is not None:
            condition.network.to(device).eval().requires_grad_(False)

    def __call__(self, batch: Batch, noise: torch.Generator | None) -> Conditioning:
        with torch.no_grad():
            return self._condition(batch, noise)


def together(conds: Sequence[Conditioning]) -> Conditioning:
    """Slot by slot: contexts one after the other (along L), vectors and extra channels side by side; class ids (B) have
    their slot alone. Raises `ValueError` for contexts of several widths."""
    contexts = [cond.context for cond in conds if cond.context is not None]
    if len(widths := sorted({context.shape[-1] for context in contexts})) > 1:
        raise ValueError(f"contexts of width {' and '.join(map(str, widths))}: expected one width for all conditions")
    vectors = [cond.vector for cond in conds if cond.vector is not None]
    concats = [cond.concat for cond in conds if cond.concat is not None]
    return Conditioning(
        context=torch.cat(contexts, dim=1) if contexts else None,
        vector=vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1) if vectors else None,
        concat=torch.cat(concats, dim=1) if concats else None,
    )


def _rate(dropout: float) -> float:
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout {dropout:g}: expected a probability, 0 to 1")
    return dropout


def _gone(rows: Tensor, rate: float, noise: torch.Generator | None) -> Tensor:
    """Which rows are left out: B bool."""
    drawn = torch.ones(len(rows)) if noise is None else torch.rand(len(rows), generator=noise)
    return sent(drawn < rate, rows.device)


def _zeroed(slot: Tensor, rate: float, noise: torch.Generator | None) -> Tensor:
    return torch.where(_gone(slot, rate, noise)[(...,) + (None,) * (slot.ndim - 1)], 0.0, slot)
