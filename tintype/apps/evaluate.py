"""`tintype eval`: what pictures, autoencoders and CLIPs are worth. One JSON and one picture come out."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from PIL import Image
from torch import Tensor
from tqdm import tqdm

import tintype
from tintype.apps.evaluate_inputs import (
    autoencoder_named,
    check_captioned,
    check_paired,
    classes_of,
    extractor_named,
    figures_asked,
    lpips_named,
    pictures_named,
    reference_named,
    stored,
)
from tintype.checkpoints import load
from tintype.checkpoints.clip import load_clip
from tintype.common.config import Json, to_json
from tintype.common.device import usable_device
from tintype.common.files import whole_file
from tintype.evaluation.caption_figures import CaptionSums, RetrievalSums
from tintype.evaluation.contact_sheet import contact_sheet, pictures_of, spread
from tintype.evaluation.extractors import file_digest, state_digest
from tintype.evaluation.feature_figures import FeatureConfig, measure_features
from tintype.evaluation.frechet import Gaussian, save_gaussian
from tintype.evaluation.pair_figures import PairSums, round_trip
from tintype.evaluation.pictures import Stored, pixels_of
from tintype.evaluation.scene_tasks import evaluate_tasks
from tintype.evaluation.scenes import evaluate_scenes, table
from tintype.evaluation.streaming import Walk
from tintype.evaluation.upscaling import evaluate_upscaling
from tintype.families.base import LatentDiffusion
from tintype.tasks.request import LARGEST_BATCH

log = logging.getLogger(__name__)

RESULT = "result.json"
UNASKED = ("command", "measure", "run", "out", "json", "device", "batch_size", "save_statistics")  # change no figure

Row = tuple[str, Sequence[Image.Image]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a measurement found: `figures` for the JSON, `rows` for the sheet."""

    figures: dict[str, Json]
    warnings: tuple[str, ...]
    rows: Sequence[Row]


def evaluate(arguments: argparse.Namespace) -> int:
    if arguments.measure in SCENES:
        found = SCENES[arguments.measure](load(arguments.model, device=arguments.device), arguments)
        print(json.dumps(found) if arguments.json else table(found))
        return 0
    if not 1 <= arguments.batch_size <= LARGEST_BATCH:
        raise ValueError(f"--batch-size {arguments.batch_size}: expected 1 to {LARGEST_BATCH}")
    if arguments.size is not None and arguments.size < 1:
        raise ValueError(f"--size {arguments.size}: expected 1 or more pixels")
    arguments.device = usable_device(arguments.device)
    out = _folder(Path(arguments.out or f"runs/eval/{arguments.measure}"))
    asked = _asked(arguments)
    former = _former(out, {"measure": arguments.measure, **asked})
    with ExitStack() as bars:
        outcome = MEASURES[arguments.measure](arguments, out, _progress(bars, quiet=arguments.json))
    result: dict[str, Json] = {
        "measure": arguments.measure,
        "tintype": tintype.__version__,
        **outcome.figures,
        "size": arguments.size,
        "settings": asked,
        "warnings": list(outcome.warnings),
    }
    if former is not None and (other := [name for name in result if former.get(name) != result[name]]):
        log.warning("%s is replaced; it had other %s", out / RESULT, ", ".join(other))
    with whole_file(out / "sheet.png") as path:
        contact_sheet(outcome.rows).save(path, format="PNG")
    with whole_file(out / RESULT) as path:
        path.write_text(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    for state in out.glob("*.state.safetensors"):
        state.unlink()
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
        return 0
    for sentence in outcome.warnings:
        log.warning(sentence)
    for line in _lines(outcome.figures):
        print(line)
    print(f"{out / RESULT}  {out / 'sheet.png'}")
    return 0


def _folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out}: {error.strerror}; expected a folder, there or to be made") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise ValueError(f"--out {out} cannot be written; expected a folder that you may write to")
    return out


def _asked(arguments: argparse.Namespace) -> dict[str, Json]:
    """All flags that a figure depends on, as they were given."""
    flags = {name: value for name, value in vars(arguments).items() if name not in UNASKED}
    return cast("dict[str, Json]", to_json(flags))


def _former(out: Path, asked: dict[str, Json]) -> dict[str, Json] | None:
    """A result that is there already. Raises `ValueError` for one of other settings, which is not to be lost."""
    try:
        told = json.loads((out / RESULT).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{out / RESULT} cannot be read ({error}); remove it, or name another folder") from error
    former = cast("dict[str, Json]", told) if isinstance(told, dict) else {}
    settings = former.get("settings")
    if isinstance(settings, dict):
        had = {"measure": former.get("measure"), **settings}
        other = [name for name in sorted({*had, *asked}) if had.get(name) != asked.get(name)]
        differing = [f"{name} was {had.get(name)}, is {asked.get(name)}" for name in other]
        if differing:
            raise ValueError(
                f"{out / RESULT} is of another measurement ({'; '.join(differing)}); expected the same, or another "
                "folder: name one with --out, or remove that file"
            )
    return former


def _progress(bars: ExitStack, *, quiet: bool) -> Callable[[str, int, int], None]:
    hidden = quiet or not sys.stderr.isatty()
    shown: dict[str, tqdm[int]] = {}

    def progress(name: str, done: int, total: int) -> None:
        if name not in shown:
            bar = tqdm(range(total), desc=name, unit="picture", leave=False, disable=hidden, dynamic_ncols=True)
            shown[name] = bars.enter_context(bar)
        shown[name].update(done - shown[name].n)

    return progress


def _lines(figures: dict[str, Json]) -> list[str]:
    lines: list[str] = []
    for name, value in figures.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        shown = ", ".join(f"{part} {_short(one)}".strip() for part, one in parts)
        lines.append(f"{name:32}{shown}")
    return lines


def _short(value: Json) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# What is measured


Progress = Callable[[str, int, int], None]


def _pictures(arguments: argparse.Namespace, out: Path, progress: Progress) -> Outcome:
    reference = reference_named(arguments)
    pictures = pictures_named(arguments, None if isinstance(reference, Gaussian) else reference)
    extractor = extractor_named(arguments)
    config = FeatureConfig(
        figures=figures_asked(arguments.figures, statistics=isinstance(reference, Gaussian)),
        reservoir=arguments.reservoir,
        subsets=arguments.kid_subsets,
        subset_size=arguments.kid_subset_size,
        neighbours=arguments.neighbours,
        splits=arguments.splits,
    )
    if arguments.save_statistics is not None and (isinstance(reference, Gaussian) or "fid" not in config.figures):
        raise ValueError(
            "--save-statistics: nothing to save; expected a reference of pictures, and fid among --figures"
        )
    told = _told(reference)
    key: Json = {"extractor": extractor.name, "size": arguments.size, "settings": _settings(config)}
    walk = Walk(batch=arguments.batch_size, keep=out, key=key, progress=progress)
    measured = measure_features(pictures, reference, extractor, config, walk)
    if arguments.save_statistics is not None and measured.reference is not None:
        save_gaussian(Path(arguments.save_statistics), measured.reference)
    rows: list[Row] = [] if isinstance(reference, Gaussian) else [("reference", pictures_of(spread(reference, 16)))]
    rows.append((f"pictures: {arguments.pictures}", pictures_of(spread(pictures, 32))))
    figures: dict[str, Json] = {
        "pictures": pictures.told,
        "reference": told,
        "extractor": extractor.name,
        **measured.figures,
    }
    return Outcome(figures=figures, warnings=measured.warnings, rows=rows)


def _settings(config: FeatureConfig) -> Json:
    return [*config.figures, config.reservoir, config.splits, config.seed]


def _told(reference: Stored | Gaussian) -> dict[str, Json]:
    if isinstance(reference, Gaussian):
        return {"statistics": reference.extractor, "pictures": reference.count}
    return reference.told


def _pairs(arguments: argparse.Namespace, out: Path, progress: Progress) -> Outcome:
    pictures, reference = (stored(name, arguments.size) for name in (arguments.pictures, arguments.reference))
    check_paired(pictures, reference)

    def other(first: int, image: Tensor) -> Tensor:
        return pixels_of(pictures.batch(first, len(image)))

    sums = PairSums(other, lpips=lpips_named(arguments))
    told: dict[str, Json] = {"pictures": pictures.told, "reference": reference.told}
    return _compared(
        arguments, reference, sums, Walk(keep=out, key=told, progress=progress), told, ("reference", "picture")
    )


def _reconstruction(arguments: argparse.Namespace, out: Path, progress: Progress) -> Outcome:
    data = stored(arguments.data, arguments.size)
    autoencoder = autoencoder_named(arguments.model, arguments.device)
    width, height = data.size
    if width % autoencoder.config.factor or height % autoencoder.config.factor:
        raise ValueError(
            f"pictures of {width} x {height}; expected multiples of {autoencoder.config.factor}, the autoencoder's "
            "factor: give --size"
        )
    extractor = None if arguments.extractor is None else extractor_named(arguments)
    other = round_trip(autoencoder, autoencoder.post_quant_conv.weight.device)
    sums = PairSums(other, lpips=lpips_named(arguments), extractor=extractor)
    told: dict[str, Json] = {
        "model": {"source": arguments.model, "digest": state_digest(autoencoder), "factor": autoencoder.config.factor},
        "data": data.told,
        "extractor": None if extractor is None else extractor.name,
    }
    walk = Walk(keep=out, key=told, progress=progress)
    return _compared(arguments, data, sums, walk, told, ("original", "reconstruction"))


def _compared(
    arguments: argparse.Namespace,
    pictures: Stored,
    sums: PairSums,
    walk: Walk,
    told: dict[str, Json],
    titles: tuple[str, str],
) -> Outcome:
    measured: Json = [told, arguments.size, [file_digest(Path(name)) for name in arguments.lpips]]
    through = Walk(batch=arguments.batch_size, keep=walk.keep, key=measured, progress=walk.progress)
    through.through("pictures", pictures, sums)
    figures, warnings = sums.figures()
    rows: list[Row] = []
    even = sorted({number * len(pictures) // 8 for number in range(8)})
    for kind, places in (("worst", sums.worst_places), ("evenly spaced", even)):
        samples = [pictures.batch(place, 1)[0] for place in places]
        made = [sums.other(place, pixels_of([one])) for place, one in zip(places, samples, strict=True)]
        rows.append((f"{titles[0]}, {kind}", pictures_of(samples)))
        rows.append((f"{titles[1]}, {kind}", [Image.fromarray(one[0].permute(1, 2, 0).numpy()) for one in made]))
    return Outcome(figures={**told, **figures}, warnings=warnings, rows=rows)


def _clip_score(arguments: argparse.Namespace, out: Path, progress: Progress) -> Outcome:
    pictures = pictures_named(arguments, None)
    check_captioned(pictures)
    clip = load_clip(Path(arguments.clip), device=arguments.device)
    sums = CaptionSums(clip.likeness)
    told: dict[str, Json] = {"pictures": pictures.told, "clip": state_digest(clip.network)}
    Walk(batch=arguments.batch_size, keep=out, key=[told, arguments.size], progress=progress).through(
        "pictures", pictures, sums
    )
    places = {"nearest to their captions": sums.best_places, "furthest from their captions": sums.worst_places}
    rows: list[Row] = [
        (title, pictures_of([pictures.batch(place, 1)[0] for place in found])) for title, found in places.items()
    ]
    return Outcome(figures={**told, **sums.figures()}, warnings=(), rows=rows)


def _retrieval(arguments: argparse.Namespace, out: Path, progress: Progress) -> Outcome:
    data = stored(arguments.data, arguments.size)
    check_captioned(data)
    clip = load_clip(Path(arguments.clip), device=arguments.device)
    sums = RetrievalSums(clip)
    told: dict[str, Json] = {"clip": state_digest(clip.network), "data": data.told}
    walk = Walk(batch=arguments.batch_size, keep=out, key=[told, arguments.size], progress=progress)
    walk.through("pictures", data, sums)
    rows: list[Row] = [("pictures", pictures_of(spread(data, 32)))]
    return Outcome(figures={**told, **sums.figures(classes_of(data))}, warnings=(), rows=rows)


MEASURES: dict[str, Callable[[argparse.Namespace, Path, Progress], Outcome]] = {
    "pictures": _pictures,
    "pairs": _pairs,
    "reconstruction": _reconstruction,
    "clip-score": _clip_score,
    "retrieval": _retrieval,
}


def _scenes(model: LatentDiffusion, arguments: argparse.Namespace) -> dict[str, object]:
    return evaluate_scenes(
        model,
        objects=arguments.objects,
        pairs=arguments.pairs,
        font=arguments.font,
        sheet=Path(arguments.sheet) if arguments.sheet else None,
        judge_weights=Path(arguments.judge) if arguments.judge else None,
        quiet=arguments.json,
    )


def _tasks(model: LatentDiffusion, arguments: argparse.Namespace) -> dict[str, object]:
    counts = {"layouts": arguments.layouts, "classes": arguments.classes, "holes": arguments.holes}
    return evaluate_tasks(model, **counts, font=arguments.font, quiet=arguments.json)


def _upscaling(model: LatentDiffusion, arguments: argparse.Namespace) -> dict[str, object]:
    asked = {"count": arguments.count, "steps": arguments.steps, "tile": arguments.tile}
    return evaluate_upscaling(model, **asked, font=arguments.font, quiet=arguments.json)


SCENES: dict[str, Callable[[LatentDiffusion, argparse.Namespace], dict[str, object]]] = {
    "scenes": _scenes,
    "tasks": _tasks,
    "upscaling": _upscaling,
}  # what is measured of a model on scenes
