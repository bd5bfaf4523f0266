"""The first stage: a convolutional autoencoder with a Gaussian latent or a codebook (LDM, section 3.1, appendix G)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.common.config import added
from tintype.nn.attention import AttentionBlock
from tintype.nn.blocks import Downsample, ResBlock, Upsample
from tintype.nn.layers import check_groups, to_channels_last

NORM_EPS = 1e-6
PLACES_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderConfig:
    """Downsampling factor = patch_size * 2 ** (len(mult) - 1). Defaults are Stable Diffusion's KL-f8; with a
    `codebook_size` it is a VQ model."""

    image_channels: int = 3
    latent_channels: int = 4
    width: int = 128
    mult: tuple[int, ...] = (1, 2, 4, 4)
    num_blocks: int = 2  # residual blocks per level of the encoder; the decoder has one more
    attention_levels: tuple[int, ...] = ()
    middle_attention: bool = True
    patch_size: int = 1  # pixels that enter and leave as channels: a cheap first halving
    linear_shortcut: bool = (
        False  # patches straight to latents and back, beside the networks: a small one learns faster
    )
    norm_groups: int = 32
    codebook_size: int | None = added(None)  # number of codes of `latent_channels` each; None: a Gaussian latent (KL)

    def __post_init__(self) -> None:
        if self.codebook_size is not None and self.codebook_size < 1:
            raise ValueError(f"codebook_size {self.codebook_size}: expected 1 or more, or none for a Gaussian latent")
        for name in ("image_channels", "latent_channels", "width", "patch_size", "norm_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected 1 or more")
        if min(self.mult, default=0) < 1:
            raise ValueError(f"mult {self.mult}: expected a level or more, of 1 or more each")
        if self.num_blocks < 0:
            raise ValueError(f"num_blocks {self.num_blocks}: expected 0 or more")

    @property
    def moments(self) -> int:
        """Channels that the encoder gives: a Gaussian is a mean and a variance."""
        return self.latent_channels * (2 if self.codebook_size is None else 1)

    @property
    def factor(self) -> int:
        """Pixels per latent element along each side."""
        return self.patch_size * 2 ** (len(self.mult) - 1)


@dataclass(frozen=True, slots=True)
class Posterior:
    """A diagonal Gaussian over latents; mean and logvar are B C h w, logvar within [-30, 20]."""

    mean: Tensor
    logvar: Tensor

    @property
    def std(self) -> Tensor:
        return (0.5 * self.logvar).exp()

    def sample(self, noise: Tensor) -> Tensor:
        """noise: B C h w standard normal."""
        return self.mean + self.std * noise

    def kl(self) -> Tensor:
        """Divergence from the standard normal in nats, element by element: B C h w."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar)


@dataclass(frozen=True, slots=True)
class Codes:
    """The latent of a VQ model before quantisation, B C h w, and the codebook (K C) it will be quantised with.

    Latent diffusion works on the former (LDM's VQModelInterface) and leaves quantising to `decode`. As a distribution
    it is a point, so that what reads a `Posterior`'s mean, std and samples reads it as well.
    """

    latent: Tensor
    codebook: Tensor

    @property
    def mean(self) -> Tensor:
        return self.latent

    @property
    def std(self) -> Tensor:
        return torch.zeros_like(self.latent)

    def sample(self, noise: Tensor) -> Tensor:
        """The latent, whatever the noise."""
        assert noise.shape == self.latent.shape
        return self.latent

    @property
    def indices(self) -> Tensor:
        """The nearest code of each place: B h w int64 below K."""
        return nearest_codes(self.latent, self.codebook)

    @property
    def quantised(self) -> Tensor:
        """B C h w, made of codes."""
        return looked_up(self.indices, self.codebook)


def nearest_codes(latent: Tensor, codebook: Tensor) -> Tensor:
    """Of each place of the latent (B C h w) the code with the least Euclidean distance: B h w. Computed in float32,
    some places at a time, since the distances to all 16,384 codes take 256 times the memory of 64 channels."""
    places, codes = latent.detach().permute(0, 2, 3, 1).flatten(0, 2).float(), codebook.detach().float()
    lengths = codes.square().sum(dim=1)
    with torch.autocast(latent.device.type, enabled=False):
        nearest = [(lengths - 2 * some @ codes.t()).argmin(dim=1) for some in places.split(PLACES_AT_ONCE)]
    return torch.cat(nearest).unflatten(0, (len(latent), *latent.shape[2:]))


def looked_up(indices: Tensor, codebook: Tensor) -> Tensor:
    """Codes (B h w) as a latent: B C h w in channels-last memory."""
    return F.embedding(indices, codebook).permute(0, 3, 1, 2)


class Codebook(nn.Module):
    """The K codes of a VQ model (van den Oord et al. 2017), K C."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, dim).uniform_(-1 / size, 1 / size))

    def forward(self, latent: Tensor) -> Tensor:
        """Each place (B C h w) replaced by its nearest code."""
        return looked_up(nearest_codes(latent, self.weight), self.weight)


class Encoder(nn.Module):
    """image: B 3 H W -> moments: B 2C h w (with a codebook B C h w)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        groups = config.norm_groups
        self.patch_size = config.patch_size
        channels = config.width
        self.conv_in = nn.Conv2d(config.image_channels * config.patch_size**2, channels, 3, padding=1)
        stages: list[nn.Module] = []
        for level, mult in enumerate(config.mult):
            for _ in range(config.num_blocks):
                stages.append(ResBlock(channels, config.width * mult, eps=NORM_EPS, norm_groups=groups))
                channels = config.width * mult
                if level in config.attention_levels:
                    stages.append(AttentionBlock(channels, norm_groups=groups))
            if level + 1 < len(config.mult):
                stages.append(Downsample(channels, asymmetric=True))
        self.down = nn.Sequential(*stages)
        self.middle = _middle(channels, config)
        self.norm_out = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(channels, config.moments, 3, padding=1)
        patch = config.factor
        linear = nn.Conv2d(config.image_channels, config.moments, patch, stride=patch)
        self.shortcut = linear if config.linear_shortcut else None

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv_in(F.pixel_unshuffle(image, self.patch_size))
        x = self.middle(self.down(x))
        moments = self.conv_out(F.silu(self.norm_out(x)))
        return moments if self.shortcut is None else moments + self.shortcut(image)


class Decoder(nn.Module):
    """latent: B C h w -> image: B 3 H W."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        groups = config.norm_groups
        self.patch_size = config.patch_size
        channels = config.width * config.mult[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, channels, 3, padding=1)
        self.middle = _middle(channels, config)
        stages: list[nn.Module] = []
        for level, mult in reversed(list(enumerate(config.mult))):
            for _ in range(config.num_blocks + 1):
                stages.append(ResBlock(channels, config.width * mult, eps=NORM_EPS, norm_groups=groups))
                channels = config.width * mult
                if level in config.attention_levels:
                    stages.append(AttentionBlock(channels, norm_groups=groups))
            if level > 0:
                stages.append(Upsample(channels))
        self.up = nn.Sequential(*stages)
        self.norm_out = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(channels, config.image_channels * config.patch_size**2, 3, padding=1)
        patch = config.factor
        linear = nn.ConvTranspose2d(config.latent_channels, config.image_channels, patch, stride=patch)
        self.shortcut = linear if config.linear_shortcut else None

    def forward(self, latent: Tensor) -> Tensor:
        x = self.up(self.middle(self.conv_in(latent)))
        image = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.patch_size)
        return image if self.shortcut is None else image + self.shortcut(latent)


def _middle(channels: int, config: AutoencoderConfig) -> nn.Sequential:
    groups = config.norm_groups
    attention = AttentionBlock(channels, norm_groups=groups) if config.middle_attention else nn.Identity()
    first, last = (ResBlock(channels, channels, eps=NORM_EPS, norm_groups=groups) for _ in range(2))
    return nn.Sequential(first, attention, last)


class Autoencoder(nn.Module):
    """encode(image: B 3 H W in [-1, 1]) -> Posterior over B C h w, or Codes; decode is its inverse, not clamped.

    Latents here are raw: `LatentSpace` brings them to unit variance.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        check_groups(config.norm_groups, [config.width * mult for mult in config.mult])
        if not set(config.attention_levels) <= set(range(len(config.mult))):
            last = len(config.mult) - 1
            raise ValueError(f"attention_levels {config.attention_levels}: expected some of 0 to {last}")
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(config.moments, config.moments, 1)
        codes = config.codebook_size
        self.codebook = None if codes is None else Codebook(codes, config.latent_channels)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)
        self._initialise()
        to_channels_last(self)

    def _initialise(self) -> None:
        """Convolutions keep the variance, residual branches start at zero, the posterior starts narrow. With the
        shortcut the networks start at zero beside it (measured in docs/log.md: 19.3 against 15.1 dB after 3,200
        pictures)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                zero = name.endswith(".conv2") or (self.config.linear_shortcut and name.endswith(".conv_out"))
                nn.init.normal_(module.weight, std=0.0 if zero else module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.decoder.shortcut is not None:
            nn.init.normal_(self.decoder.shortcut.weight, std=0.3 * self.config.latent_channels**-0.5)
        for module in (self.quant_conv, self.post_quant_conv):
            nn.init.dirac_(module.weight)
        if self.codebook is not None:
            return
        assert self.encoder.conv_out.bias is not None  # it is made with one
        nn.init.constant_(self.encoder.conv_out.bias[self.config.latent_channels :], -4.0)

    def encode(self, image: Tensor) -> Posterior | Codes:
        """H and W must be multiples of `config.factor`, else `ValueError`."""
        height, width = image.shape[-2:]
        if height % self.config.factor or width % self.config.factor:
            raise ValueError(f"picture of {width} x {height}: both sides must be multiples of {self.config.factor}")
        moments = self.quant_conv(self.encoder(image.contiguous(memory_format=torch.channels_last))).float()
        if self.codebook is not None:
            return Codes(moments, self.codebook.weight)
        mean, logvar = moments.chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30, 20))

    def decode(self, latent: Tensor, *, quantise: bool = True) -> Tensor:
        """A VQ model quantises first, unless told that the latent is made of codes (LDM: force_not_quantize)."""
        if self.codebook is not None and quantise:
            latent = self.codebook(latent)
        x = latent.contiguous(memory_format=torch.channels_last)
        return self.decoder(self.post_quant_conv(x))

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Posterior | Codes]:
        """The round trip with a sampled latent, for training."""
        encoded = self.encode(image)
        return self.decode(encoded.sample(noise)), encoded
