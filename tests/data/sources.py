"""Sources for tests of `tintype prepare`: small pictures in files, and what was found counted apart."""

import io
import json
import os
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tintype.data.preparation.run import PrepareOptions, Result, prepare


def picture(number: int = 0, *, width: int = 12, height: int = 10, mode: str = "RGB") -> Image.Image:
    """Smooth colours that depend on the number."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    channels = [across * 9 + number * 31, down * 11 + number * 7, across * 3 + down * 5]
    return Image.fromarray((np.stack(channels, -1) % 256).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def tarred(files: dict[str, bytes | str] | list[tuple[str, bytes | str]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items() if isinstance(files, dict) else files:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def prepared(root: Path, out: Path, **options: object) -> Result:
    """By two workers, in shards of four."""
    return prepare(root, out, PrepareOptions(**({"workers": 2, "shard_size": 4} | options)))


def findings(out: Path) -> list[tuple[str, str]]:
    """(item, reason) of each line of the report."""
    lines = (out / "report.jsonl").read_text().splitlines()
    return [(told["item"], told["reason"]) for told in map(json.loads, lines)]


def counts(result: Result) -> dict[str, tuple[int, int, int]]:
    """{kind: (found, used, left out)}."""
    return counts_of(result.report)


def counts_of(report: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    return {kind: (one["found"], one["used"], one["left_out"]) for kind, one in report["counts"].items()}


def bytes_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name != ".lock"}


def files_below(root: Path) -> Counter[str]:
    """Every file and link of a source, by suffix: counted without the code that is tested."""
    found: Counter[str] = Counter()
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found.update(os.path.splitext(name)[1] for name in files + links)
    return found
