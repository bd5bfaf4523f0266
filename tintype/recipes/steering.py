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
from tintype.data.known import WORDS, Slot, known, lacking, mask_of, require_each
from tintype.data.samples import Column, Samples, described, labels, labels_or, layouts, masks, texts
from tintype.diffusion.denoiser import Conditioning
from tintype.models.token_transformer import TokenTransformerConfig
from tintype.models.unet import UNetConfig
from tintype.objectives.conditions import Condition, condition_of

log = logging.getLogger(__name__)
LOOKED_AT = 256  # samples whose captions are searched for words that were never taught
MAPS_LOOKED_AT = 4096  # a map has to be decoded, which takes up to a millisecond

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


def check_steering(config: SteeringConfig | None, samples: Samples, *, data: str) -> None:
    """Raise `ValueError` for samples that this cannot be trained on: a class there is no room for, a map that is not
    there, nothing at all that steers. Where some have nothing, say how many: they are trained on all the same."""
    match config:
        case None:
            return
        case TextConfig():
            _check_slot("caption", samples, data, classes=None, expected="captions beside the pictures or in a table")
        case ClassConfig():
            _check_slot(
                "label", samples, data, classes=config.null_class, expected="a folder of pictures for each class"
            )
        case LayoutConfig():
            _check_slot("boxes", samples, data, classes=config.num_classes, expected="pictures with COCO annotations")
        case SpatialConfig():
            require_each(
                samples, "mask", data=data, remedy="expected a map of classes for each: `tintype prepare --masks`"
            )
            chosen = (mask_of(samples, number) for number in _spread(len(samples), MAPS_LOOKED_AT))
            _check_classes(max(int(mask.max()) for mask in chosen if mask is not None), config.num_classes, data)


def _check_slot(slot: Slot, samples: Samples, data: str, *, classes: int | None, expected: str) -> None:
    found = known(samples, slot)
    if not (found >= 0).any():
        raise ValueError(
            f"none of the {len(samples):,} samples of {data} has a {WORDS[slot]}, so nothing would steer; expected "
            f"{expected} (see `tintype prepare`), or another condition: --set condition=none"
        )
    if classes is not None:
        _check_classes(int(found.max()), classes, data)
    if said := lacking(samples, found, slot, data=data):
        log.warning("%s; trained on as what nothing steers", said)


def _check_classes(highest: int, classes: int, data: str) -> None:
    if highest >= classes:
        raise ValueError(
            f"steering.classes {classes} is for classes 0 to {classes - 1}, {data} has class {highest}; expected more: "
            f"--set steering.classes={highest + 1}"
        )


def _spread(size: int, count: int) -> range:
    """At most so many numbers below `size`, evenly."""
    return range(0, size, -(-size // count))


def warn_of_words(tower: TextConditioner, samples: Samples) -> None:
    """Say which words of the captions a frozen tower was never taught: training leaves them out."""
    found = [described(samples, number) for number in _spread(len(samples), LOOKED_AT)]
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
