"""Where a network meets a schedule: the only place that knows both."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tintype.common.device import sent
from tintype.diffusion.scaling import Scaling
from tintype.diffusion.schedule import Schedule

Denoise = Callable[[Tensor, float], Tensor]  # (x, sigma) -> x0


class Network(Protocol):
    """(x: B C h w, t: B, context, vector) -> B C h w."""

    def __call__(self, x: Tensor, t: Tensor, context: Tensor | None, vector: Tensor | None) -> Tensor: ...


@runtime_checkable
class Bindable(Protocol):
    """A network that can do the work of a prompt once and return the (x, t) function of the steps."""

    def bind(self, context: Tensor | None, vector: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]: ...


@runtime_checkable
class Perturbable(Protocol):
    """A bindable network that can also be bound with the attention of its middle perturbed (Ahn et al. 2024)."""

    def bind_perturbed(self, context: Tensor | None, vector: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]: ...


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What steers a network, each optional: context: B L D (cross-attention), vector: B V (beside the time
    embedding), concat: B C h w (extra input channels)."""

    context: Tensor | None = None
    vector: Tensor | None = None
    concat: Tensor | None = None

    @property
    def shapes(self) -> tuple[torch.Size | None, ...]:
        """Of each slot, without the batch."""
        slots = (self.context, self.vector, self.concat)
        return tuple(None if slot is None else slot.shape[1:] for slot in slots)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Conditioning":
        """The same slots, each changed."""
        slots = (self.context, self.vector, self.concat)
        return Conditioning(*(None if slot is None else change(slot) for slot in slots))


UNSTEERED = Conditioning()


def stacked(*conds: Conditioning) -> Conditioning:
    """Conditionings of the same slots as one batch: the first's rows, then the second's, and so on.

    Raises `ValueError` when a slot is filled in some of them only.
    """
    slots = [tuple(getattr(cond, slot) for cond in conds) for slot in ("context", "vector", "concat")]
    for slot, filled in zip(("context", "vector", "concat"), slots, strict=True):
        if len({one is None for one in filled}) > 1:
            raise ValueError(f"{slot} is given on one side of the guidance only; expected it on both or on neither")
    return Conditioning(*(None if filled[0] is None else torch.cat(filled) for filled in slots))


def repeated(cond: Conditioning, count: int) -> Conditioning:
    """One row, `count` times."""
    return cond.map(lambda slot: slot.expand(count, *slot.shape[1:]))


@dataclass(frozen=True, slots=True)
class Denoiser:
    """(x, sigma, cond) -> x0: float32 outside, whatever precision the network has inside.

    x: B C h w with x = x0 + sigma * noise, sigma: float or B. `relative`: the network is given, and answers for, what
    x0 differs from the latent in `cond.concat`, as in residual diffusion (Whang et al. 2022); x0 is told whole.
    """

    network: Network
    schedule: Schedule
    scaling: Scaling
    dtype: torch.dtype = torch.float32  # what the network computes in
    relative: bool = False

    def __call__(self, x: Tensor, sigma: float | Tensor, cond: Conditioning) -> Tensor:
        skip, out, net_in, t = self._inputs(x, sigma, cond)
        return self._told(x, skip, out * self._answer(net_in, t, cond), cond)

    def bind(self, cond: Conditioning) -> Denoise:
        """The denoiser with its conditioning filled in; what depends on the prompt alone is computed here, once."""
        if not isinstance(self.network, Bindable):
            return lambda x, sigma: self(x, sigma, cond)
        return self._bound(self.network.bind, cond)

    def bind_perturbed(self, cond: Conditioning) -> Denoise:
        """The same of a network whose attention is perturbed. Raises `ValueError` where it cannot be."""
        if not isinstance(self.network, Perturbable):
            raise ValueError("this network has no attention to perturb; leave out pag_scale")
        return self._bound(self.network.bind_perturbed, cond)

    def _bound(
        self, bind: Callable[[Tensor | None, Tensor | None], Callable[[Tensor, Tensor], Tensor]], cond: Conditioning
    ) -> Denoise:
        low = self._low(cond)
        network = bind(low.context, low.vector)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            skip, out, net_in, t = self._inputs(x, sigma, cond)
            return self._told(x, skip, out * network(net_in, t).float(), cond)

        return denoise

    def output(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """The network's own prediction, to be compared with `target`; sigma: B."""
        _, _, net_in, t = self._inputs(x, sigma, cond)
        return self._answer(net_in, t, cond)

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor, cond: Conditioning = UNSTEERED) -> Tensor:
        """What the network should answer at x0 + sigma * noise: the scaling solved for it; sigma: B."""
        skip, out, _ = self.scaling(sigma.double())
        signal, noisy = (sent(_column(one), x0.device) for one in ((1 - skip) / out, skip * sigma.double() / out))
        return (signal * self._difference(x0, cond) - noisy * noise).float()

    def _difference(self, x: Tensor, cond: Conditioning) -> Tensor:
        """What the network is asked about."""
        if not self.relative:
            return x
        if cond.concat is None:
            raise ValueError("no latent beside the noise; expected one, which the network's answers are relative to")
        return x - cond.concat

    def _told(self, x: Tensor, skip: Tensor, answer: Tensor, cond: Conditioning) -> Tensor:
        """x0, from the network's scaled answer."""
        if not self.relative or cond.concat is None:
            return skip * x + answer
        return cond.concat + skip * (x - cond.concat) + answer

    def _answer(self, net_in: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        low = self._low(cond)
        return self.network(net_in, t, low.context, low.vector).float()

    def _low(self, cond: Conditioning) -> Conditioning:
        """In the network's own precision; class ids stay whole numbers."""
        return cond.map(lambda slot: slot.to(self.dtype) if slot.is_floating_point() else slot)

    def _inputs(self, x: Tensor, sigma: float | Tensor, cond: Conditioning) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        level = torch.as_tensor(sigma, dtype=torch.float64)
        skip, out, into = (_column(one).float() for one in self.scaling(level))
        t = self.schedule.t(level).float()
        if level.ndim:
            skip, out, into, t = (sent(one, x.device) for one in (skip, out, into, t))
        else:  # written there, not copied: no sampling step waits for a device
            t = torch.full((len(x),), float(t), device=x.device)
        net_in = into * self._difference(x, cond)
        if cond.concat is not None:
            net_in = torch.cat((net_in, cond.concat), dim=1)
        return skip, out, net_in.to(self.dtype), t


def _column(values: Tensor) -> Tensor:
    """B -> B 1 1 1, so that it multiplies pictures; a scalar stays one."""
    return values[:, None, None, None] if values.ndim else values
