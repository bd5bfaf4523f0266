"""What the flags of `tintype eval` name: pictures, references, networks."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

from torch import Tensor

from tintype.checkpoints import load
from tintype.checkpoints.diffusers_folder import INDEX, load_first_stage_folder
from tintype.checkpoints.lpips_files import load_lpips
from tintype.checkpoints.model_folder import CONFIG
from tintype.checkpoints.native import load_network
from tintype.checkpoints.single_file import load_first_stage
from tintype.checkpoints.tensors import open_tensors
from tintype.common.files import METADATA_KEY
from tintype.data.known import require_each
from tintype.data.opening import open_samples
from tintype.data.prepared import DATASET, Prepared
from tintype.data.samples import Samples
from tintype.data.selection import SELECTION
from tintype.evaluation.extractors import (
    INCEPTION_FILE,
    INCEPTION_PLACE,
    ClipFeatures,
    Extractor,
    InceptionFeatures,
    JudgeFeatures,
)
from tintype.evaluation.feature_figures import FIGURES, Figure
from tintype.evaluation.frechet import Gaussian, load_gaussian
from tintype.evaluation.pictures import Captioned, Folder, Pictures, Resized, Sampled, Stored
from tintype.families.base import LatentDiffusion
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.weights import embedded


def figures_asked(asked: str | None, *, statistics: bool) -> tuple[Figure, ...]:
    if asked is None:
        return ("fid", "inception_score") if statistics else FIGURES
    names = [name.strip() for name in asked.split(",")]
    if not names or set(names) - set(FIGURES):
        raise ValueError(f"--figures {asked}: expected some of {', '.join(FIGURES)}, with commas between")
    return tuple(one for one in FIGURES if one in names)


def _samples(name: str) -> tuple[Samples, str]:
    """A data set on disk, and digits that tell its content."""
    path = Path(os.path.expanduser(name))
    if (path / DATASET).is_file() or (path / SELECTION).is_file():
        opened = open_samples(path)
        return opened.samples, opened.digest[:10]
    folder = Folder(path)
    return folder, folder.digest


def stored(name: str, size: int | None) -> Stored:
    samples, digest = _samples(name)
    return Stored(samples if size is None else Resized(samples, size), name, digest)


def classes_of(pictures: Stored) -> tuple[str, ...]:
    """The names of a prepared data set's classes."""
    samples = pictures.samples.samples if isinstance(pictures.samples, Resized) else pictures.samples
    return samples.classes if isinstance(samples, Prepared) else ()


def reference_named(arguments: argparse.Namespace) -> Stored | Gaussian:
    path = Path(os.path.expanduser(arguments.reference))
    if not path.exists():
        raise ValueError(
            f"--reference {path}: no such file or folder; expected statistics (.npz, or of --save-statistics), "
            "a folder of pictures, or one that `tintype prepare` made"
        )
    return load_gaussian(path) if path.is_file() else stored(arguments.reference, arguments.size)


def pictures_named(arguments: argparse.Namespace, reference: Stored | None) -> Pictures:
    """The pictures to be measured: stored ones with the captions named, or those that a model makes."""
    path = Path(os.path.expanduser(arguments.pictures))
    said = reference if arguments.captions is None else stored(arguments.captions, None)
    if not _is_model(path, arguments.pictures):
        if arguments.count is not None or arguments.steps is not None:
            raise ValueError(f"--count and --steps are for models to sample from; {path} holds pictures")
        found = stored(arguments.pictures, arguments.size)
        if arguments.captions is None or said is None:
            return found
        return Stored(Captioned(found.samples, said.samples), found.source, f"{found.digest}-{said.digest}")
    if said is None:
        raise ValueError("a model to sample from, and nothing to tell it; name a data set with --captions")
    model = load(arguments.pictures, device=arguments.device)
    _check_own_size(model, arguments.size)
    count = len(said) if arguments.count is None else arguments.count
    return Sampled(model, said.samples, count, seed=arguments.seed, steps=arguments.steps, digest=said.digest)


def _is_model(path: Path, name: str) -> bool:
    if path.is_dir():
        return (path / CONFIG).is_file() or (path / INDEX).is_file()
    if path.exists() or name in embedded():
        return True
    raise ValueError(
        f"{name}: no such folder or model; expected a folder of pictures, one that `tintype prepare` made, or a model"
    )


def _check_own_size(model: LatentDiffusion, size: int | None) -> None:
    if size not in (None, model.config.size):
        raise ValueError(f"--size {size}: the model makes pictures of {model.config.size}; expected that, or no --size")


def check_captioned(pictures: Pictures) -> None:
    """Before any is measured, by name."""
    match pictures:
        case Stored():
            samples, data = pictures.samples, pictures.source
        case Sampled():
            samples, data = pictures.said, "--captions"
        case _:
            return
    remedy = "expected one for each: a .txt beside the picture, or a folder of `tintype prepare --require-caption`"
    require_each(samples, "caption", data=data, remedy=remedy, count=len(pictures))


def check_paired(pictures: Stored, reference: Stored) -> None:
    if len(pictures) != len(reference):
        raise ValueError(f"{len(pictures)} pictures, {len(reference)} of the reference; expected as many")
    folders = [
        one.samples.samples if isinstance(one.samples, Resized) else one.samples for one in (pictures, reference)
    ]
    named = [[name.with_suffix("") for name in one.names] for one in folders if isinstance(one, Folder)]
    if len(named) == 2:
        for mine, other in zip(*named, strict=True):
            if mine != other:
                raise ValueError(f"picture {mine} stands beside {other}; expected the same names in both folders")
    if pictures.size != reference.size:
        shown = [f"{width} x {height}" for width, height in (pictures.size, reference.size)]
        raise ValueError(f"pictures of {shown[0]}, a reference of {shown[1]}; expected one size: give --size")


def extractor_named(arguments: argparse.Namespace) -> Extractor:
    weights = None if arguments.weights is None else Path(os.path.expanduser(arguments.weights))
    if arguments.extractor == "judge":
        return JudgeFeatures(weights=weights, device=arguments.device)
    if weights is None:
        wanted = f"{INCEPTION_FILE} from {INCEPTION_PLACE}" if arguments.extractor == "inception" else "a CLIP"
        raise ValueError(f"--extractor {arguments.extractor}: no weights; expected --weights FILE: {wanted}")
    if arguments.extractor == "clip":
        return ClipFeatures(weights, device=arguments.device)
    return InceptionFeatures(weights, device=arguments.device)


def lpips_named(arguments: argparse.Namespace) -> Callable[[Tensor, Tensor], Tensor] | None:
    if not arguments.lpips:
        return None
    network = load_lpips([Path(os.path.expanduser(name)) for name in arguments.lpips]).to(arguments.device)
    return lambda a, b: cast("Tensor", network(a.to(arguments.device), b.to(arguments.device))).cpu()


def autoencoder_named(name: str, device: str) -> Autoencoder:
    """Of a model, or in a file or folder of its own."""
    path = Path(os.path.expanduser(name))
    if path.is_dir() and not (path / CONFIG).is_file() and not (path / INDEX).is_file():
        return load_first_stage_folder(path, device=device).network
    if path.is_file():
        if METADATA_KEY in open_tensors(path).metadata:
            return load_network(path, "autoencoder", AutoencoderConfig, Autoencoder).to(device)
        return load_first_stage(path, device=device).network
    return load(name, device=device).autoencoder
