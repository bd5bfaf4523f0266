"""Latents made once: what a latent diffusion run reads instead of pictures.

A folder holds `latents.json` (what is stored, and a checksum of each shard), `index.safetensors` (of each sample its
shard, row and size) and shards of one size each: means and log-variances, so that sampling stays honest, with all that
is known of the samples beside the picture. `encoding.py` writes it, resumably; `StoredLatents` reads it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from tintype.common.config import Json, added, from_json, to_json
from tintype.common.digests import weights_digest
from tintype.common.files import load_tensors
from tintype.conditioning.layout import Box, Region
from tintype.conditioning.prompt import Framing
from tintype.data.prepared import file_sha256
from tintype.data.samples import Sample
from tintype.data.views import Sizes
from tintype.diffusion.latent_space import LatentSpace
from tintype.models.autoencoder import Autoencoder

FORMAT = 1
CONTENTS, INDEX = "latents.json", "index.safetensors"
OPEN_SHARDS = 512
PAIRS = ("original_size", "target_size", "crop")  # of a framing

Precision = Literal["float16", "float32"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What is stored. Two folders of equal contents hold equal bytes, if made on equal machines.

    source: of what, as its caller tells it; autoencoder: see `encoder_digest`; sizes: a digest of the samples' sizes;
    factor: pixels per element of a side; gaussian: whether there are log-variances (a VQ model's latent is a point).
    """

    source: str
    autoencoder: str
    samples: int
    sizes: str
    channels: int
    factor: int
    gaussian: bool
    precision: Precision
    shard_bytes: int
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A file of samples of one size; `size` is the latents' height and width."""

    file: str
    sha256: str
    bytes: int
    samples: int
    size: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Of the latents as diffusion sees them, posterior noise included: mean and standard deviation of each channel, and
    the standard deviation of all numbers around their one mean."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    overall_std: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """`latents.json` of a whole folder; one without shards is not finished. `index`: SHA-256 of the index's file."""

    contents: Contents
    shards: tuple[Shard, ...] = ()
    statistics: Statistics | None = None
    index: str | None = added(None)


def encoder_digest(autoencoder: Autoencoder) -> str:
    """SHA-256 of all weights that decide a latent: not the decoder, of which there may be several (Stability's ft-MSE
    has the encoder of SD 1's own) for the same latents."""
    weights = autoencoder.state_dict().items()
    return weights_digest({name: value for name, value in weights if name.startswith(("encoder.", "quant_conv."))})


def read_contents(folder: Path) -> Finished:
    """What `latents.json` of a folder says. Raises `ValueError` where there is none of ours."""
    path = folder / CONTENTS
    try:
        told: object = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); expected a folder of stored latents: make it with `tintype latents`"
        ) from error
    contents = cast("dict[str, object]", told).get("contents") if isinstance(told, dict) else None
    version = cast("dict[str, object]", contents).get("format") if isinstance(contents, dict) else None
    if version != FORMAT:
        raise ValueError(f"{path} is of format {version}; this tintype reads {FORMAT}: make the latents again")
    return from_json(Finished, told)


# What is known of a sample beside its picture and latent


def written(sample: Sample) -> bytes:
    """Caption, class, boxes and framing as JSON."""
    known: dict[str, Json] = {
        "caption": sample.caption,
        "other_captions": list(sample.other_captions),
        "label": sample.label,
        "boxes": [to_json(box) for box in sample.boxes],
        "framing": None if sample.framing is None else to_json(sample.framing),
    }
    return json.dumps({name: value for name, value in known.items() if value not in (None, [])}).encode()


class _Record(NamedTuple):
    caption: str | None
    other_captions: tuple[str, ...]
    label: int | None
    boxes: tuple[Box, ...]
    framing: Framing | None


def _read(text: bytes) -> _Record:
    """By hand, not by `from_json`: it is done for every sample of every batch."""
    known = json.loads(text)
    boxes = [Box(**(box | {"region": Region(**box["region"])})) for box in known.get("boxes", ())]
    cut = known.get("framing")
    framing = None if cut is None else Framing(**(cut | {name: tuple(cut[name]) for name in PAIRS}))
    others = tuple(known.get("other_captions", ()))
    return _Record(known.get("caption"), others, known.get("label"), tuple(boxes), framing)


# Reading


class StoredLatents:
    """Samples of a folder: mean and logvar as stored (mapped, so that no more is read than asked for), and what is
    known of the picture. Of a VQ model logvar is minus infinity: a point.

    sizes: N 2, height and width of the latents. without_mask: the numbers of those that have no mask, where others have
    one. A shard's checksum is looked at when it is first read. Raises `ValueError` for a folder that is not finished,
    and with `autoencoder` for latents of another one.
    """

    def __init__(self, folder: Path, *, autoencoder: Autoencoder | None = None) -> None:
        self.folder = folder
        told = read_contents(folder)
        if told.statistics is None:
            raise ValueError(f"{folder} is not finished; run the same command again, it goes on where it stopped")
        self.contents, self.shards, self.statistics = told.contents, told.shards, told.statistics
        if autoencoder is not None and (given := encoder_digest(autoencoder)) != self.contents.autoencoder:
            raise ValueError(
                f"{folder} holds latents of autoencoder {self.contents.autoencoder[:10]}, this one is {given[:10]}; "
                "expected the same encoder: make the latents again, or name the right one"
            )
        self._told = told
        if not _is_index(folder, told):
            raise ValueError(
                f"{folder / INDEX} is not the index that {CONTENTS} was written with; copy it again, or remove "
                f"{CONTENTS} and run `tintype latents` again, which keeps what is whole"
            )
        index = load_tensors(folder / INDEX)
        self._shard, self._row = index["shard"].numpy(), index["row"].numpy()
        self.sizes: Sizes = index["size"].numpy()
        masked = index["masked"].numpy() if "masked" in index else np.ones(0, np.bool_)
        self.without_mask = np.flatnonzero(~masked)
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._opened)

    def __len__(self) -> int:
        return self.contents.samples

    def __getitem__(self, index: int, /) -> Sample:
        file, names, _ = self._open(int(self._shard[index]))
        row = int(self._row[index])
        mean: Tensor = file.get_slice("mean")[row]
        logvar = file.get_slice("logvar")[row] if "logvar" in names else torch.full_like(mean, -torch.inf)
        return replace(self.described(index), mean=mean, logvar=logvar)

    def described(self, index: int, /) -> Sample:
        """Without its latent."""
        file, names, ends = self._open(int(self._shard[index]))
        row = int(self._row[index])
        start = int(ends[row - 1]) if row else 0
        record = _read(file.get_slice("records")[start : int(ends[row])].numpy().tobytes())
        masked = "mask" in names and ("masked" not in names or bool(file.get_slice("masked")[row]))
        mask = file.get_slice("mask")[row].numpy() if masked else None
        return Sample(**record._asdict(), mask=mask)

    def space(self, *, per_channel: bool) -> LatentSpace:
        """What brings these latents to unit variance: shift and scale of each channel, or one scale alone, as LDM's
        `scale_by_std` (Rombach et al. 2022, appendix G), there measured on the first batch."""
        if per_channel:
            return LatentSpace(shift=self.statistics.mean, scale=tuple(1 / one for one in self.statistics.std))
        return LatentSpace(scale=(1 / self.statistics.overall_std,))

    def verify(self) -> list[str]:
        """Reads everything: the names of shards that are absent or not what was written."""
        index = [] if _is_index(self.folder, self._told) else [INDEX]
        return index + [shard.file for shard in self.shards if self._damage(shard) is not None]

    def _opened(self, number: int) -> tuple[safe_open, frozenset[str], Sequence[int]]:
        shard = self.shards[number]
        damage = self._damage(shard)
        if damage is not None:
            raise ValueError(
                f"{self.folder / shard.file}: {damage}; expected what was written: copy it again, or remove "
                f"{CONTENTS} and run `tintype latents` again, which keeps what is whole"
            )
        file = safe_open(self.folder / shard.file, framework="pt")
        return file, frozenset(file.keys()), file.get_tensor("ends").tolist()

    def _damage(self, shard: Shard) -> str | None:
        path = self.folder / shard.file
        try:
            if (size := path.stat().st_size) != shard.bytes:
                return f"the shard has {size} bytes instead of {shard.bytes}"
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"the shard cannot be read ({error.strerror})"
        return None if found == shard.sha256 else "the shard is damaged (its checksum is another)"


def _is_index(folder: Path, told: Finished) -> bool:
    """Of a folder that was written before its index had a checksum it is not known, and believed."""
    if told.index is None:
        return True
    return (folder / INDEX).is_file() and file_sha256(folder / INDEX) == told.index


def sizes_digest(sizes: Sizes) -> str:
    """SHA-256 of N 2 sizes."""
    return hashlib.sha256(np.ascontiguousarray(sizes, dtype="<i4").tobytes()).hexdigest()
