"""Gradients of a loss over all samples of a step, however many micro-batches and processes they are spread over.

Features first, without gradient (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", section 3; open_clip's `--accum-freq`). They are few numbers and every process gets all of them. Each computes
the loss of its own rows against everything, which gives the gradient of every feature; then each micro-batch is
computed once more, with gradient, and its own features' gradients go back through it. No process ever holds more than
the activations of one micro-batch, or logits of one micro-batch against the step.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from tintype.common.rng import generator
from tintype.objectives.base import Batch, GatheredObjective
from tintype.training.world import World

Features = tuple[Tensor, ...]


def gathered_backward(
    objective: GatheredObjective,
    part: str,
    batches: Mapping[int, Batch],
    low: AbstractContextManager[object],
    *,
    seed: int,
    step: int,
    world: World,
) -> dict[str, Tensor]:
    """Give parameters the gradients of the step's loss, of which the processes' sum is the whole; the loss and the
    metrics of the whole step.

    batches: this process's micro-batches by their number in the step, all of one size. low: the precision in which
    features are computed (it is entered more than once); the loss is computed outside of it.
    """

    def compute(number: int) -> Features:
        with low:
            return objective.features(part, batches[number], generator(seed, part, step, number), step=step)

    alone = len(batches) == 1  # then one pass does: its activations are kept
    with torch.set_grad_enabled(alone):
        own = {number: compute(number) for number in batches}
    every = tuple(kind.requires_grad_() for kind in _gathered(own, world))
    size = len(next(iter(own.values()))[0])
    told: dict[str, Tensor] = {}
    for number in batches:
        rows = slice(number * size, (number + 1) * size)
        loss, metrics = objective.gathered_loss(part, every, rows, step=step)
        loss.backward()
        shares = {"loss": loss.detach(), **metrics}
        told = {name: share + told.get(name, 0.0) for name, share in shares.items()}

    gradients = [world.total(_gradient(kind)).unflatten(0, (-1, size)) for kind in every]  # each micro-batches B D
    for number in batches:
        features = own[number] if alone else compute(number)
        back = [gradient[number].to(one.dtype) for one, gradient in zip(features, gradients, strict=True)]
        torch.autograd.backward(features, back)
    totals = world.total(torch.stack([share.float() for share in told.values()]))
    return dict(zip(told, totals.unbind(), strict=True))


def _gathered(own: Mapping[int, Features], world: World) -> Features:
    """Each kind of features of the whole step, in the order of its samples: N D float32, without gradient."""
    kinds = [torch.stack(kind).detach().float() for kind in zip(*own.values(), strict=True)]  # each own B D
    # Process r holds micro-batches r, r + size, … (`World.share`).
    return tuple(world.gather(kind).transpose(0, 1).flatten(0, 2) for kind in kinds)


def _gradient(features: Tensor) -> Tensor:
    assert features.grad is not None
    return features.grad
