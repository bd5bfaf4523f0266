"""Which files of a component in diffusers' layout hold its weights."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)((?:\.(?![^.]*-of-)[^.]+)??)\.(safetensors|bin)"
    r"(\.index(?:\.[^.]+)?\.json)?"
)


def chosen(names: Iterable[str], variant: str | None = None) -> str | None:
    """A file of weights, or the index of several: the plain ones before a variant ("fp16") unless that is asked for,
    then safetensors before `.bin`. None when there is none."""
    found: dict[tuple[str, str], str] = {}
    for name in sorted(names):
        if match := WEIGHTS.fullmatch(name):
            index = (match[3] or "").removeprefix(".index").removesuffix(".json")
            found[match[2], (match[1] or index).lstrip(".")] = name
    wanted = [variant] if variant else sorted({one for _, one in found})  # "" comes first
    return next((found[kind, one] for one in wanted for kind in ("safetensors", "bin") if (kind, one) in found), None)


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The chosen file, or the shards that its index names. Only a U-Net must have the variant: the other parts of a
    pipeline often come in one precision. Raises `ValueError` when there is none."""
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    name = chosen(names, variant) or (chosen(names) if folder.name != "unet" else None)
    if name is None:
        asked = f" of variant {variant}" if variant else ""
        raise ValueError(
            f"{folder} has no weights{asked}; expected diffusion_pytorch_model.safetensors, model.safetensors, or .bin"
        )
    if not name.endswith(".json"):
        return [folder / name]
    shards = shards_of(folder / name)
    for shard in shards:
        if not (folder / shard).is_file():
            raise ValueError(f"{folder / name} names {shard}, which is not there; download the folder again")
    return [folder / shard for shard in shards]


def shards_of(index: Path) -> Sequence[str]:
    """The files an index names. Raises `ValueError` when it is damaged or names files elsewhere."""
    try:
        content = cast("dict[str, dict[str, str]]", json.loads(index.read_text()))
        shards = sorted({str(name) for name in content["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{index} is damaged ({error}); copy or download it again") from error
    if not shards:
        raise ValueError(f"{index} is damaged: it names no files; copy or download it again")
    for name in shards:
        if Path(name).name != name or name == "..":
            raise ValueError(f"{index} names {name!r}; expected files beside it")
    return shards
