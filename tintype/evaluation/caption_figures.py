"""Whether pictures show what their captions say, as a CLIP sees it: CLIP score, and retrieval by its features."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tintype.common.config import Json
from tintype.conditioning.clip import CLIPModel, Picture, clip_score
from tintype.data.samples import Sample
from tintype.evaluation.retrieval import class_features, retrieval, zero_shot

SHOWN = 8  # of the best and of the worst

# (pictures, a caption for each) -> the cosine of each pair: B
Likeness = Callable[[Sequence[Picture], Sequence[str]], Tensor]


class CaptionSums:
    """Sums of CLIP scores, and the places of the best and worst: a `streaming.Sums`. `likeness`: of a CLIP."""

    def __init__(self, likeness: Likeness) -> None:
        self.likeness = likeness
        self.count, self.hessel, self.percent = 0.0, 0.0, 0.0
        self.ends = torch.zeros(0, 2, dtype=torch.float64)  # cosine and position, lowest first

    def update(self, first: int, samples: Sequence[Sample]) -> None:
        pictures, captions = told(samples)
        cosines = self.likeness(pictures, captions).double()
        if not cosines.isfinite().all():
            raise ValueError(
                f"pictures {first} to {first + len(cosines) - 1}: the CLIP's cosines are not numbers; is it damaged?"
            )
        self.count += len(cosines)
        self.hessel += float(clip_score(cosines).sum())
        self.percent += float(clip_score(cosines, scale="percent").sum())
        places = torch.arange(first, first + len(cosines), dtype=torch.float64)
        ends = torch.cat([self.ends, torch.stack([cosines, places], dim=1)])
        order = ends[:, 0].argsort(stable=True)
        self.ends = ends[order if len(order) <= 2 * SHOWN else torch.cat([order[:SHOWN], order[-SHOWN:]])]

    def tensors(self) -> dict[str, Tensor]:
        return {"sums": torch.tensor([self.count, self.hessel, self.percent]).double(), "ends": self.ends}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.count, self.hessel, self.percent = tensors["sums"].tolist()
        self.ends = tensors["ends"]

    def figures(self) -> dict[str, Json]:
        """`clip_score` as Hessel et al. 2021 define it, 2.5 max(cos, 0); `clip_score_percent` as torchmetrics reports
        it, 100 cos: the mean of either over all pictures."""
        percent = max(self.percent / self.count, 0.0)
        return {"clip_score": self.hessel / self.count, "clip_score_percent": percent}

    @property
    def worst_places(self) -> list[int]:
        return [int(place) for place in self.ends[:SHOWN, 1]]

    @property
    def best_places(self) -> list[int]:
        return [int(place) for place in self.ends[-SHOWN:, 1].flip(0)]


class RetrievalSums:
    """The features of all pictures and of all their captions, and the classes: a `streaming.Sums` that grows, for what
    is nearest is known only once all are there (a million pictures of 512 features with a caption each: 4 GB)."""

    def __init__(self, clip: CLIPModel) -> None:
        dim = clip.config.clip.image.projection_dim
        assert dim is not None  # as `CLIPConfig` wants it
        self.clip = clip
        self.images, self.texts = torch.zeros(0, dim), torch.zeros(0, dim)
        self.image_of = torch.zeros(0, dtype=torch.int64)
        self.labels = torch.zeros(0, dtype=torch.int64)  # -1 for none

    def update(self, first: int, samples: Sequence[Sample]) -> None:
        pictures, _ = told(samples)
        captions = [(number, one) for number, sample in enumerate(samples, first) for one in _captions(sample)]
        self.images = torch.cat([self.images, self.clip.encode_pictures(pictures)])
        self.texts = torch.cat([self.texts, self.clip.encode_captions([one for _, one in captions])])
        self.image_of = torch.cat([self.image_of, torch.tensor([number for number, _ in captions])])
        labels = [-1 if one.label is None else one.label for one in samples]
        self.labels = torch.cat([self.labels, torch.tensor(labels)])

    def tensors(self) -> dict[str, Tensor]:
        return {"images": self.images, "texts": self.texts, "image_of": self.image_of, "labels": self.labels}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.images, self.texts = tensors["images"], tensors["texts"]
        self.image_of, self.labels = tensors["image_of"], tensors["labels"]

    def figures(self, classes: Sequence[str] = ()) -> dict[str, Json]:
        """Recall both ways; with the names of classes zero-shot accuracy as well, where all pictures have one."""
        found: dict[str, Json] = {"captions": len(self.texts), **retrieval(self.images, self.texts, self.image_of)}
        if classes and not bool((self.labels < 0).any()):
            accuracy = zero_shot(self.images, class_features(self.clip, classes), self.labels)
            found |= {f"zero_shot_{name}": value for name, value in accuracy.items()}
        return found


def _captions(sample: Sample) -> tuple[str, ...]:
    return sample.other_captions if sample.caption is None else (sample.caption, *sample.other_captions)


def told(samples: Sequence[Sample]) -> tuple[list[Picture], list[str]]:
    """Pictures and captions. Raises `ValueError` where one of either is missing."""
    pictures: list[Picture] = [one.picture for one in samples if one.picture is not None]
    captions = [one.caption for one in samples if one.caption is not None]
    if len(pictures) != len(samples) or len(captions) != len(samples):
        raise ValueError("a sample without a picture or a caption; expected both: captions in .txt, or --captions DATA")
    return pictures, captions
