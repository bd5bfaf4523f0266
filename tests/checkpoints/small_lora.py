"""A LoRA for some layers of the embedded model, as kohya's sd-scripts name them."""

import torch
from torch import Tensor

import tintype
from tintype.families import diffusers_names


def small_lora(seed: int = 1) -> dict[str, Tensor]:
    model = tintype.load("default", device="cpu")
    weights = dict(model.networks["unet"].named_parameters())
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    for rule in diffusers_names.unet_names(model.config.unet).rules:
        if rule.theirs.endswith(("to_q.weight", "to_v.weight", "ff.net.2.weight")):
            outputs, inputs = weights[rule.ours[0]].shape
            layer = f"lora_unet_{rule.theirs.removesuffix('.weight').replace('.', '_')}"
            found[f"{layer}.lora_down.weight"] = torch.randn(2, inputs, generator=generator) * 0.3
            found[f"{layer}.lora_up.weight"] = torch.randn(outputs, 2, generator=generator) * 0.3
    return found
