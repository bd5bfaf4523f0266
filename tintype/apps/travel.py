"""`tintype travel`: frames from prompt to prompt, as numbered pictures or as one that moves."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from tintype.common.files import whole_file
from tintype.families.base import LatentDiffusion
from tintype.tasks.infotext import save
from tintype.tasks.request import Request
from tintype.travel import travel as frames_of

MOVING = {".gif": "GIF", ".webp": "WEBP"}
FASTEST = 100


def travel(arguments: argparse.Namespace, open_model: Callable[[], LatentDiffusion]) -> int:
    if not 1 <= arguments.fps <= FASTEST:
        raise ValueError(f"--fps {arguments.fps}: expected 1 to {FASTEST}")
    target = _target(Path(arguments.output))
    given = {field.name: getattr(arguments, field.name, None) for field in dataclasses.fields(Request)}
    request = Request(**{name: value for name, value in given.items() if value is not None}).with_seed()
    seeds = _seeds(arguments.seeds) or (request.seed,)
    walk = frames_of(open_model(), request, arguments.prompts, seeds, frames=arguments.frames)
    hidden = arguments.json or not sys.stderr.isatty()
    shown = tqdm(walk, total=arguments.frames, unit="frame", leave=False, disable=hidden)
    if target.suffix.lower() in MOVING:
        _animate(list(shown), target, fps=arguments.fps)
    else:
        target.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(shown, 1):
            save(frame, target / f"frame-{number:04}.png")
    told = f"{target}  ({arguments.frames} frames, seeds {', '.join(map(str, seeds))})"
    report = {"output": str(target), "frames": arguments.frames, "seeds": seeds}
    print(json.dumps(report) if arguments.json else told)
    return 0


def _seeds(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.split(",")) if text else ()
    except ValueError as error:
        raise ValueError(f"--seeds {text}: expected whole numbers with commas between, such as 7,9") from error


def _target(path: Path) -> Path:
    """Made sure before any work. Frames of two ways are never mixed in a folder."""
    if path.suffix and path.suffix.lower() not in MOVING:
        raise ValueError(f"--output {path}: expected a name in .gif or .webp, or a folder for numbered PNGs")
    moving = path.suffix.lower() in MOVING
    if path.is_dir() if moving else path.exists() and not path.is_dir():
        raise ValueError(f"--output {path} is a {'folder' if moving else 'file'}; name another")
    if not moving and next(path.glob("frame-*.png"), None) is not None:
        raise ValueError(f"--output {path} holds frames already; name another folder")
    try:
        (path.parent if moving else path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {path}: {error.strerror}; expected a place that can be made") from error
    return path


def _animate(frames: list[Image.Image], path: Path, *, fps: int) -> None:
    """An endless loop; WebP loses nothing, GIF has 256 colours."""
    first, *rest = frames
    lossless = {"lossless": True} if path.suffix.lower() == ".webp" else {}
    with whole_file(path) as temporary:
        first.save(
            temporary,
            format=MOVING[path.suffix.lower()],
            save_all=True,
            append_images=rest,
            duration=round(1000 / fps),
            loop=0,
            **lossless,
        )
