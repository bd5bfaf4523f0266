"""CompVis's own networks (latent-diffusion, commit a506df5) as the package ldm-fix carries them: the same bytes but for
`encoders/modules.py` and `util.py`, where it leaves out what needs more packages."""

import sys
from types import ModuleType

from diffusers.models.autoencoders.vq_model import VectorQuantizer
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.modules.x_transformer import Encoder as TokenEncoder
from ldm.modules.x_transformer import TransformerWrapper
from torch import Tensor, nn

from tintype.models.autoencoder import AutoencoderConfig
from tintype.models.token_transformer import TokenTransformerConfig
from tintype.models.unet import UNetConfig


def compvis_unet(config: UNetConfig) -> UNetModel:
    """`norm_groups` is 32 there, whatever the width."""
    assert config.norm_groups == 32
    [depth] = {one for one in (*config.depth, config.middle_depth) if one}  # they have one number for all
    attends = [2**level for level, one in enumerate(config.depth) if one]
    context = {"use_spatial_transformer": True, "transformer_depth": depth, "context_dim": config.context_dim}
    absent = {name: sys.modules.get(name) for name in ("omegaconf", "omegaconf.listconfig")}
    lists = ModuleType("omegaconf.listconfig")
    lists.ListConfig = tuple  # asked for when there is a context
    sys.modules |= {"omegaconf": ModuleType("omegaconf"), "omegaconf.listconfig": lists}
    try:
        return UNetModel(
            image_size=8,
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            model_channels=config.width,
            num_res_blocks=config.num_blocks,
            attention_resolutions=attends,
            channel_mult=config.mult,
            num_heads=config.num_heads or -1,
            num_head_channels=config.head_dim or -1,
            use_scale_shift_norm=config.scale_shift,
            resblock_updown=config.resample_in_blocks,
            **(context if config.context_dim else {}),
        )
    finally:
        for name, module in absent.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class CompVisAutoencoder(nn.Module):
    """AutoencoderKL and VQModelInterface without pytorch_lightning: what `ldm/models/autoencoder.py` does with Encoder
    and Decoder, and diffusers' copy of taming's VectorQuantizer2 (taming's own package lacks it)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        channels, quantised = config.latent_channels, config.codebook_size is not None
        settings = {
            "ch": config.width,
            "out_ch": config.image_channels,
            "ch_mult": config.mult,
            "num_res_blocks": config.num_blocks,
            "attn_resolutions": [256 // 2**level for level in config.attention_levels],
            "in_channels": config.image_channels,
            "resolution": 256,
            "z_channels": channels,
            "double_z": not quantised,
            "attn_type": "vanilla" if config.middle_attention else "none",
        }
        self.encoder, self.decoder = Encoder(**settings), Decoder(**settings)
        moments = channels if quantised else 2 * channels
        self.quant_conv = nn.Conv2d(moments, moments, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)
        if quantised:
            self.quantize = VectorQuantizer(config.codebook_size, channels, beta=0.25, legacy=True)

    def moments(self, image: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(image))

    def decode(self, latent: Tensor) -> Tensor:
        if hasattr(self, "quantize"):
            latent, _, _ = self.quantize(latent)
        return self.decoder(self.post_quant_conv(latent))


def compvis_token_transformer(config: TokenTransformerConfig) -> TransformerWrapper:
    """What BERTEmbedder and TransformerEmbedder hold."""
    assert (config.num_heads, config.head_dim) == (8, 64)  # they say nothing, and these are the defaults
    return TransformerWrapper(
        num_tokens=config.vocabulary_size,
        max_seq_len=config.context_length,
        attn_layers=TokenEncoder(dim=config.width, depth=config.num_layers),
    )
