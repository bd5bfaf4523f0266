"""Averages over training whose length is chosen afterwards (Karras et al. 2024, "Analyzing and Improving the Training
Dynamics of Diffusion Models", section 3 and appendix C: post-hoc EMA).

A power average of n updates weighs update k by its share of t^gamma over [0, n]. Its length is told by the standard
deviation of that profile relative to n: of 0.05 (gamma 17) the mean lags by 5 % of training, of 0.1 (gamma 7) by 11 %.
Two lengths are kept while training (`train.ema_stds`) and a snapshot of each with every checkpoint, in `snapshots`; any
other is then a combination of the snapshots, by least squares between profiles. With 0.05 and 0.1 ten checkpoints make
up 0.03 to 8 %, 0.07 to 1 %, 0.15 to 2 %; a hundred make up all from 0.02 to 0.25 to 1 %.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from tintype.common.files import load_tensors, save_tensors

SNAPSHOTS = "snapshots"
LARGEST_STD = 12**-0.5  # of the plain mean over all of training: gamma 0
TOLERANCE = 0.05  # relative error of a profile made of snapshots
_NAME = re.compile(r"(?P<part>.+)-(?P<std>[0-9.e-]+)-(?P<step>\d{8,})")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A power average: of all steps up to one, with an exponent."""

    path: Path
    step: int
    gamma: float


def gamma_of(std: float) -> float:
    """The exponent of a profile by its relative standard deviation: the root of (g + 1) / ((g + 2)^2 (g + 3)) = std^2.

    Raises `ValueError` for a standard deviation that no profile has.
    """
    if not 0 < std < LARGEST_STD:
        raise ValueError(f"relative standard deviation {std}: expected more than 0 and less than {LARGEST_STD:.4f}")
    inverse = std**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def power(std: float) -> Callable[[int], float]:
    """Decay of `EMA` after n updates: (1 - 1 / (n + 1))^(gamma + 1), so that update k of n weighs
    (k / n)^(gamma + 1) - ((k - 1) / n)^(gamma + 1)."""
    exponent = gamma_of(std) + 1
    return lambda updates: (1 - 1 / (updates + 1)) ** exponent


def save_snapshot(out: Path, part: str, std: float, step: int, average: dict[str, Tensor]) -> None:
    """Keep a power average as it is after so many steps."""
    (out / SNAPSHOTS).mkdir(exist_ok=True)
    save_tensors(out / SNAPSHOTS / f"{part}-{std:g}-{step:08d}.safetensors", average)


def forget_snapshots(out: Path, step: int) -> None:
    """Remove those after a step: the run goes on from there, and perhaps otherwise."""
    for path in (out / SNAPSHOTS).glob("*.safetensors"):
        if (match := _NAME.fullmatch(path.stem)) and int(match["step"]) > step:
            path.unlink()


def reconstruct(out: Path, part: str, std: float) -> dict[str, Tensor]:
    """The average of a part with a profile of the given relative standard deviation, at the last snapshot's step.

    Tensors that are no floating-point numbers are the last snapshot's. Raises `ValueError` when the snapshots cannot
    make up that profile.
    """
    found = [(path, match) for path in (out / SNAPSHOTS).glob("*.safetensors") if (match := _NAME.fullmatch(path.stem))]
    kept = [
        Snapshot(path, int(match["step"]), gamma_of(float(match["std"])))
        for path, match in found
        if match["part"] == part
    ]
    if not kept:
        raise ValueError(
            f"{out / SNAPSHOTS} has no averages of {part}; train with --set train.ema_stds=[0.05,0.1] to have them kept"
        )
    kept.sort(key=lambda one: one.step)
    shares, error = combination(kept, Snapshot(out, kept[-1].step, gamma_of(std)))
    if error > TOLERANCE:
        raise ValueError(
            f"relative standard deviation {std}: {len(kept)} snapshots make up its profile only to {error:.0%}; "
            f"expected {TOLERANCE:.0%} or better: one more like those of train.ema_stds, or a smaller train.save_every"
        )
    total: dict[str, Tensor] = {}
    for snapshot, share in zip(kept, shares, strict=True):
        for name, value in load_tensors(snapshot.path).items():
            mixed = value.double() * share + total.get(name, 0.0) if value.is_floating_point() else value
            total[name] = mixed
    return {name: value.float() if value.is_floating_point() else value for name, value in total.items()}


def combination(kept: Sequence[Snapshot], wanted: Snapshot) -> tuple[list[float], float]:
    """How much of each snapshot makes up a profile best, and what is missing then: the root of the mean square of the
    difference between the profiles, relative to that of the wanted one."""
    products = np.array([[_product(one, other) for other in kept] for one in kept])
    aims = np.array([_product(one, wanted) for one in kept])
    shares, *_ = np.linalg.lstsq(products, aims, rcond=1e-13)
    missing = 1 - (2 * shares @ aims - shares @ products @ shares) / _product(wanted, wanted)
    return shares.tolist(), math.sqrt(max(missing, 0.0))


def _product(one: Snapshot, other: Snapshot) -> float:
    """The inner product of two profiles, each (gamma + 1) t^gamma / T^(gamma + 1) over [0, T] (equation 138 there)."""
    early, late = sorted((one, other), key=lambda each: each.step)
    scale = (one.gamma + 1) * (other.gamma + 1) / (one.gamma + other.gamma + 1)
    return scale / late.step * (early.step / late.step) ** late.gamma
