"""What each command of the command line does."""

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

import tintype
from tintype.apps.filter import filter_samples
from tintype.apps.latents import latents
from tintype.apps.prepare import prepare
from tintype.checkpoints import load
from tintype.common.config import nearest, override, to_json
from tintype.common.files import LONGEST_NAME
from tintype.diffusion.names import A1111_SPACINGS, COMFY_SPACINGS, also_known_as
from tintype.diffusion.samplers import SAMPLERS
from tintype.diffusion.spacing import SPACINGS
from tintype.diffusion.step import Step
from tintype.families.base import LatentDiffusion
from tintype.generation import finish, steps, unknown_words, warnings
from tintype.tasks.boxes import read_layout
from tintype.tasks.infotext import Provenance, provenance, save
from tintype.tasks.pictures import repeated_with
from tintype.tasks.request import MODELS, NAMED, TASKS, UNPROMPTED, Request
from tintype.tasks.task import resolve
from tintype.weights import embedded

log = logging.getLogger(__name__)

# txt2img and the other tasks

EXAMPLES = {
    "txt2img": 'tintype txt2img "a red apple"',
    "img2img": 'tintype img2img "a red apple" -i in.png --strength 0.6',
    "inpaint": 'tintype inpaint "a red apple" -i in.png --mask m.png',
    "outpaint": 'tintype outpaint "a red apple" -i in.png --left 32',
    "edit": 'tintype edit "make it a watercolour" -i in.png -m instruct-pix2pix',
    "depth2img": 'tintype depth2img "a bronze statue" -i in.png --depth depth.png -m stable-diffusion-2-depth',
    "upscale": "tintype upscale -i in.png",
    "class2img": 'tintype class2img "red apple"',
}
OTHER_FORMATS = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def draw(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    asked = _request(arguments)
    made = None if arguments.source is None else _read_provenance(Path(arguments.source))
    name, model = _model_of(arguments, None if made is None else (made.model, made.digest))
    if made is not None:
        asked = repeated_with(made.request, asked)
    request = resolve(model, asked)
    chosen = range(request.batch_size) if made is None else range(made.position, made.position + 1)
    targets = _targets(arguments.output, request, chosen)

    loaded = time.perf_counter()
    pictures = _with_progress(model, request, quiet=arguments.json)
    generated = time.perf_counter()
    for number, path in zip(chosen, targets, strict=True):
        save(pictures[number], path)

    seeds = [request.seeds[number] for number in chosen]
    varied = [request.variation_seeds[number] for number in chosen if request.variation_seeds]
    if arguments.json:
        report = {
            "images": [str(path) for path in targets],
            "seeds": seeds,
            "variation_seeds": varied,
            "request": to_json(request),
            "warnings": warnings(model, request),
            "unknown_words": unknown_words(model, request),
            "model": {"name": name, "digest": model.digest},
            "seconds": {"load": round(loaded - started, 3), "generate": round(generated - loaded, 3)},
        }
        print(json.dumps(report, ensure_ascii=False))
        return 0
    for path, seed, other in itertools.zip_longest(targets, seeds, varied):
        print(f"{path}  (seed {seed})" if other is None else f"{path}  (seed {seed}, variation seed {other})")
    return 0


def _request(arguments: argparse.Namespace) -> Request:
    given = {field.name: getattr(arguments, field.name, None) for field in dataclasses.fields(Request)}
    given = {name: value for name, value in given.items() if value is not None}
    if (layout := getattr(arguments, "layout", None)) is not None:
        given["boxes"] = (*given.get("boxes", ()), *read_layout(Path(layout)))
    first: str | None = arguments.first_field
    if arguments.source is not None:
        also = [name for name in given if name not in ("task", "lora", *NAMED)]
        also += [first] if first and arguments.first is not None else []
        if also:
            raise ValueError(f"--from repeats a picture as it was; leave out {', '.join(also)}")
        return Request(**given)
    if first is not None and arguments.first is not None:
        if first in given:
            raise ValueError(f"the {first} is given twice; expected it first or with --{first}, not both")
        given[first] = arguments.first
    if first is not None and first not in given and arguments.task not in UNPROMPTED:
        raise ValueError(f"no {first}; expected it first, such as: {EXAMPLES[arguments.task]}")
    return Request(**given)


def _read_provenance(path: Path) -> Provenance:
    try:
        with Image.open(path) as picture:
            picture.load()
            return provenance(picture)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"--from {path}: no such picture") from error
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"--from {path}: not a readable picture ({error})") from error


def _model_of(arguments: argparse.Namespace, told: tuple[str, str] | None) -> tuple[str, LatentDiffusion]:
    """The model that is asked for, or the one that is told (by name and digest) to have made what is repeated."""
    name = arguments.model or (told[0] if told else MODELS.get(arguments.task, "default"))
    if told is not None and arguments.model is None and name not in embedded():
        raise ValueError(f"--from: {told[0]} ({told[1]}) made the picture; name its folder with --model")
    model = _opened(arguments, name, device=arguments.device)
    if told is not None and told[1] != model.digest:
        raise ValueError(
            f"the picture was made by model {told[0]} ({told[1]}); {name} is {model.digest}; "
            "name the right one with --model"
        )
    return name, model


def _targets(output: str | None, request: Request, chosen: range) -> list[Path]:
    """Paths that can be written, made sure before any work."""
    if output is not None and output.lower().endswith(OTHER_FORMATS):
        raise ValueError(f"--output {output}: pictures are written as PNG; expected a name in .png, or a folder")
    if output is not None and output.lower().endswith(".png"):
        path = Path(output)
        paths = [path] if len(chosen) == 1 else [path.with_name(f"{path.stem}-{n + 1}{path.suffix}") for n in chosen]
    else:
        slug = (
            re.sub(r"[^a-z0-9]+", "-", (request.prompt or request.label or request.task).lower()).strip("-")[:60]
            or "picture"
        )
        folder = Path(output or "outputs")
        paths = [_unused(folder, f"{slug}-{(request.variation_seeds or request.seeds)[number]}") for number in chosen]
    for path in paths:
        if (length := len(os.fsencode(path.name))) > LONGEST_NAME:
            raise ValueError(f"--output: got a name of {length} bytes; expected {LONGEST_NAME} or less; shorten it")
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {folder}: {error.strerror}; expected a folder that can be made") from error
    for path in paths:
        if path.is_dir():
            raise ValueError(f"--output {path} is a folder; expected a file name or a folder without .png")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--output {folder} cannot be written ({error.strerror}); expected a folder that you may write to"
        ) from error
    for name in NAMED:
        source: str | None = getattr(request, name)
        if source is not None and any(_same(path, source) for path in paths):
            raise ValueError(f"--output {paths[0]} is the {name} it is made from; expected another name")
    return paths


def _same(path: Path, source: str) -> bool:
    """Whether a picture that a request names (a path or a data URL) is this file."""
    return not source.startswith("data:") and path.exists() and path.samefile(source)


def _unused(folder: Path, stem: str) -> Path:
    """A name no earlier picture has."""
    path, number = folder / f"{stem}.png", 1
    while os.path.exists(path):  # Path's own raises when a name is too long
        number += 1
        path = folder / f"{stem}-{number}.png"
    return path


def _with_progress(model: LatentDiffusion, request: Request, *, quiet: bool) -> list[Image.Image]:
    hidden = quiet or not sys.stderr.isatty()
    step: Step | None = None
    with tqdm(unit="step", leave=False, disable=hidden, dynamic_ncols=True) as shown:
        for step in steps(model, request):
            shown.total = step.count
            shown.update()
    return finish(model, request, step)


def travel(arguments: argparse.Namespace) -> int:
    from tintype.apps.travel import travel

    return travel(arguments, lambda: _opened(arguments, arguments.model, device=arguments.device))


def sheet(arguments: argparse.Namespace) -> int:
    from tintype.apps.sheet import sheet

    return sheet(arguments, lambda told: _model_of(arguments, told)[1])


# train, eval


def train(arguments: argparse.Namespace) -> int:
    from tintype.recipes import RECIPES, Recipe, run

    if arguments.recipe == "list":
        for name, make in RECIPES.items():
            print(f"{name}: {(sys.modules[make.__module__].__doc__ or '').splitlines()[0]}")
        return 0
    if arguments.recipe not in RECIPES:
        raise ValueError(f"no recipe {arguments.recipe!r}; expected {nearest(arguments.recipe, list(RECIPES))}")
    _warn_of_repeated(arguments.settings)
    recipe: Recipe = override(RECIPES[arguments.recipe](), arguments.settings)
    if arguments.font is not None:
        recipe = override(recipe, [f"font={json.dumps(arguments.font)}"])
    if arguments.show:
        print(json.dumps(to_json(recipe), indent=2))
        return 0
    out = Path(arguments.out or f"runs/{arguments.recipe}")
    logging.getLogger("tintype.training").setLevel(logging.INFO)  # says where a run goes on
    if run(recipe, out):
        print(f"finished: {out}")
    return 0


def _warn_of_repeated(settings: Sequence[str]) -> None:
    """A script may have its own settings before those it is given, but a slip should not pass unseen."""
    last: dict[str, str] = {}
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if last.get(key, setting) != setting:
            log.warning("%s is set more than once; --set %s counts, not --set %s", key, setting, last[key])
        last[key] = setting


def evaluate(arguments: argparse.Namespace) -> int:
    from tintype.apps.evaluate import evaluate

    return evaluate(arguments)


# info, samplers, doctor


def _opened(arguments: argparse.Namespace, name: str, *, device: str | None = None) -> LatentDiffusion:
    return load(
        name,
        device=device,
        dtype=arguments.dtype or "float32",
        prediction=arguments.prediction,
        vae=arguments.vae,
        variant=arguments.variant,
    )


def convert(arguments: argparse.Namespace) -> int:
    from tintype.checkpoints.convert import convert

    target = Path(arguments.target)
    convert(
        arguments.source,
        target,
        layout=arguments.layout,
        dtype=arguments.dtype,
        prediction=arguments.prediction,
        vae=arguments.vae,
        variant=arguments.variant,
    )
    print(target)
    return 0


def info(arguments: argparse.Namespace) -> int:
    model = _opened(arguments, arguments.model)
    config = model.config
    counts = {
        name: sum(parameter.numel() for parameter in module.parameters()) for name, module in model.networks.items()
    }
    facts: dict[str, object] = {
        "model": arguments.model,
        "family": config.name,
        "digest": model.digest,
        "parameters": counts,
        "picture": f"{config.size}x{config.size}",
        "latent": f"{config.unet.out_channels} channels, 1/{config.autoencoder.factor} of each side",
        "prediction": config.prediction,
        "defaults": {
            "steps": config.steps,
            "cfg_scale": config.cfg_scale,
            "sampler": config.sampler,
            "scheduler": config.scheduler,
        },
        "words": _words(model),
        "source": model.source,
    }
    if config.enlarges:
        facts["enlarges"] = f"{config.enlargement} times"
    _print_facts(facts, as_json=arguments.json)
    return 0


def _words(model: LatentDiffusion) -> int | str:
    if not model.reads_prompts:
        return "none: it reads no prompts"
    return sum(len(tower.config.words) for tower in model.towers) or "all of CLIP's"


def samplers(arguments: argparse.Namespace) -> int:
    known = {name: also_known_as(name) for name in SAMPLERS}
    listing = {
        "samplers": _first_sentences(SAMPLERS),
        "schedulers": _first_sentences(SPACINGS),
        "also": {name: others for name, others in known.items() if others},
        "also_schedulers": A1111_SPACINGS | COMFY_SPACINGS,
    }
    if arguments.json:
        print(json.dumps(listing))
        return 0
    print("samplers, and the names that mean another program's picture")
    for name, line in listing["samplers"].items():
        print(f"  {name:20}{line}")
        if known[name]:
            print(f"  {'':20}{', '.join(known[name])}")
    print("schedulers")
    for name, line in listing["schedulers"].items():
        print(f"  {name:20}{line}")
    print("  " + ", ".join(f"{other} = {name}" for other, name in listing["also_schedulers"].items()))
    return 0


def _first_sentences(entries: Mapping[str, Callable[..., object]]) -> dict[str, str]:
    told = {name: " ".join((entry.__doc__ or "").split()) for name, entry in entries.items()}
    return {name: re.split(r"(?<!et al)[.] (?=[A-Z])", text)[0].rstrip(".") for name, text in told.items()}


def doctor(arguments: argparse.Namespace) -> int:
    """Exit code 1 when something that pictures need is wrong."""
    import torch

    from tintype.data.glyphs import find_font

    facts: dict[str, object] = {"tintype": tintype.__version__}
    facts |= {name: importlib.metadata.version(name) for name in ("torch", "numpy", "safetensors", "tokenizers")}
    facts["python"] = sys.version.split()[0]
    facts["threads"] = torch.get_num_threads()
    facts["cuda"] = torch.cuda.is_available()
    healthy = True
    for name in embedded():
        try:
            facts[f"model {name}"] = f"good ({load(name).digest})"
        except ValueError as error:
            facts[f"model {name}"], healthy = f"BAD: {error}", False
    try:
        facts["emoji font"] = str(find_font())
    except ValueError:
        facts["emoji font"] = "absent; only training and eval need it (apt-get install fonts-noto-color-emoji)"
    facts["here"] = "writable" if os.access(".", os.W_OK) else "not writable: name a folder with --output"
    _print_facts(facts, as_json=arguments.json)
    return 0 if healthy else 1


def _print_facts(facts: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        shown = ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value
        print(f"{name:15} {shown}")


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    **dict.fromkeys(TASKS, draw),
    "travel": travel,
    "sheet": sheet,
    "prepare": prepare,
    "filter": filter_samples,
    "latents": latents,
    "train": train,
    "eval": evaluate,
    "info": info,
    "convert": convert,
    "samplers": samplers,
    "doctor": doctor,
}
