"""LoRA files (Hu et al. 2021) as kohya's sd-scripts, diffusers and peft write them: low-rank differences of the weights
of a U-Net and of text towers. A layer's is `strength * alpha / rank * up @ down`.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tintype.checkpoints.tensors import TensorFile, open_tensors
from tintype.common.keymap import KeyMap
from tintype.families import diffusers_names, ldm_names
from tintype.families.base import LatentDiffusion
from tintype.nn.twins import twin

NETWORKS = {  # what its names begin with -> part of ours; the longest first
    "lora_te1_": "text 0", "lora_te2_": "text 1", "lora_te_": "text 0", "lora_unet_": "unet",
    "text_encoder_2.": "text 1", "text_encoder.": "text 0", "unet.": "unet", "base_model.model.": "unet", "": "unet",
}  # fmt: skip
ENDS = {
    ".lora_down.weight": "down", ".lora_up.weight": "up", ".lora_A.weight": "down", ".lora_B.weight": "up",
    ".lora.down.weight": "down", ".lora.up.weight": "up", "_lora.down.weight": "down", "_lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down", ".lora_linear_layer.up.weight": "up", ".alpha": "alpha",
}  # fmt: skip
OTHERS = re.compile(
    r"\.(hada_w\d_\w|lokr_w\d\w*|dora_scale|lora_mid\.weight|lora_magnitude_vector\S*|diff_b?|oft_\w+)$"
)
HEADER = "lora_adapter_metadata"  # of diffusers: alpha and rank by network, as JSON


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one weight: its outputs by rank, rank by its inputs, and what their product is multiplied by."""

    up: Tensor
    down: Tensor
    factor: float

    def added(self, weight: Tensor, strength: float) -> Tensor:
        """The weight with so much of the difference, computed in float32."""
        up, down = (part.flatten(1).to(weight.device, torch.float32) for part in (self.up, self.down))
        return (weight.float() + (up @ down).reshape(weight.shape) * (self.factor * strength)).to(weight.dtype)


def differences(path: Path, model: LatentDiffusion) -> dict[str, Difference]:
    """By the names of the weights in `LatentDiffusion.networks` that they belong to; little more than names and shapes
    is read yet. Raises `ValueError` for a file that is no LoRA, of another kind (LoHa, LoKr, DoRA), or made for another
    model."""
    file = open_tensors(path)
    if other := next(filter(None, map(OTHERS.search, file.shapes)), None):
        raise ValueError(f"{path}: {other[1]} is of another kind than LoRA; expected up and down matrices")
    known, weights, factors = _names(model), _weights(model), _factors(file)
    parts: dict[str, dict[str, str]] = defaultdict(dict)
    strange: list[str] = []
    for name in file.shapes:
        ours, part = _place(name, known)
        if ours is None or part is None:
            strange.append(name)
        else:
            parts[ours][part] = name
    if strange or not parts:
        shown = f" ({', '.join(strange[:3])}{', …' if strange[3:] else ''})" if strange else ""
        raise ValueError(
            f"{path}: {len(strange)} of {len(file.shapes)} tensors belong to no layer of {model.config.name}{shown}; "
            "expected a LoRA made for such a model"
        )
    return {ours: _difference(file, names, weights[ours], factors) for ours, names in parts.items()}


def with_lora(model: LatentDiffusion, path: Path, strength: float) -> LatentDiffusion:
    """The model as it draws with a LoRA: other weights where the file has differences, and else the very same, so that
    it takes little memory and the model itself stays as it is. Raises `ValueError` as `differences` does."""
    layers, weights = differences(path, model), _weights(model)
    networks = model.networks | {
        part: twin(network)
        for part, network in model.networks.items()
        if any(name.startswith(f"{part}.") for name in layers)
    }
    with torch.no_grad():
        for name, difference in layers.items():
            part, _, layer = name.partition(".")
            tensor = difference.added(weights[name], strength)
            kind = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
            module = networks[part].get_submodule(layer.removesuffix(".weight"))
            module.weight = nn.Parameter(tensor.contiguous(memory_format=kind), requires_grad=False)
    denoiser = replace(model.denoiser, network=networks["unet"])
    return replace(model, denoiser=denoiser, conditioner=networks.get("conditioner"))  # pyright: ignore


def _weights(model: LatentDiffusion) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": one for part, network in model.networks.items() for name, one in network.named_parameters()
    }


def _names(model: LatentDiffusion) -> dict[tuple[str, str], str]:
    """Our names of weights by the network and what others call the layer, with _ between the parts."""
    config = model.config.unet
    maps: list[tuple[str, str, KeyMap]] = [
        ("unet", "unet.", ldm_names.unet_names(config, projection="linear")),
        ("unet", "unet.", diffusers_names.unet_names(config)),
    ]
    inside = {id(module): name for name, module in model.networks.get("conditioner", nn.Module()).named_modules()}
    for number, tower in enumerate(model.towers):
        ours = f"conditioner.{inside[id(tower.encoder)]}."
        for prefix in ("text_model.", ""):
            names = diffusers_names.clip_text_names(tower.encoder.config, prefix=prefix)
            maps.append((f"text {number}", ours, names))
    found: dict[tuple[str, str], str] = {}
    for part, ours, names in maps:
        for rule in names.rules:
            if len(rule.ours) == 1 and rule.theirs.endswith(".weight"):
                theirs = rule.theirs.removesuffix(".weight")
                for spelt in {theirs, theirs.removesuffix(".0")}:  # to_out.0 is to_out in diffusers' old files
                    found.setdefault((part, spelt.replace(".", "_")), ours + rule.ours[0])
    return found


def _place(name: str, known: Mapping[tuple[str, str], str]) -> tuple[str | None, str | None]:
    """Our name of the weight that a tensor belongs to, and what it is of it."""
    for end, part in ENDS.items():
        if name.endswith(end):
            begin = next(one for one in NETWORKS if name.startswith(one))
            layer = name[len(begin) : -len(end)].replace(".processor.", ".").replace(".", "_")
            return known.get((NETWORKS[begin], layer)), part
    return None, None


def _factors(file: TensorFile) -> dict[str, float]:
    """Alpha / rank by what names begin with, where the header tells. Raises `ValueError` for what is more than LoRA."""
    if HEADER not in file.metadata:
        return {}
    found: dict[str, float] = {}
    try:
        told: dict[str, Any] = json.loads(file.metadata[HEADER])
        for key, value in told.items():
            begin, _, what = key.rpartition(".")
            if what in ("alpha_pattern", "rank_pattern", "use_rslora", "use_dora") and value:
                raise ValueError(f"{key} is set; expected plain LoRA")
            if what == "lora_alpha":
                found[begin] = float(value) / float(told[f"{begin}.r"])
    except (TypeError, AttributeError, LookupError, ArithmeticError, ValueError) as error:
        raise ValueError(f"{file.where}: its header's {HEADER} cannot be read: {error}") from error
    return found


def _difference(file: TensorFile, names: Mapping[str, str], weight: Tensor, factors: Mapping[str, float]) -> Difference:
    if not {"up", "down"} <= set(names):
        raise ValueError(f"{file.where}: {next(iter(names.values()))} stands alone; expected both up and down")
    up, down = (file.read(names[part]) for part in ("up", "down"))
    if (
        up.ndim < 2
        or down.ndim < 2
        or up.flatten(1).shape != (len(weight), len(down))
        or down[0].numel() != weight[0].numel()
    ):
        got = f"{tuple(up.shape)} times {tuple(down.shape)}"
        raise ValueError(f"{file.where}: {names['up']} is {got}; expected factors of {tuple(weight.shape)}")
    factor = factors.get(names["up"].partition(".")[0], 1.0)
    if "alpha" in names:
        factor = float(file.read(names["alpha"]).float()) / len(down)
    return Difference(up, down, factor)
