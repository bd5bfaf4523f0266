"""tintype's own weight files: one safetensors file a network, its kind and configuration in the header."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from tintype.common.config import from_json, to_json
from tintype.common.files import load_metadata, load_tensors, save_tensors
from tintype.diffusion.latent_space import LatentSpace
from tintype.nn.layers import to_channels_last
from tintype.nn.weightless import weightless

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says of itself: which network it holds and how that is configured."""

    kind: str
    config: object


def save_network(
    path: Path,
    kind: str,
    config: object,
    state: dict[str, Tensor],
    *,
    dtype: torch.dtype,
    space: LatentSpace | None = None,
) -> None:
    """Write weights (as `dtype`) with their kind and configuration; of a first stage also its latent space, if it was
    measured."""
    tensors = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    measured = {} if space is None else {"space": to_json(space)}
    save_tensors(path, tensors, {"kind": kind, "config": to_json(config), **measured})


def read_space(path: Path) -> LatentSpace | None:
    """The latent space that was measured when a first stage was published. Raises `ValueError` when the file is not one
    of ours, or damaged."""
    read_header(path)  # refuses what is none of ours
    told = cast("dict[str, object]", load_metadata(path)).get("space")
    return None if told is None else from_json(LatentSpace, told)


def read_header(path: Path) -> Header:
    """Raises `ValueError` when the file is not one of ours."""
    metadata = load_metadata(path)
    if not isinstance(metadata, dict) or not {"kind", "config"} <= cast("dict[str, object]", metadata).keys():
        raise ValueError(f"{path} has no tintype header; expected a file written by tintype")
    entries = cast("dict[str, object]", metadata)
    return Header(str(entries["kind"]), entries["config"])


def load_network(path: Path, kind: str, config_type: type[C], build: Callable[[C], M]) -> M:
    """The network of a file, in float32 and eval mode, built from the configuration in its header; strict."""
    header = read_header(path)
    if header.kind != kind:
        raise ValueError(f"{path} holds a network of kind {header.kind!r}; expected {kind!r}")
    try:
        config = from_json(config_type, header.config)
        with weightless():
            module = build(config)
    except ValueError as error:
        raise ValueError(f"{path}: the configuration in its header does not fit: {error}") from error
    load_strict(module, load_tensors(path, dtype=torch.float32), str(path))
    return module.eval()


def load_strict(module: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Give the module these tensors as they are. Raises `ValueError` naming the first names or shapes that differ."""
    expected = module.state_dict()
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(
            f"{where}: {len(missing)} tensors are missing {missing[:5]}, "
            f"{len(unexpected)} are unexpected {unexpected[:5]}"
        )
    for name, value in expected.items():
        if value.shape != state[name].shape:
            raise ValueError(f"{where}: {name} is {tuple(state[name].shape)}; expected {tuple(value.shape)}")
    module.load_state_dict(state, assign=True)
    to_channels_last(module)
