"""Weights of others into our networks: every name and shape is compared before any of them is read."""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from tintype.checkpoints.tensors import TensorFile
from tintype.common.keymap import KeyMap

Networks = Mapping[str, nn.Module]  # by the prefix that their names have on our side of the map


def fill(
    networks: Networks,
    file: TensorFile,
    names: KeyMap,
    *,
    dtypes: Mapping[str, torch.dtype] | None = None,
    device: str = "cpu",
    beside: re.Pattern[str] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> None:
    """Give networks (made on the meta device) the tensors of a file.

    dtypes: by prefix, float32 where none is said. beside: names that the file may have and no network wants. renamed:
    other names under which to read some. Raises `ValueError` naming the first missing and unexpected tensors and the
    first of another shape.
    """
    wanted: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    for prefix, network in networks.items():
        dtype = (dtypes or {}).get(prefix, torch.float32)
        tensors = names.to_theirs(state({prefix: network}))
        wanted |= {name: (tuple(tensor.shape), dtype) for name, tensor in tensors.items()}
    renamed = {name: (renamed or {}).get(name, name) for name in wanted}
    _compare(file, {name: shape for name, (shape, _) in wanted.items()}, beside, renamed)

    def read(name: str) -> dict[str, Tensor]:
        stored = renamed[name]
        tensor, (_, dtype) = file.read(stored), wanted[name]
        parts = names.to_ours({name: tensor})
        parts = {ours: _laid_out(part.to(device=device, dtype=dtype)) for ours, part in parts.items()}
        if all(part.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr() for part in parts.values()):
            file.release(stored)
        return parts

    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        found = {ours: part for parts in pool.map(read, wanted) for ours, part in parts.items()}
    for prefix, network in networks.items():
        own = {name.removeprefix(f"{prefix}."): part for name, part in found.items() if name.startswith(f"{prefix}.")}
        network.load_state_dict(own, assign=True)
        network.eval()


def state(networks: Networks) -> dict[str, Tensor]:
    """All their tensors under prefixed names."""
    return {
        f"{prefix}.{name}": one for prefix, network in networks.items() for name, one in network.state_dict().items()
    }


def _laid_out(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _compare(
    file: TensorFile,
    expected: Mapping[str, tuple[int, ...]],
    beside: re.Pattern[str] | None,
    renamed: Mapping[str, str],
) -> None:
    got = file.shapes
    missing = [name for name in expected if name not in got]
    unexpected = [name for name in got if name not in expected and not (beside and beside.match(name))]
    if missing or unexpected:
        raise ValueError(
            f"{_listed('missing', missing)}, {_listed('unexpected', unexpected)}; expected the networks' tensors and "
            "no others: was it cut, merged with something, or is it another kind of model?"
        )
    for name, shape in expected.items():
        for stored in dict.fromkeys((name, renamed[name])):
            if got[stored] != shape:
                raise ValueError(f"{stored} is {got[stored]}; expected {shape}")


def _listed(what: str, names: list[str]) -> str:
    return f"{len(names)} tensors are {what}" + (
        f" ({', '.join(names[:3])}{', …' if names[3:] else ''})" if names else ""
    )
