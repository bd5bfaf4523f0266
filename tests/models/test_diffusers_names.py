"""The maps between our parameter names and those of diffusers and transformers are bijections, at full size too."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from network_oracles import assert_counterparts, their_autoencoder, their_clip_text, their_plain_unet, their_unet
from torch import nn

from tintype.common.keymap import CONV_1X1, KeyMap, Rule, inside, module
from tintype.families.diffusers_names import autoencoder_names, clip_text_names, unet_names
from tintype.families.latent_diffusion import FACES_UNET, SEMANTIC_UNET, TEXT_UNET, VQ_F4, VQ_F8
from tintype.families.latent_diffusion import SUPER_RESOLUTION_UNET as SR_UNET
from tintype.families.stable_diffusion import (
    CLIP_BIG_G,
    CLIP_L,
    KL_F8,
    SD1_UNET,
    SD2_UNET,
    SDXL_UNET,
    UPSCALER_UNET,
)
from tintype.models.autoencoder import Autoencoder
from tintype.models.clip import CLIPText
from tintype.models.unet import UNet, UNetConfig

CHURCHES = UNetConfig(
    width=192,
    mult=(1, 2, 2, 4, 4),
    depth=(1, 1, 1, 1, 0),
    context_dim=None,
    num_heads=None,
    head_dim=24,
    scale_shift=True,
    resample_in_blocks=True,
)
MAP_UNET = dataclasses.replace(SEMANTIC_UNET, num_heads=None, head_dim=128)  # diffusers cannot say a number of heads

Triple = tuple[nn.Module, nn.Module, KeyMap]  # ours, theirs, the map between them


def unclip() -> Triple:
    config = dataclasses.replace(SD2_UNET, vector_dim=2048)
    names = unet_names(config, vector="class_embedding")
    return UNet(config), their_unet(config, vector="class_embedding"), names


FULL_SIZE = {
    "sd1": lambda: (UNet(SD1_UNET), their_unet(SD1_UNET, linear=False), unet_names(SD1_UNET, projection="conv")),
    "sd2": lambda: (UNet(SD2_UNET), their_unet(SD2_UNET), unet_names(SD2_UNET)),
    "sd2 unclip": unclip,
    "sd2 upscaler": lambda: (UNet(UPSCALER_UNET), their_unet(UPSCALER_UNET), unet_names(UPSCALER_UNET)),
    "sdxl": lambda: (UNet(SDXL_UNET), their_unet(SDXL_UNET), unet_names(SDXL_UNET)),
    "churches": lambda: (UNet(CHURCHES), their_plain_unet(CHURCHES), unet_names(CHURCHES)),
    "ldm faces": lambda: (UNet(FACES_UNET), their_plain_unet(FACES_UNET), unet_names(FACES_UNET)),
    "ldm super resolution": lambda: (UNet(SR_UNET), their_plain_unet(SR_UNET), unet_names(SR_UNET)),
    "ldm semantic synthesis": lambda: (UNet(MAP_UNET), their_plain_unet(MAP_UNET), unet_names(MAP_UNET)),
    "ldm text": lambda: (
        UNet(TEXT_UNET),
        their_unet(TEXT_UNET, linear=False),
        unet_names(TEXT_UNET, projection="conv"),
    ),
    "vq-f4": lambda: (Autoencoder(VQ_F4), their_autoencoder(VQ_F4), autoencoder_names(VQ_F4)),
    "vq-f8": lambda: (Autoencoder(VQ_F8), their_autoencoder(VQ_F8), autoencoder_names(VQ_F8)),
    "kl-f8": lambda: (Autoencoder(KL_F8), their_autoencoder(KL_F8), autoencoder_names(KL_F8)),
    "clip-l": lambda: (CLIPText(CLIP_L), their_clip_text(CLIP_L), clip_text_names(CLIP_L, prefix="")),
    "clip-bigg": lambda: (CLIPText(CLIP_BIG_G), their_clip_text(CLIP_BIG_G), clip_text_names(CLIP_BIG_G)),
}


@pytest.mark.parametrize("build", FULL_SIZE.values(), ids=FULL_SIZE)
def test_every_parameter_and_norm_has_its_counterpart(build: Callable[[], Triple]) -> None:
    with torch.device("meta"):
        parts = build()
    assert_counterparts(*parts)


def test_there_and_back_is_the_same_tensor() -> None:
    config = dataclasses.replace(SD1_UNET, width=8, norm_groups=8, context_dim=8)
    weights = UNet(config).state_dict()
    names = unet_names(config, projection="conv")
    back = names.to_ours(names.to_theirs(weights))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())


def test_no_rule_for_a_name() -> None:
    names = KeyMap(module("a", "b"))
    with pytest.raises(ValueError, match=r"no rule for b\.weight; expected names like a\.weight"):
        names.to_theirs({"a.bias": torch.zeros(1), "b.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"no rule for c0, c1, c2 and 1 more"):
        names.to_ours({f"c{number}": torch.zeros(1) for number in range(4)})


@pytest.mark.parametrize("rules", [(Rule("a", "x"), Rule("a", "y")), (Rule("x", "a"), Rule("y", "a"))])
def test_two_rules_for_a_name(rules: tuple[Rule, ...]) -> None:
    with pytest.raises(ValueError, match="ambiguous rules: more than one for a"):
        KeyMap(rules)


def test_tables_and_layouts() -> None:
    names = KeyMap([*inside("here", "there", {"one": "1", "two": "2.0"}), *module("conv", "conv", CONV_1X1)])
    weights = {"here.one.weight": torch.rand(3), "here.two.bias": torch.rand(3), "conv.weight": torch.rand(4, 3)}
    renamed = names.to_theirs(weights)
    assert list(renamed) == ["there.1.weight", "there.2.0.bias", "conv.weight"]
    assert renamed["conv.weight"].shape == (4, 3, 1, 1)
    assert torch.equal(names.to_ours(renamed)["conv.weight"], weights["conv.weight"])
