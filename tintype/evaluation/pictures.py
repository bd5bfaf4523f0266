"""Pictures to be measured, by number: of a folder, of any data set, or as a model makes them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tintype.common.config import Json
from tintype.conditioning.class_label import ClassConditioner
from tintype.data.pictures import Refused, read_picture
from tintype.data.samples import Sample, Samples, described
from tintype.diffusion.denoiser import Conditioning
from tintype.families.base import LatentDiffusion
from tintype.generation import generate, generate_each
from tintype.tasks.request import Request

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class Pictures(Protocol):
    """A finite sequence whose part is a pure function of its place. `told`: what they are, for the report and to know
    them again; equal pictures are told equally, and others otherwise. `size`: width and height of the first."""

    @property
    def told(self) -> dict[str, Json]: ...
    @property
    def size(self) -> tuple[int, int]: ...
    def __len__(self) -> int: ...
    def batch(self, first: int, count: int) -> Sequence[Sample]: ...


@dataclass(frozen=True, slots=True)
class Stored:
    """The pictures of a data set, in order; `source` names it, `digest` tells its content."""

    samples: Samples
    source: str
    digest: str

    @property
    def told(self) -> dict[str, Json]:
        return {"source": self.source, "pictures": len(self), "digest": self.digest}

    @property
    def size(self) -> tuple[int, int]:
        height, width = pixels_of(self.batch(0, 1)).shape[2:]
        return width, height

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, first: int, count: int) -> Sequence[Sample]:
        return [self.samples[number] for number in range(first, min(first + count, len(self)))]


class Folder:
    """All pictures below a folder, by name, as `Samples`; a file of the same name that ends in .txt is the caption.
    Raises `ValueError` for a folder without any, and later for a file that is no picture."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise ValueError(f"{path} is no folder; expected one of pictures")
        found = (one.relative_to(path) for one in path.rglob("*") if one.suffix.lower() in ENDINGS and one.is_file())
        self.names = sorted(found)
        if not self.names:
            raise ValueError(f"{path} has no pictures; expected files that end in {', '.join(ENDINGS)}")

    @property
    def digest(self) -> str:
        """Of names, sizes and times, captions' as well: cheap, and another once a file is changed."""
        captions = [one for one in (name.with_suffix(".txt") for name in self.names) if (self.path / one).is_file()]
        stats = ((name, (self.path / name).stat()) for name in (*self.names, *captions))
        told = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
        return hashlib.sha256(told.encode()).hexdigest()[:10]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> Sample:
        path = self.path / self.names[index]
        try:
            picture = read_picture(path.read_bytes()).image
        except (OSError, Refused) as error:
            raise ValueError(f"{path} is not a readable picture ({error}); remove it, or make it again") from error
        return replace(self.described(index), picture=np.asarray(picture))

    def described(self, index: int, /) -> Sample:
        """Without its picture."""
        caption = (self.path / self.names[index]).with_suffix(".txt")
        said = caption.read_text(encoding="utf-8").strip() if caption.is_file() else None
        return Sample(caption=said or None, name=str(self.names[index]))


class Resized:
    """Another data set, its pictures squared to `size`."""

    def __init__(self, samples: Samples, size: int) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        sample = self.samples[index]
        assert sample.picture is not None
        return replace(sample, picture=np.asarray(squared(Image.fromarray(sample.picture), self.size)))

    def described(self, index: int, /) -> Sample:
        return described(self.samples, index)


def squared(picture: Image.Image, side: int) -> Image.Image:
    """The shorter side made `side` long (bicubic, over all pixels it covers), the middle of the longer one."""
    scale = side / min(picture.size)
    width, height = (max(side, round(length * scale)) for length in picture.size)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))


class Captioned:
    """Pictures of one data set with what another says of those of the same number."""

    def __init__(self, samples: Samples, said: Samples) -> None:
        if len(samples) != len(said):
            raise ValueError(f"{len(samples)} pictures, captions of {len(said)}; expected as many")
        self.samples, self.said = samples, said

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        said = self.said[index]
        return replace(said, picture=self.samples[index].picture)

    def described(self, index: int, /) -> Sample:
        return described(self.said, index)


class Sampled:
    """What a model makes of the captions or classes of a data set, in its order and again from its start when there are
    more pictures than samples; a model that nothing steers is told nothing. Each picture has its own seed: `seed` plus
    its number. `digest` tells the data set's content.

    Raises `ValueError` for a model that is steered by something else, or a data set without captions or classes.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        said: Samples,
        count: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        digest: str | None = None,
    ) -> None:
        if count < 1:
            raise ValueError(f"{count} pictures to sample; expected 1 or more")
        if not model.reads_prompts and not isinstance(model.conditioner, ClassConditioner | None):
            raise ValueError(
                f"{model.source} is steered by more than prompts or classes; make its pictures, and name their folder"
            )
        self.model, self.said, self.count, self.seed, self.steps = model, said, count, seed, steps
        self.digest = digest
        _ = self._word(said[0])

    @property
    def told(self) -> dict[str, Json]:
        return {
            "source": self.model.source,
            "model": self.model.digest,
            "said": self.digest,
            "pictures": self.count,
            "seed": self.seed,
            "steps": self.steps or self.model.config.steps,
        }

    @property
    def size(self) -> tuple[int, int]:
        return self.model.config.size, self.model.config.size

    def __len__(self) -> int:
        return self.count

    def batch(self, first: int, count: int) -> Sequence[Sample]:
        samples = [self.said[number % len(self.said)] for number in range(first, min(first + count, self.count))]
        words = [self._word(sample) for sample in samples]
        made = self._made(words, Request(seed=self.seed + first, steps=self.steps))
        return [replace(one, picture=np.asarray(picture)) for one, picture in zip(samples, made, strict=True)]

    def _made(self, words: Sequence[str | int], request: Request) -> list[Image.Image]:
        classes = self.model.conditioner
        if classes is None:
            request = replace(request, batch_size=len(words), cfg_scale=1.0)
            return generate(self.model, request, cond=Conditioning())
        if not isinstance(classes, ClassConditioner):
            return generate_each(self.model, [str(word) for word in words], request)
        guided = classes.config.null_class is not None
        with torch.inference_mode():
            cond = classes([int(word) for word in words])
            uncond = classes.empty(len(words)) if guided else None
        request = replace(request, batch_size=len(words), cfg_scale=None if guided else 1.0)
        return generate(self.model, request, cond=cond, uncond=uncond)

    def _word(self, sample: Sample) -> str | int:
        if self.model.conditioner is None:
            return ""
        word = sample.caption if self.model.reads_prompts else sample.label
        if word is None:
            kind = "caption" if self.model.reads_prompts else "class"
            raise ValueError(f"a sample without a {kind}, which the model is to be given; name a data set with {kind}s")
        return word


def pixels_of(samples: Sequence[Sample]) -> Tensor:
    """B 3 H W uint8. Raises `ValueError` when one has no picture, or they are of several sizes."""
    pictures: list[NDArray[np.uint8]] = [one.picture for one in samples if one.picture is not None]
    if len(pictures) != len(samples):
        raise ValueError("a sample without a picture; expected one in each")
    sizes = {f"{one.shape[1]} x {one.shape[0]}" for one in pictures}
    if len(sizes) > 1:
        raise ValueError(f"pictures of {' and '.join(sorted(sizes)[:2])}; expected one size: give --size")
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
