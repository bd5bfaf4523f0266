"""Networks of seconds, one for each way of steering, and eight samples to learn by heart."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tintype.common.rng import generator
from tintype.conditioning.class_label import ClassConditioner, ClassConfig
from tintype.conditioning.layout import Box, LayoutConditioner, LayoutConfig, Region, layout_ids
from tintype.conditioning.spatial import SpatialConditioner, SpatialConfig
from tintype.conditioning.text import TextConditioner, TextConfig, word_ids
from tintype.models.clip import CLIPTextConfig
from tintype.models.token_transformer import TokenTransformerConfig
from tintype.models.unet import UNet, UNetConfig
from tintype.objectives.conditions import (
    ClassCondition,
    ConcatCondition,
    Condition,
    LayoutCondition,
    SpatialCondition,
    TextCondition,
)

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
WIDTH = 16
LAYOUTS = LayoutConfig(
    encoder=TokenTransformerConfig(
        vocabulary_size=256, context_length=5, width=WIDTH, num_layers=1, num_heads=2, head_dim=8
    ),
    objects=1,
    num_classes=8,
)
CONDITIONS = ("none", "class", "text", "layout", "spatial", "concat", "text spatial", "class layout")


def condition(name: str, *, dropout: float = 0.0) -> Condition:
    match name:
        case "class":
            return ClassCondition(
                ClassConditioner(ClassConfig(num_classes=9, width=WIDTH, null_class=8)), dropout=dropout
            )
        case "text":
            return TextCondition(TextConditioner(text_config()), dropout=dropout)
        case "layout":
            return LayoutCondition(LayoutConditioner(LAYOUTS), dropout=dropout)
        case "spatial":
            config = SpatialConfig(num_classes=8, out_channels=2, halvings=1)
            return SpatialCondition(SpatialConditioner(config), dropout=dropout)
        case _:
            return ConcatCondition(dropout=dropout)


def text_config() -> TextConfig:
    clip = CLIPTextConfig(vocabulary_size=len(word_ids(WORDS)), context_length=4, width=16, num_layers=1, num_heads=2)
    return TextConfig(clip=clip, words=WORDS, pooled=True)


def tiny_unet(names: Sequence[str]) -> UNet:
    concat = 2 * sum(name in ("spatial", "concat") for name in names)
    reads = any(name in ("class", "text", "layout") for name in names)
    return UNet(
        UNetConfig(
            in_channels=4 + concat,
            width=16,
            mult=(1,),
            num_blocks=1,
            depth=(0,),
            middle_depth=1,
            context_dim=WIDTH if reads else None,
            vector_dim=WIDTH if "text" in names else None,
            num_heads=2,
            norm_groups=4,
        )
    )


def tiny(steered: str = "text", *, dropout: float = 0.0) -> tuple[UNet, list[Condition]]:
    """A U-Net, and conditions by names."""
    torch.manual_seed(0)
    names = [] if steered == "none" else steered.split()
    unet = tiny_unet(names)
    return unet, [condition(name, dropout=dropout) for name in names]


def eight_samples(*, std: float = 0.01) -> dict[str, Tensor]:
    """Eight latents, each with a caption, a class, a layout, a map and extra channels of its own."""
    tokens = TextConditioner(text_config()).tokens(WORDS)
    mean = 0.5 * torch.randn(8, 4, 4, 4, generator=generator("latents"))
    boxes = [Box(label=number, region=Region(left=number / 8, width=1 / 8)) for number in range(8)]
    return {
        "mean": mean,
        "std": torch.full_like(mean, std),
        "ids": tokens.ids,
        "end": tokens.end,
        "label": torch.arange(8),
        "layout": torch.tensor([layout_ids([box], LAYOUTS) for box in boxes]),
        "mask": torch.arange(8)[:, None, None].expand(8, 8, 8).contiguous(),
        "concat": torch.randn(8, 2, 4, 4, generator=generator("concat")),
    }


def randomised(unet: UNet) -> None:
    """No zeros: the answer depends on the input."""
    for number, parameter in enumerate(unet.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=generator("weights", number))
