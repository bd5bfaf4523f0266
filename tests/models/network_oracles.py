"""The networks of diffusers and transformers that our configurations describe, and random weights for both sides."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel, VQModel
from torch import Tensor, nn
from transformers import CLIPTextConfig as TheirTextConfig
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tintype.common.keymap import KeyMap
from tintype.models.autoencoder import AutoencoderConfig
from tintype.models.clip import CLIPTextConfig
from tintype.models.unet import UNetConfig


def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter random, those that start at zero or one as well; activations keep the size of their inputs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            normal = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(normal * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(0.2 * normal + (1 if "norm" in name and name.endswith("weight") else 0))
    return network.eval()


def difference(got: Tensor, expected: Tensor) -> float:
    """The largest error, relative to the largest number expected."""
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max())


def shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def norms(network: nn.Module) -> dict[str, nn.GroupNorm | nn.LayerNorm]:
    modules = network.named_modules()
    return {name: module for name, module in modules if isinstance(module, nn.GroupNorm | nn.LayerNorm)}


def assert_counterparts(ours: nn.Module, theirs: nn.Module, names: KeyMap) -> None:
    """Every parameter has one of the same shape on the other side, both ways, and every norm one of its kind."""
    here, there = ours.state_dict(), theirs.state_dict()
    assert shapes(names.to_theirs(here)) == shapes(there)
    assert shapes(names.to_ours(there)) == shapes(here)
    counterparts = norms(theirs)
    for name, norm in norms(ours).items():
        [their_name] = names.to_theirs({f"{name}.weight": norm.weight})
        theirs_of_it = counterparts.pop(their_name.removesuffix(".weight"))
        assert norm.eps == theirs_of_it.eps, name
        assert getattr(norm, "num_groups", None) == getattr(theirs_of_it, "num_groups", None), name
    assert not counterparts


def their_unet(
    config: UNetConfig, *, linear: bool = True, time_id_dim: int = 256, vector: str = "add_embedding"
) -> UNet2DConditionModel:
    """With cross-attention. `attention_head_dim` is a number of heads there, whatever its name says."""
    assert config.depth[-1] in (0, config.middle_depth)  # they have one number for both
    channels = tuple(config.width * mult for mult in config.mult)
    vectors = {}
    if config.vector_dim and vector == "add_embedding":
        vectors = {"addition_embed_type": "text_time", "addition_time_embed_dim": time_id_dim}
    elif config.vector_dim:
        vectors = {"class_embed_type": "projection"}
    return UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=channels,
        layers_per_block=config.num_blocks,
        down_block_types=tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in config.depth),
        up_block_types=tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in config.depth[::-1]),
        transformer_layers_per_block=tuple(depth or config.middle_depth for depth in config.depth),
        cross_attention_dim=config.context_dim,
        attention_head_dim=tuple(config.heads(one)[0] for one in channels),
        use_linear_projection=linear,
        only_cross_attention=tuple(not one for one in config.self_attention) or False,
        num_class_embeds=config.num_classes,
        projection_class_embeddings_input_dim=config.vector_dim,
        resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
        norm_num_groups=config.norm_groups,
        time_cond_proj_dim=config.guidance_dim,
        **vectors,
    )


def their_plain_unet(config: UNetConfig) -> UNet2DModel:
    """Without a context."""
    resampling = "resnet" if config.resample_in_blocks else "conv"
    bare = (
        ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if resampling == "resnet" else ("DownBlock2D", "UpBlock2D")
    )
    return UNet2DModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=tuple(config.width * mult for mult in config.mult),
        layers_per_block=config.num_blocks,
        down_block_types=tuple("AttnDownBlock2D" if depth else bare[0] for depth in config.depth),
        up_block_types=tuple("AttnUpBlock2D" if depth else bare[1] for depth in config.depth[::-1]),
        downsample_type=resampling,
        upsample_type=resampling,
        attention_head_dim=config.head_dim,
        add_attention=config.middle_depth > 0,
        attn_norm_num_groups=config.norm_groups,
        num_class_embeds=config.num_classes,
        resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
        norm_num_groups=config.norm_groups,
    )


def their_autoencoder(config: AutoencoderConfig) -> AutoencoderKL | VQModel:
    attends = [level in config.attention_levels for level in range(len(config.mult))]
    settings = {
        "in_channels": config.image_channels,
        "out_channels": config.image_channels,
        "latent_channels": config.latent_channels,
        "block_out_channels": tuple(config.width * mult for mult in config.mult),
        "layers_per_block": config.num_blocks,
        "down_block_types": tuple("AttnDownEncoderBlock2D" if one else "DownEncoderBlock2D" for one in attends),
        "up_block_types": tuple("AttnUpDecoderBlock2D" if one else "UpDecoderBlock2D" for one in attends[::-1]),
        "mid_block_add_attention": config.middle_attention,
        "norm_num_groups": config.norm_groups,
    }
    if config.codebook_size is not None:
        return VQModel(num_vq_embeddings=config.codebook_size, **settings)
    return AutoencoderKL(**settings)


def their_clip_text(config: CLIPTextConfig) -> CLIPTextModel | CLIPTextModelWithProjection:
    """End of text is the last id."""
    settings = TheirTextConfig(
        vocab_size=config.vocabulary_size,
        max_position_embeddings=config.context_length,
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        hidden_act=config.activation,
        projection_dim=config.projection_dim or 512,
        bos_token_id=config.vocabulary_size - 2,
        eos_token_id=config.vocabulary_size - 1,
        pad_token_id=config.vocabulary_size - 1,
    )
    return CLIPTextModelWithProjection(settings) if config.projection_dim else CLIPTextModel(settings)
