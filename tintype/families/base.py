"""What a family of checkpoints is, as data, and a model of it put together."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from tintype.common.config import added
from tintype.conditioning.bert import BertConditioner, BertConfig
from tintype.conditioning.class_label import ClassConditioner, ClassConfig
from tintype.conditioning.layout import LayoutConditioner, LayoutConfig
from tintype.conditioning.spatial import SpatialConditioner, SpatialConfig
from tintype.conditioning.text import TextConditioner, TextConfig
from tintype.conditioning.towers import TextTowers, TextTowersConfig
from tintype.diffusion.denoiser import Denoiser
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.names import Conventions
from tintype.diffusion.scaling import SCALINGS, Prediction, Scaling, of_std
from tintype.diffusion.schedule import DDPMConfig, EDMConfig, FlowConfig, make_schedule
from tintype.families.diffusers_names import Projection
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.unet import UNet, UNetConfig

ConditionerConfig = TextConfig | TextTowersConfig | BertConfig | LayoutConfig | ClassConfig | SpatialConfig
AnyConditioner = (
    TextConditioner | TextTowers | BertConditioner | LayoutConditioner | ClassConditioner | SpatialConditioner
)


# mask: 1 where the picture is drawn anew, signed from -1 to 1; masked: the latent of the picture, gray (or black) under
# the mask; picture: that of a whole picture, raw; depth: from -1 (far) to 1; low: a small picture of the latent's size;
# enlarged: the latent of one that bicubic weights made as large as what is drawn
Further = Literal["mask", "signed_mask", "masked", "masked_black", "picture", "depth", "low", "enlarged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyConfig:
    """Everything but the weights. `size`, `steps`, `cfg_scale`, `sampler`, `scheduler`: what a request gets that does
    not say; without `scheduler` the sampler's own spacing. `conventions`: what our samplers' names mean here;
    `spacing`, `levels`: of the released scheduler's settings, the spacing of training steps and that of noise levels,
    for samplers asked for by name. `further`: what the U-Net's channels beside the latent are, in their order;
    `labels`: the names of the classes, where they have any; `scale`: how many times larger an upscaler draws that is
    shown the picture enlarged; `difference`: the std of what such a one's latents differ from those it is shown, where
    that is what the U-Net answers for."""

    name: str
    unet: UNetConfig
    autoencoder: AutoencoderConfig
    conditioner: ConditionerConfig | None
    schedule: DDPMConfig | EDMConfig | FlowConfig
    prediction: Prediction
    space: LatentSpace
    size: int
    steps: int = 25
    cfg_scale: float = 7.0
    sampler: str = "ddim"
    scheduler: str | None = "leading"
    conventions: Conventions = added("plain")
    spacing: str | None = added(None)
    levels: str | None = added(None)
    further: tuple[Further, ...] = added(())
    labels: tuple[str, ...] = added(())
    scale: int | None = added(None)
    difference: float | None = added(None)

    def __post_init__(self) -> None:
        channels = self.autoencoder.latent_channels
        for name, entries in (("scale", self.space.scale), ("shift", self.space.shift)):
            if len(entries) not in (1, channels):
                raise ValueError(f"space.{name} has {len(entries)} entries; expected 1 or {channels}, one per channel")

        if self.scale is not None and (self.scale < 2 or self.autoencoder.factor % self.scale):
            raise ValueError(
                f"scale {self.scale}: expected 2 or more, a divisor of {self.autoencoder.factor} pixels a cell"
            )

        if self.difference is not None and (self.further != ("enlarged",) or not self.difference > 0):
            raise ValueError(
                f"difference {self.difference} from {list(self.further)}: expected more than 0, from a picture enlarged"
            )

    @property
    def relative(self) -> bool:
        """Whether the U-Net answers for the difference from the latent that it is shown."""
        return self.difference is not None

    @property
    def scaling(self) -> Scaling:
        """Of the U-Net's answers."""
        scaling = SCALINGS[self.prediction]
        return scaling if self.difference is None else of_std(scaling, self.difference)

    @property
    def enlarges(self) -> bool:
        """Whether it is an upscaler: a small picture alone is beside its noise."""
        return self.further in (("low",), ("enlarged",))

    @property
    def enlargement(self) -> int:
        """How many times larger what an upscaler draws is than the small picture."""
        return self.scale or self.autoencoder.factor

    @property
    def covered(self) -> int:
        """Pixels of the small picture, along a side, that a cell of an upscaler's latent covers."""
        return self.autoencoder.factor // self.enlargement


def suited(config: FamilyConfig) -> FamilyConfig:
    """With what latent consistency models are made for (Luo et al. 2023; the defaults of diffusers' pipeline), where
    the U-Net is one that is told the guidance scale."""
    if config.unet.guidance_dim is None:
        return config
    return dataclasses.replace(config, steps=4, cfg_scale=8.5, sampler="lcm", scheduler=None)


ConditionerKind = Literal[
    "clip", "open_clip", "clip_and_open_clip", "open_clip_pooled", "bert", "layout", "class", "spatial", "none"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tells:
    """What tells the families apart in a checkpoint: what fills the conditioner's place, the channels that the U-Net
    takes beside the latent, and where that does not suffice, None elsewhere: whether the first stage has a codebook,
    how many levels it has, whether the U-Net takes class ids."""

    conditioner: ConditionerKind
    extra_channels: int = 0
    codebook: bool | None = None
    levels: int | None = None
    classes: bool | None = None

    def distance(self, found: "Tells") -> int:
        """In how many of these it differs from what was found in a checkpoint; 0: that may be of this family."""
        pairs = ((getattr(self, field.name), getattr(found, field.name)) for field in dataclasses.fields(self))
        return sum(mine not in (None, its) for mine, its in pairs)

    def __str__(self) -> str:
        shown = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items() if value is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A released kind of checkpoint. `config` is at its real size; `projection`: how LDM's layout keeps the layers
    around transformer blocks; `averaged`: the released pictures were made with the averaged weights where the file
    has them."""

    config: FamilyConfig
    tells: Tells
    projection: Projection = "linear"
    averaged: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentDiffusion:
    """A model ready for use. `source` says where its weights came from; `fingerprint` reads them once more to tell
    `digest`, so that gigabytes are hashed only for those who want to know."""

    config: FamilyConfig
    denoiser: Denoiser
    autoencoder: Autoencoder
    conditioner: AnyConditioner | None
    source: str
    fingerprint: Callable[[], str]

    @property
    def digest(self) -> str:
        """Which weights they are: 10 hexadecimal digits."""
        return self.fingerprint()

    @property
    def space(self) -> LatentSpace:
        return self.config.space

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Its parts by name; a model that nothing steers has no conditioner."""
        network = self.denoiser.network
        assert isinstance(network, nn.Module)
        parts: dict[str, nn.Module] = {"unet": network, "autoencoder": self.autoencoder}
        return parts if self.conditioner is None else parts | {"conditioner": self.conditioner}

    @property
    def reads_prompts(self) -> bool:
        return isinstance(self.conditioner, TextConditioner | TextTowers | BertConditioner)

    @property
    def reads(self) -> TextConditioner | TextTowers | BertConditioner:
        """What turns prompts into conditioning. Raises `ValueError` for a model that is not steered by text."""
        if not isinstance(self.conditioner, TextConditioner | TextTowers | BertConditioner):
            raise ValueError(f"the model {self.config.name} reads no prompts; expected one that is steered by text")
        return self.conditioner

    @property
    def reads_objects(self) -> bool:
        """Whether it hears, beside a text, which objects are there and in which boxes."""
        return isinstance(self.conditioner, TextConditioner) and self.conditioner.objects is not None

    @property
    def towers(self) -> tuple[TextConditioner, ...]:
        """The text towers that read a prompt."""
        return towers(self.conditioner)

    @property
    def device(self) -> torch.device:
        return self.autoencoder.post_quant_conv.weight.device


def assemble(
    config: FamilyConfig,
    *,
    unet: UNet,
    autoencoder: Autoencoder,
    conditioner: AnyConditioner | None,
    source: str,
    fingerprint: Callable[[], str],
) -> LatentDiffusion:
    """The networks of a family, joined by its schedule and prediction type."""
    denoiser = Denoiser(
        network=unet,
        schedule=make_schedule(config.schedule),
        scaling=config.scaling,
        dtype=unet.conv_in.weight.dtype,
        relative=config.relative,
    )
    return LatentDiffusion(
        config=config,
        denoiser=denoiser,
        autoencoder=autoencoder,
        conditioner=conditioner,
        source=source,
        fingerprint=functools.cache(fingerprint),
    )


def make_conditioner(config: ConditionerConfig) -> AnyConditioner:
    """The network a configuration describes."""
    match config:
        case TextConfig():
            return TextConditioner(config)
        case TextTowersConfig():
            return TextTowers(config)
        case BertConfig():
            return BertConditioner(config)
        case LayoutConfig():
            return LayoutConditioner(config)
        case ClassConfig():
            return ClassConditioner(config)
        case SpatialConfig():
            return SpatialConditioner(config)


def towers(conditioner: AnyConditioner | None) -> tuple[TextConditioner, ...]:
    """The CLIP towers of a conditioner."""
    match conditioner:
        case TextTowers():
            return conditioner.conditioners
        case TextConditioner():
            return (conditioner,)
        case _:
            return ()
