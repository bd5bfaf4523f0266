"""Writing latents to shards (see `latents.py`): in batches of one size, by any number of processes, resumably.

Which samples a shard holds is decided beforehand, so that a shard is the same whoever makes it. Each appears whole or
not at all and tells in its header what it is; a run that goes on looks at those that are there and makes the others.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from tintype.common.config import Json, to_json
from tintype.common.files import load_metadata, load_tensors, remove_folder, save_tensors, whole_file
from tintype.data.latents import (
    CONTENTS,
    INDEX,
    Contents,
    Finished,
    Precision,
    Shard,
    Statistics,
    StoredLatents,
    encoder_digest,
    read_contents,
    sizes_digest,
    written,
)
from tintype.data.prepared import file_sha256
from tintype.data.samples import Sample, SceneSamples
from tintype.data.scenes import Scenes
from tintype.data.sources import appearance, to_tensor
from tintype.data.views import Sized, Sizes
from tintype.models.autoencoder import Autoencoder, Posterior

log = logging.getLogger(__name__)

MEBIBYTE = 2**20
SHARD = re.compile(r"latents-\d{5,}\.safetensors")


class Processes(Protocol):
    """Those that share the work, such as `training.world.World`."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def wait(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Alone:
    rank: int = 0
    size: int = 1

    def wait(self) -> None:
        pass


ALONE = Alone()


def make_latents(
    out: Path,
    samples: Sized,
    autoencoder: Autoencoder,
    *,
    source: str,
    precision: Precision = "float16",
    shard_bytes: int = 16 * MEBIBYTE,
    batch_size: int = 16,
    workers: int = 2,
    replace: bool = False,
    progress: bool = True,
    processes: Processes = ALONE,
) -> None:
    """Encode all samples into the folder `out`, or go on with it; finished, it is left as it is.

    `source` tells which samples these are. They are read by `workers` threads while the device encodes. Raises
    `ValueError` for a folder that holds something else (with `replace` it gives way), for sizes that the autoencoder
    does not take, and for latents that are no numbers or beyond float16.
    """
    contents = _contents(samples, autoencoder, source, precision, shard_bytes)
    shards = _shared_out(samples.sizes // autoencoder.config.factor, contents)
    if processes.rank == 0:
        _begin(out, contents, replace=replace)
    processes.wait()
    own = range(processes.rank, len(shards), processes.size)
    if read_contents(out).statistics is None:
        for number in tqdm(own, desc="latents", unit="shard", dynamic_ncols=True, disable=not progress):
            if not _is_whole(out / _name(number), contents):
                tensors = _encoded(samples, shards[number], autoencoder, contents, batch_size, workers)
                save_tensors(out / _name(number), tensors, _header(tensors, contents))
        processes.wait()
        if processes.rank == 0:
            _finish(out, contents, shards, samples.sizes // autoencoder.config.factor)
    processes.wait()


def stored_scenes(folder: Path, scenes: Scenes, count: int, autoencoder: Autoencoder) -> StoredLatents:
    """Latents of the first scenes: those that an earlier call made of the same, or made anew in their place."""
    drawn = json.dumps({"config": to_json(scenes.config), "appearance": appearance(scenes)}, sort_keys=True)
    make_latents(folder, SceneSamples(scenes, count), autoencoder, source=drawn, batch_size=64, replace=True)
    return StoredLatents(folder, autoencoder=autoencoder)


def _contents(
    samples: Sized, autoencoder: Autoencoder, source: str, precision: Precision, shard_bytes: int
) -> Contents:
    config = autoencoder.config
    if len(samples) == 0:
        raise ValueError(f"no samples in {source}; expected one or more: see the report of `tintype prepare`")
    wrong = np.flatnonzero((samples.sizes % config.factor).any(axis=1) | (samples.sizes < 1).any(axis=1))
    if len(wrong):
        height, width = samples.sizes[wrong[0]].tolist()
        raise ValueError(
            f"sample {wrong[0]} (of {len(wrong)}) is {width}x{height}; expected sides that are multiples of "
            f"{config.factor}: bring pictures into the sizes of --buckets, or prepare them with --size"
        )
    return Contents(
        source=source,
        autoencoder=encoder_digest(autoencoder),
        samples=len(samples),
        sizes=sizes_digest(samples.sizes),
        channels=config.latent_channels,
        factor=config.factor,
        gaussian=config.codebook_size is None,
        precision=precision,
        shard_bytes=shard_bytes,
    )


def _shared_out(sizes: Sizes, contents: Contents) -> list[NDArray[np.int64]]:
    """The samples' numbers, shard by shard: of one size each, as many as fit."""
    number = np.dtype(contents.precision).itemsize * contents.channels * (2 if contents.gaussian else 1)
    kinds, kind = np.unique(sizes, axis=0, return_inverse=True)
    shards: list[NDArray[np.int64]] = []
    for which, (height, width) in enumerate(kinds.tolist()):
        members = np.flatnonzero(kind.reshape(-1) == which)
        each = max(1, contents.shard_bytes // (number * height * width))
        shards += [members[start : start + each] for start in range(0, len(members), each)]
    return shards


def _begin(out: Path, contents: Contents, *, replace: bool) -> None:
    if (out / CONTENTS).exists():
        try:
            differing = _differing(read_contents(out).contents, contents)
        except ValueError:
            if not replace:
                raise
            differing = ["format"]
        if not differing:
            return
        if not replace:
            raise ValueError(
                f"{out} holds other latents: {' and '.join(differing)}; expected a folder of the same, or an empty "
                "one: name another, or ask for the same and it goes on there"
            )
        remove_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    if any(path.name not in (".lock", INDEX) and not SHARD.fullmatch(path.name) for path in out.iterdir()):
        raise ValueError(
            f"{out} holds something else; expected an empty folder, or one of stored latents: name another"
        )
    _write_json(out / CONTENTS, to_json(Finished(contents=contents)))


def _differing(found: Contents, wanted: Contents) -> list[str]:
    """What is stored and what is asked for, in sentences, where they are not the same."""
    told: list[str] = []
    if found.source != wanted.source:
        told += _sources_differ(found.source, wanted.source)
    if found.autoencoder != wanted.autoencoder:
        told.append(f"encoder {found.autoencoder[:10]} made them, this one is {wanted.autoencoder[:10]} (--model)")
    if found.samples != wanted.samples:
        told.append(f"they are of {found.samples} samples, asked for are {wanted.samples}")
    if found.precision != wanted.precision:
        told.append(f"they are {found.precision}, asked for is {wanted.precision} (--dtype)")
    if found.shard_bytes != wanted.shard_bytes:
        had, asked = (one.shard_bytes / MEBIBYTE for one in (found, wanted))
        told.append(f"their shards have at most {had:.6g} MiB, asked for are {asked:.6g} (--shard-mib)")
    other = found != wanted and not told
    return ["the sizes of the pictures or of the encoder's latents are others"] if other else told


def _sources_differ(found: str, wanted: str) -> list[str]:
    """`tintype latents` tells its source as a JSON object, a caller may in any words."""
    had, asked = _object(found), _object(wanted)
    if "samples" not in had or "samples" not in asked:
        return [f"they are of {_short(found)}, asked for are those of {_short(wanted)}"]
    told: list[str] = []
    if had["samples"] != asked["samples"]:
        told.append("they are of another data set, or of another selection of it (SOURCE)")
    if had.get("buckets") != asked.get("buckets"):
        told.append(f"they are {_in_buckets(had)}, asked for is {_in_buckets(asked)} (--buckets)")
    if had.get("mirrored") != asked.get("mirrored"):
        told.append(f"they are {_with_mirrored(had)}, asked for is {_with_mirrored(asked)} (--mirrored)")
    return told


def _object(text: str) -> dict[str, Json]:
    try:
        value: object = json.loads(text)
    except ValueError:
        return {}
    return cast("dict[str, Json]", value) if isinstance(value, dict) else {}


def _in_buckets(told: dict[str, Json]) -> str:
    sizes = cast("list[list[int]]", told.get("buckets") or [])
    if not sizes:
        return "as prepared"
    (height, width), (h, w) = sizes[0], sizes[-1]
    return f"in {len(sizes)} buckets from {width}x{height} to {w}x{h}"


def _with_mirrored(told: dict[str, Json]) -> str:
    return "with mirrored ones" if told.get("mirrored") else "without mirrored ones"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def _encoded(
    samples: Sized,
    numbers: NDArray[np.int64],
    autoencoder: Autoencoder,
    contents: Contents,
    batch_size: int,
    workers: int,
) -> dict[str, Tensor]:
    """The tensors of a shard."""
    device = next(autoencoder.parameters()).device
    parts: dict[str, list[Tensor]] = {"mean": [], "logvar": []}
    records: list[bytes] = []
    masks: list[NDArray[np.uint8] | None] = []
    for some, read in _ahead(samples, numbers, batch_size, workers):
        with torch.inference_mode():
            encoded = autoencoder.encode(to_tensor(_pictures(some, read, samples.sizes)).to(device))
        parts["mean"].append(_kept(encoded.mean, some, contents.precision))
        if isinstance(encoded, Posterior):
            parts["logvar"].append(_kept(encoded.logvar, some, contents.precision))
        records += [written(sample) for sample in read]
        masks += [sample.mask for sample in read]
    height, width = samples.sizes[numbers[0]].tolist()
    return {
        **{name: torch.cat(some) for name, some in parts.items() if some},
        **_stacked(masks, np.zeros((height, width), np.uint8)),
        "index": torch.from_numpy(numbers),
        "records": torch.frombuffer(bytearray(b"".join(records)), dtype=torch.uint8),
        "ends": torch.tensor([len(record) for record in records]).cumsum(0),
    }


def _stacked(masks: Sequence[NDArray[np.uint8] | None], empty: NDArray[np.uint8]) -> dict[str, Tensor]:
    """{"mask"} of a shard; where some are missing "masked" tells of which samples there is one."""
    masked = [mask is not None for mask in masks]
    if not any(masked):
        return {}
    pixels = torch.from_numpy(np.stack([empty if mask is None else mask for mask in masks]))
    return {"mask": pixels} if all(masked) else {"mask": pixels, "masked": torch.tensor(masked)}


def _ahead(
    samples: Sized, numbers: NDArray[np.int64], batch_size: int, workers: int
) -> Iterator[tuple[list[int], list[Sample]]]:
    """Batches of samples with their numbers; the next one is read while this one is encoded."""
    batches: list[list[int]] = [
        numbers[start : start + batch_size].tolist() for start in range(0, len(numbers), batch_size)
    ]
    with ThreadPoolExecutor(workers) as pool:
        coming = [pool.submit(samples.__getitem__, one) for one in batches[0]]
        for batch, following in zip(batches, [*batches[1:], []], strict=True):
            read = [one.result() for one in coming]
            coming = [pool.submit(samples.__getitem__, one) for one in following]
            yield batch, read


def _pictures(numbers: Sequence[int], read: Sequence[Sample], sizes: Sizes) -> list[NDArray[np.uint8]]:
    pictures: list[NDArray[np.uint8]] = []
    for number, sample in zip(numbers, read, strict=True):
        height, width = sizes[number].tolist()
        if sample.picture is None or sample.picture.shape[:2] != (height, width):
            found = None if sample.picture is None else sample.picture.shape[1::-1]
            raise ValueError(f"sample {number}: picture of {found}, told to be {(width, height)}; prepare it again")
        pictures.append(sample.picture)
    return pictures


def _kept(values: Tensor, numbers: Sequence[int], precision: Precision) -> Tensor:
    """Log-variances lie within [-30, 20], where float16 has them to 0.008: a standard deviation to 0.4 %."""
    kept = values.to(torch.float16 if precision == "float16" else torch.float32).cpu()
    bad = (~kept.isfinite()).flatten(1).any(dim=1)
    if not bad.any():
        return kept
    first = int(bad.nonzero()[0])
    largest = float(values[first].abs().max())
    if np.isfinite(largest):
        raise ValueError(
            f"sample {numbers[first]}: its latent reaches {largest:g}, float16 ends at 65504; store float32 "
            "(--dtype float32)"
        )
    raise ValueError(f"sample {numbers[first]}: its latent is not finite; expected an autoencoder that gives numbers")


# Headers: what a shard says of itself


def _header(tensors: dict[str, Tensor], contents: Contents) -> Json:
    sums = _sums(tensors)
    return {"of": _digest_of(contents), "sha256": _digest(tensors, sums), "sums": sums}


def _digest_of(contents: Contents) -> str:
    return hashlib.sha256(json.dumps(to_json(contents), sort_keys=True).encode()).hexdigest()


def _digest(tensors: dict[str, Tensor], sums: Json) -> str:
    digest = hashlib.sha256(json.dumps(sums).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _sums(tensors: dict[str, Tensor]) -> dict[str, Json]:
    """Of each channel: how many numbers, their sum and the sum of their squares, posterior noise included."""
    mean = tensors["mean"].double()
    squares = mean.square()
    if "logvar" in tensors:
        squares += tensors["logvar"].double().exp()
    each = (0, 2, 3)
    count = mean.numel() // mean.shape[1]
    return {"count": count, "sum": mean.sum(dim=each).tolist(), "squares": squares.sum(dim=each).tolist()}


def _is_whole(path: Path, contents: Contents) -> bool:
    """Whether a shard is there, of these contents and as it was written."""
    if not path.exists():
        return False
    try:
        header, tensors = load_metadata(path), load_tensors(path)
    except ValueError:
        header, tensors = None, {}
    if isinstance(header, dict):
        known = cast("dict[str, Json]", header)
        if known.get("of") == _digest_of(contents) and known.get("sha256") == _digest(tensors, known.get("sums")):
            return True
    log.warning("%s is damaged or of other latents; it is made again", path)
    return False


def _finish(out: Path, contents: Contents, shards: Sequence[NDArray[np.int64]], sizes: Sizes) -> None:
    """Write index and checksums, and with them the statistics."""
    shard, row = np.zeros(contents.samples, np.int32), np.zeros(contents.samples, np.int32)
    masked = np.zeros(contents.samples, np.bool_)
    told: list[Shard] = []
    sums: list[dict[str, Json]] = []
    for number, members in enumerate(shards):
        path = out / _name(number)
        header = cast("dict[str, dict[str, Json]]", load_metadata(path))
        height, width = sizes[members[0]].tolist()
        told.append(
            Shard(
                file=path.name,
                sha256=file_sha256(path),
                bytes=path.stat().st_size,
                samples=len(members),
                size=(height, width),
            )
        )
        sums.append(header["sums"])
        shard[members], row[members] = number, np.arange(len(members))
        masked[members] = _masked(path)
    columns = {"shard": shard, "row": row, "size": sizes.astype(np.int32)}
    index = {name: torch.from_numpy(values) for name, values in columns.items()}
    if masked.any() and not masked.all():
        index["masked"] = torch.from_numpy(masked)
    save_tensors(out / INDEX, index)
    finished = Finished(
        contents=contents, shards=tuple(told), statistics=_statistics(sums), index=file_sha256(out / INDEX)
    )
    _write_json(out / CONTENTS, to_json(finished))


def _masked(path: Path) -> NDArray[np.bool_]:
    """Of each sample of a shard whether it has a mask; one value where that is said of all."""
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        return file.get_tensor("masked").numpy() if "masked" in names else np.array("mask" in names)


def _statistics(sums: Sequence[dict[str, Json]]) -> Statistics:
    count = sum(cast("int", one["count"]) for one in sums)
    total, squares = (np.sum([cast("list[float]", one[name]) for one in sums], axis=0) for name in ("sum", "squares"))
    mean = total / count
    overall = float(squares.mean() / count - mean.mean() ** 2)
    return Statistics(
        mean=tuple(mean.tolist()),
        std=tuple(np.sqrt(squares / count - mean**2).tolist()),
        overall_std=overall**0.5,
    )


def _name(number: int) -> str:
    return f"latents-{number:05d}.safetensors"


def _write_json(path: Path, value: Json) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1))
