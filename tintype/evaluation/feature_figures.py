"""How near pictures are to a reference, by the features of a network: FID, KID, precision, recall, Inception score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from tintype.common.config import Json, to_json
from tintype.data.samples import Sample
from tintype.evaluation.class_score import ClassScore
from tintype.evaluation.extractors import INCEPTION, Extractor
from tintype.evaluation.frechet import FrechetStatistics, Gaussian, frechet_distance, too_few
from tintype.evaluation.kernel import SEED, kernel_distance
from tintype.evaluation.manifold import check_neighbours, precision_recall
from tintype.evaluation.pictures import Pictures, pixels_of
from tintype.evaluation.reservoir import Reservoir
from tintype.evaluation.streaming import Walk

Figure = Literal["fid", "kid", "precision_recall", "inception_score"]
FIGURES: tuple[Figure, ...] = get_args(Figure)
# What the first two and the last are called when another network than Inception sees
OTHERWISE = {"fid": "frechet_distance", "kid": "kernel_distance", "inception_score": "class_score"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureConfig:
    """Which figures, and their settings. `reservoir`: of how many pictures a side features are kept, drawn from all,
    for KID, precision and recall; the other figures see all. `subset_size`: at most; fewer where there are fewer."""

    figures: tuple[Figure, ...] = FIGURES
    reservoir: int = 10_000
    subsets: int = 100
    subset_size: int = 1000
    neighbours: int = 3
    splits: int = 10
    seed: int = SEED

    def __post_init__(self) -> None:
        for name in ("reservoir", "subsets", "neighbours", "splits"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected 1 or more")
        if self.subset_size < 2:
            raise ValueError(f"subset_size {self.subset_size}: expected 2 or more")


class FeatureSums:
    """What is kept of the features of pictures: a `streaming.Sums`."""

    def __init__(self, extractor: Extractor, config: FeatureConfig, *, classes: bool) -> None:
        self.extractor = extractor
        self.frechet = FrechetStatistics(extractor.dim) if "fid" in config.figures else None
        wants = {"kid", "precision_recall"} & set(config.figures)
        self.reservoir = Reservoir(extractor.dim, config.reservoir, seed=config.seed) if wants else None
        told = "inception_score" in config.figures and classes and extractor.classes
        self.score = ClassScore(extractor.classes, splits=config.splits) if told else None

    def update(self, first: int, samples: Sequence[Sample]) -> None:
        seen = self.extractor(pixels_of(samples))
        try:
            if self.frechet is not None:
                self.frechet.update(seen.pooled)
            if self.reservoir is not None:
                self.reservoir.update(seen.pooled, first)
            if self.score is not None and seen.logits is not None:
                self.score.update(seen.logits, first)
        except ValueError as error:
            raise ValueError(
                f"pictures {first} to {first + len(samples) - 1}, {self.extractor.name}: {error}"
            ) from error

    def tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if self.frechet is not None:
            count = torch.tensor(self.frechet.count)
            found |= {"count": count, "mean": self.frechet.mean, "scatter": self.frechet.scatter}
        if self.reservoir is not None:
            found |= {"positions": self.reservoir.positions, "features": self.reservoir.features}
        if self.score is not None:
            sums = {"counts": self.score.counts, "chances": self.score.chances, "certainty": self.score.certainty}
            found |= sums
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        if self.frechet is not None:
            self.frechet.count = int(tensors["count"])
            self.frechet.mean, self.frechet.scatter = tensors["mean"], tensors["scatter"]
        if self.reservoir is not None:
            self.reservoir.positions, self.reservoir.features = tensors["positions"], tensors["features"]
        if self.score is not None:
            self.score.counts, self.score.chances = tensors["counts"], tensors["chances"]
            self.score.certainty = tensors["certainty"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """`figures`: as plain JSON values; `reference`: its statistics, to be saved, where they were made here."""

    figures: dict[str, Json]
    reference: Gaussian | None = None
    warnings: tuple[str, ...] = field(default=())


def measure_features(
    pictures: Pictures,
    reference: Pictures | Gaussian,
    extractor: Extractor,
    config: FeatureConfig,
    walk: Walk,
) -> Measured:
    """One pass over the reference, unless it is statistics, and one over the pictures.

    Raises `ValueError` for pictures of another size than the reference's, and for figures that statistics cannot give.
    """
    if isinstance(reference, Gaussian):
        _check_possible(config, reference, extractor)
    known: FeatureSums | None = None
    if not isinstance(reference, Gaussian):
        _check_sizes(pictures, reference)
        if "precision_recall" in config.figures:  # known before a model has drawn the pictures
            check_neighbours(config.neighbours, len(pictures), len(reference), config.reservoir)
        known = FeatureSums(extractor, config, classes=False)
        walk.through("reference", reference, known)
    sums = FeatureSums(extractor, config, classes=True)
    walk.through("pictures", pictures, sums)
    gaussian = reference if isinstance(reference, Gaussian) else None
    if known is not None and known.frechet is not None:
        gaussian = known.frechet.gaussian(extractor.name)
    figures, warnings = _figures(sums, known, gaussian, config)
    return Measured(figures=figures, reference=None if known is None else gaussian, warnings=warnings)


def _check_possible(config: FeatureConfig, reference: Gaussian, extractor: Extractor) -> None:
    impossible = {"kid", "precision_recall"} & set(config.figures)
    if impossible:
        raise ValueError(
            f"{' and '.join(sorted(impossible))} of statistics, which keep no features; expected fid and "
            "inception_score alone (--figures), or the reference's pictures"
        )
    if len(reference.mean) != extractor.dim or reference.extractor not in (None, extractor.name):
        by = reference.extractor or "an unknown network"
        raise ValueError(
            f"statistics of {len(reference.mean)} features by {by}; expected {extractor.dim} by {extractor.name}: "
            "make them with it"
        )


def _check_sizes(pictures: Pictures, reference: Pictures) -> None:
    """Of the first of each, where both lie there already."""
    sizes = [one.size for one in (pictures, reference)]
    if sizes[0] != sizes[1]:
        shown = [f"{width} x {height}" for width, height in sizes]
        raise ValueError(f"pictures of {shown[0]}, a reference of {shown[1]}; expected one size: give --size")


def _figures(
    sums: FeatureSums, known: FeatureSums | None, gaussian: Gaussian | None, config: FeatureConfig
) -> tuple[dict[str, Json], tuple[str, ...]]:
    inception = sums.extractor.name.startswith(INCEPTION)
    names = {figure: figure if inception else OTHERWISE.get(figure, figure) for figure in FIGURES}
    found: dict[str, Json] = {}
    warnings: list[str] = []
    if sums.frechet is not None and gaussian is not None:
        own = sums.frechet.gaussian(sums.extractor.name)
        found[names["fid"]] = frechet_distance(own, gaussian)
        sides = {"the pictures": own, "the reference": gaussian}
        warnings += [f"{names['fid']}: {side}: {few}" for side, one in sides.items() if (few := too_few(one))]
    if sums.reservoir is not None and known is not None and known.reservoir is not None:
        sides = sums.reservoir.features, known.reservoir.features
        size = min(config.subset_size, *map(len, sides))
        if "kid" in config.figures:
            told = kernel_distance(*sides, subsets=config.subsets, subset_size=size, seed=config.seed)
            found[names["kid"]] = to_json(told)
            if size < config.subset_size:
                warnings.append(f"{names['kid']}: subsets of {size}, not {config.subset_size}: a side has no more")
        if "precision_recall" in config.figures:
            precision, recall = precision_recall(*sides, neighbours=config.neighbours)
            found |= {"precision": precision, "recall": recall, "neighbours": config.neighbours}
        found["features_kept"] = {"pictures": len(sides[0]), "reference": len(sides[1])}
    if sums.score is not None:
        mean, std = sums.score.score()
        found[names["inception_score"]] = {"mean": mean, "std": std, "splits": config.splits}
    elif "inception_score" in config.figures:
        warnings.append(f"inception_score: {sums.extractor.name} tells no classes apart; left out")
    return found, tuple(warnings)
