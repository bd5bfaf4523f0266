"""What steers a latent diffusion run, from one word: the conditioner, what training reads for it, and what a sheet of
samples is drawn from."""

import dataclasses
import logging
import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import torch

from tintype.conditioning.class_label import ClassConditioner, ClassConfig
from tintype.conditioning.layout import LayoutConditioner, LayoutConfig
from tintype.conditioning.spatial import SpatialConditioner, SpatialConfig
from tintype.conditioning.text import TextConditioner, TextConfig
from tintype.data.samples import Column, Samples, labels, labels_or, layouts, masks, texts
from tintype.diffusion.denoiser import Conditioning
from tintype.models.token_transformer import TokenTransformerConfig
from tintype.models.unet import UNetConfig
from tintype.objectives.conditions import Condition, condition_of

log = logging.getLogger(__name__)
LOOKED_AT = 256  # samples whose captions are searched for words that were never taught

Steered = Literal["none", "class", "text", "layout", "semantic"]
Steering = TextConditioner | ClassConditioner | LayoutConditioner | SpatialConditioner
SteeringConfig = TextConfig | ClassConfig | LayoutConfig | SpatialConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SteeringSizes:
    """Of what is trained beside the U-Net. `classes`: how many the data set has; `width`: of the vectors that the U-Net
    reads; `objects`, `layers`, `heads`: of a layout's transformer; `map_channels`: what a map becomes."""

    classes: int = 1000
    width: int = 64
    objects: int = 4
    layers: int = 2
    heads: int = 4
    map_channels: int = 3


def steering_config(
    kind: Steered, sizes: SteeringSizes, *, text: TextConfig, factor: int
) -> TextConfig | ClassConfig | LayoutConfig | SpatialConfig | None:
    """The network of a word; `factor`: pixels per latent element of a side."""
    match kind:
        case "none":
            return None
        case "class":
            return ClassConfig(num_classes=sizes.classes + 1, width=sizes.width, null_class=sizes.classes)
        case "text":
            return text
        case "layout":
            encoder = TokenTransformerConfig(
                vocabulary_size=max(8192, 16 * sizes.classes + 1),
                context_length=3 * sizes.objects + 2,
                width=sizes.width,
                num_layers=sizes.layers,
                num_heads=sizes.heads,
                head_dim=sizes.width // sizes.heads,
            )
            return LayoutConfig(encoder=encoder, objects=sizes.objects, num_classes=sizes.classes)
        case "semantic":
            halvings = round(math.log2(factor))
            return SpatialConfig(num_classes=sizes.classes, out_channels=sizes.map_channels, halvings=halvings)


def steered_unet(unet: UNetConfig, steering: SteeringConfig | None, *, channels: int) -> UNetConfig:
    """The U-Net that fits a first stage of so many channels and what steers it."""
    context, vector, extra = None, None, 0
    match steering:
        case TextConfig():
            context = steering.clip.width
            vector = (steering.clip.projection_dim or context) if steering.pooled else None
        case ClassConfig():
            context = steering.width
        case LayoutConfig():
            context = steering.encoder.width
        case SpatialConfig():
            extra = steering.out_channels
        case None:
            pass
    return dataclasses.replace(
        unet, in_channels=channels + extra, out_channels=channels, context_dim=context, vector_dim=vector
    )


def columns_of(network: Steering | None) -> tuple[Column, ...]:
    """What a batch must hold for it. A sample without a caption, class or boxes is trained on as one that nothing
    steers, which a dropped condition makes of others as well."""
    match network:
        case TextConditioner():
            return (texts(network.tokens, missing=""),)
        case ClassConditioner():
            null = network.config.null_class
            return (labels if null is None else labels_or(null),)
        case LayoutConditioner():
            return (layouts(network.config),)
        case SpatialConditioner():
            return (masks,)
        case None:
            return ()


def conditions_of(network: Steering | None, *, dropout: float) -> list[Condition]:
    return [] if network is None else [condition_of(network, dropout=dropout)]


def nothing(network: Steering | None, cond: Conditioning) -> Conditioning | None:
    """What guidance leads away from, of as many rows; None for a model without anything to leave out."""
    match network:
        case None:
            return None
        case SpatialConditioner():
            return cond.map(torch.zeros_like)
        case _:
            assert cond.context is not None
            return network.empty(len(cond.context))


def warn_of_words(tower: TextConditioner, samples: Samples) -> None:
    """Say which words of the captions a frozen tower was never taught: training leaves them out."""
    numbers = range(0, len(samples), -(-len(samples) // LOOKED_AT))
    found = [samples[number] for number in numbers]
    captions = [one for sample in found for one in (sample.caption, *sample.other_captions) if one is not None]
    unknown = [tower.read(caption).unknown for caption in captions]
    if not any(unknown):
        return
    words = Counter(word for some in unknown for word in some)
    log.warning(
        "%d of %d captions have words that the frozen text tower was never taught, and that training leaves out: %s "
        "(%d words in all); expected a model whose tower reads every word, or a tower that is trained: "
        "--set autoencoder=FILE instead of frozen",
        sum(map(bool, unknown)),
        len(captions),
        ", ".join(f"{word} ({count})" for word, count in words.most_common(5)),
        len(words),
    )
