"""Retrieval and zero-shot classification from features of length 1, as CLIP papers report them.

Everything is a rank: how many wrong answers are as near as the right one. A tie counts as the chance that a random
order puts the right one first, so that a network whose features are all the same scores what guessing does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tintype.conditioning.clip import CLIPModel

QUERIES, GALLERY = 512, 4096  # compared at a time
TIED = 1e-9  # two cosines of float32 features, in float64, that are no further apart are the same

# A few for photographs, as in the notebook of OpenAI's CLIP that names seven of its eighty as nearly as good.
TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """For each query, in float64: how many wrong answers are nearer than its best right one (`before`), how many as
    near (`tied`), and how many right ones are as near as that (`right`, 1 or more)."""

    before: Tensor
    tied: Tensor
    right: Tensor

    def recall(self, k: int) -> float:
        """The share of queries with a right answer among the first k, ties in a random order."""
        room = (k - self.before).clamp(min=0)  # of the k first places, those left for what is tied
        missed = torch.ones_like(room)
        for place in range(k):  # the chance that no right one stands in any: drawing without putting back
            wrong = (self.tied - place).clamp(min=0) / (self.tied + self.right - place).clamp(min=1)
            missed = torch.where(place < room, missed * wrong, missed)
        return float((1 - missed).mean())


def ranks(queries: Tensor, gallery: Tensor, pairs: Tensor) -> Ranks:
    """queries: Q D; gallery: G D; pairs: P 2 int64, (query, answer) of all that is right, in any order. Holds no more
    than `QUERIES` x `GALLERY` cosines at once. Raises `ValueError` for a query without an answer and for features that
    are not finite.
    """
    for features in (queries, gallery):
        if not features.isfinite().all():
            raise ValueError("some features are not finite; expected numbers: is the network damaged?")
    answers = _answers(pairs, len(queries), len(gallery))
    parts = [_ranked(queries[some].double(), gallery, answers[some]) for some in _slices(len(queries), QUERIES)]
    before, tied, own = (torch.cat(kind) for kind in zip(*parts, strict=True))
    return Ranks(before=before, tied=tied, right=own)


def retrieval(images: Tensor, texts: Tensor, image_of: Tensor, *, at: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Recall both ways: "image_to_text_r1", …, "text_to_image_r10".

    images: N D; texts: M D; image_of: M int64, which picture each text describes. A picture with several captions is
    found by any of them (Karpathy & Fei-Fei 2015, section 4.2). Raises `ValueError` for a picture without one.
    """
    if image_of.shape != texts.shape[:1] or len(texts) == 0:
        raise ValueError(f"image_of {tuple(image_of.shape)} for texts {tuple(texts.shape)}; expected one for each")
    if not 0 <= int(image_of.min()) <= int(image_of.max()) < len(images):
        raise ValueError(f"image_of names picture {int(image_of.max())}; expected numbers from 0 to {len(images) - 1}")
    image_of = image_of.cpu()
    pairs = torch.stack((torch.arange(len(texts)), image_of), dim=1)
    ways = {
        "image_to_text": ranks(images, texts, pairs.flip(1)),
        "text_to_image": ranks(texts, images, pairs),
    }
    return {f"{way}_r{k}": round(found.recall(k), 6) for way, found in ways.items() for k in at}


def class_features(model: CLIPModel, names: Sequence[str], templates: Sequence[str] = TEMPLATES) -> Tensor:
    """C D: the mean over templates of each class's features, of length 1 again (Radford et al. 2021, section 3.1.4)."""
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"template {template!r}: expected one {{}} in it, where the name stands")
    each = [model.encode_captions([template.replace("{}", name) for name in names]) for template in templates]
    return F.normalize(torch.stack(each).mean(dim=0), dim=1)


def zero_shot(images: Tensor, classes: Tensor, labels: Tensor, *, at: Sequence[int] = (1, 5)) -> dict[str, float]:
    """{"top1", "top5"}: pictures (N D) whose class (labels: N int64) is among the nearest of all (C D)."""
    found = ranks(images, classes, torch.stack((torch.arange(len(labels)), labels.cpu()), dim=1))
    return {f"top{k}": round(found.recall(k), 6) for k in at}


def _answers(pairs: Tensor, queries: int, gallery: int) -> list[Tensor]:
    """The right answers of each query."""
    found: list[list[int]] = [[] for _ in range(queries)]
    for query, answer in pairs.tolist():
        if not (0 <= query < queries and 0 <= answer < gallery):
            raise ValueError(f"pair ({query}, {answer}); expected numbers below {queries} and {gallery}")
        found[query].append(answer)
    lonely = [query for query, answers in enumerate(found) if not answers]
    if lonely:
        raise ValueError(f"{len(lonely)} without an answer, the first is number {lonely[0]}; expected one for each")
    return [torch.tensor(sorted(set(answers))) for answers in found]


def _ranked(queries: Tensor, gallery: Tensor, answers: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """before, tied and right of some queries."""
    rows = torch.cat([torch.full_like(own, row) for row, own in enumerate(answers)])
    columns = torch.cat(list(answers))
    own = (queries[rows] * gallery[columns].double()).sum(dim=1).cpu()  # P
    best = torch.full((len(queries),), -torch.inf, dtype=torch.float64)
    best = best.scatter_reduce(0, rows, own, "amax")
    nearer, level = torch.zeros_like(best), torch.zeros_like(best)
    for some in _slices(len(gallery), GALLERY):
        away = (queries @ gallery[some].double().T).cpu() - best[:, None]
        nearer += (away > TIED).sum(dim=1)
        level += (away.abs() <= TIED).sum(dim=1)
    right = torch.zeros_like(best).index_add(0, rows, ((own - best[rows]).abs() <= TIED).double())
    return nearer, (level - right).clamp(min=0), right


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, count, size))
