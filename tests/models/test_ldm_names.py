"""LDM's and OpenCLIP's names: diffusers' own converters turn what we write in them into what we write as diffusers."""

import dataclasses

import pytest
import torch
from diffusers.loaders import single_file_utils as theirs
from network_oracles import randomize
from test_diffusers_names import CHURCHES
from torch import Tensor

from tintype.families import diffusers_names, ldm_names
from tintype.families.diffusers_names import Projection
from tintype.families.stable_diffusion import KL_F8, SD1_UNET, SD2_UNET, SDXL_UNET, UPSCALER_UNET
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.clip import CLIPText, CLIPTextConfig
from tintype.models.unet import UNet, UNetConfig

PLAIN = UNetConfig(
    in_channels=3, out_channels=3, mult=(1, 2, 3), depth=(0, 1, 1), context_dim=None, num_heads=None, head_dim=8
)
UNETS: dict[str, tuple[UNetConfig, Projection]] = {
    "sd1": (SD1_UNET, "conv"),
    "sd1 inpainting": (dataclasses.replace(SD1_UNET, in_channels=9), "conv"),
    "sd2": (SD2_UNET, "linear"),
    "upscaler": (UPSCALER_UNET, "linear"),
    "sdxl": (SDXL_UNET, "linear"),
    "refiner": (dataclasses.replace(SDXL_UNET, mult=(1, 2, 4, 4), depth=(0, 4, 4, 0), middle_depth=4), "linear"),
}


def tiny(config: UNetConfig) -> UNetConfig:
    return dataclasses.replace(
        config,
        width=16,
        norm_groups=8,
        head_dim=config.head_dim and 8,
        num_heads=config.num_heads and 2,
        context_dim=config.context_dim and 24,
        vector_dim=config.vector_dim and 32,
    )


def same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize(("config", "projection"), UNETS.values(), ids=UNETS)
def test_a_unet_in_ldm_names_is_the_one_diffusers_reads(config: UNetConfig, projection: Projection) -> None:
    config = tiny(config)
    ours = randomize(UNet(config)).state_dict()
    names = ldm_names.unet_names(config, projection=projection)
    single = names.to_theirs(ours)
    read = theirs.convert_ldm_unet_checkpoint(
        {f"model.diffusion_model.{name}": tensor for name, tensor in single.items()}, diffusers_config(config)
    )
    same(read, diffusers_names.unet_names(config, projection=projection).to_theirs(ours))
    same(names.to_ours(single), ours)


def diffusers_config(config: UNetConfig) -> dict[str, object]:
    """What the converter asks of diffusers' configuration."""
    kinds = {"vector": "text_time"} if config.vector_dim else {}
    classes = {} if config.num_classes is None else {"num_class_embeds": config.num_classes}
    return classes | {
        "layers_per_block": config.num_blocks,
        "class_embed_type": None,
        "addition_embed_type": kinds.get("vector"),
    }


@pytest.mark.parametrize("config", [PLAIN, CHURCHES], ids=["plain", "churches"])
def test_heads_of_a_plain_unet_come_one_after_the_other(config: UNetConfig) -> None:
    """OpenAI's QKVAttentionLegacy computed from the fused weights gives what our attention gives."""
    config = tiny(config)
    network = randomize(UNet(config))
    single = ldm_names.unet_names(config, projection="conv").to_theirs(network.state_dict())
    same(ldm_names.unet_names(config, projection="conv").to_ours(single), network.state_dict())
    attention = next(iter(network.middle.children())).attention
    channels = config.width * config.mult[-1]
    heads, size = config.heads(channels)
    h = torch.randn(1, channels, 4, 4)
    normed = attention.norm(h).flatten(2)
    qkv = torch.nn.functional.conv1d(normed, single["middle_block.1.qkv.weight"], single["middle_block.1.qkv.bias"])
    q, k, v = qkv.reshape(heads, 3 * size, 16).split(size, dim=1)
    weights = torch.softmax(torch.einsum("hct,hcs->hts", q, k) * size**-0.5, dim=-1)
    mixed = torch.einsum("hts,hcs->hct", weights, v).reshape(1, channels, 16)
    out = torch.nn.functional.conv1d(
        mixed, single["middle_block.1.proj_out.weight"], single["middle_block.1.proj_out.bias"]
    )
    torch.testing.assert_close(attention(h), h + out.reshape(h.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [KL_F8, AutoencoderConfig(mult=(1, 1, 2, 4), attention_levels=(3,), latent_channels=16)],
    ids=["kl-f8", "attention"],
)
def test_an_autoencoder_in_ldm_names_is_the_one_diffusers_reads(config: AutoencoderConfig) -> None:
    config = dataclasses.replace(config, width=16, norm_groups=8)
    ours = randomize(Autoencoder(config)).state_dict()
    names = ldm_names.autoencoder_names(config)
    single = names.to_theirs(ours)
    same(names.to_ours(single), ours)
    if config.attention_levels:
        return  # diffusers' converter knows attention in the middle only
    read = theirs.convert_ldm_vae_checkpoint(
        {f"first_stage_model.{name}": tensor for name, tensor in single.items()},
        {"down_block_types": [""] * len(config.mult), "up_block_types": [""] * len(config.mult)},
    )
    same(read, diffusers_names.autoencoder_names(config).to_theirs(ours))


def test_open_clip_names_are_what_open_clip_says() -> None:
    config = CLIPTextConfig(
        vocabulary_size=99, width=32, num_layers=3, num_heads=4, activation="gelu", projection_dim=16, context_length=9
    )
    ours = randomize(CLIPText(config)).state_dict()
    names = ldm_names.open_clip_names(config)
    single = names.to_theirs(ours)
    assert single["transformer.resblocks.2.attn.in_proj_weight"].shape == (96, 32)
    assert single["text_projection"].shape == (32, 16)
    same(names.to_ours(single), ours)


def test_fused_parameters_are_whole_or_refused() -> None:
    config = CLIPTextConfig(vocabulary_size=9, width=8, num_layers=1, num_heads=2)
    weights = CLIPText(config).state_dict()
    del weights["layers.0.attention.to_k.bias"]
    with pytest.raises(ValueError, match=r"to_k.bias is missing; .*in_proj_bias is made of"):
        ldm_names.open_clip_names(config).to_theirs(weights)
