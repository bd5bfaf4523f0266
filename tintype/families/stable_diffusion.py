"""Stable Diffusion 1.x, 2.x and XL as released (SD1, S2 and SGM repositories): networks, schedules, and what tells them
apart in a file."""

import dataclasses

from tintype.conditioning.text import TextConfig
from tintype.conditioning.towers import TextTowersConfig
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.schedule import DDPMConfig
from tintype.families.base import Family, FamilyConfig, Further, Tells
from tintype.models.autoencoder import AutoencoderConfig
from tintype.models.clip import CLIPTextConfig
from tintype.models.unet import UNetConfig

KL_F8 = AutoencoderConfig()
KL_F4_UPSCALER = AutoencoderConfig(mult=(1, 2, 4))
CLIP_L = CLIPTextConfig()
CLIP_H = CLIPTextConfig(width=1024, num_layers=23, num_heads=16, activation="gelu")  # of 24, the last is not used
CLIP_BIG_G = CLIPTextConfig(width=1280, num_layers=32, num_heads=20, activation="gelu", projection_dim=1280)

SD1_UNET = UNetConfig()
SD2_UNET = UNetConfig(context_dim=1024, num_heads=None, head_dim=64)
SDXL_UNET = UNetConfig(
    mult=(1, 2, 4),
    depth=(0, 2, 10),
    middle_depth=10,
    context_dim=2048,
    num_heads=None,
    head_dim=64,
    vector_dim=2816,
)
REFINER_UNET = dataclasses.replace(
    SDXL_UNET, width=384, mult=(1, 2, 4, 4), depth=(0, 4, 4, 0), middle_depth=4, context_dim=1280, vector_dim=2560
)
UPSCALER_UNET = UNetConfig(
    in_channels=7,
    width=256,
    mult=(1, 2, 2, 4),
    depth=(0, 1, 1, 1),
    context_dim=1024,
    self_attention=(False, False, False, True),
    num_classes=1000,
)

SD1 = FamilyConfig(
    name="sd1",
    unet=SD1_UNET,
    autoencoder=KL_F8,
    conditioner=TextConfig(clip=CLIP_L),
    schedule=DDPMConfig(),
    prediction="eps",
    space=LatentSpace(),
    size=512,
    cfg_scale=7.5,
    sampler="dpmpp_2m",
    scheduler="karras",
    conventions="diffusers",
)
SD2 = dataclasses.replace(SD1, name="sd2", unet=SD2_UNET, conditioner=TextConfig(clip=CLIP_H, pad="zero"))
UPSCALER = dataclasses.replace(
    SD2,
    name="sd2-upscaler",
    unet=UPSCALER_UNET,
    autoencoder=KL_F4_UPSCALER,
    schedule=DDPMConfig(start=0.0001, end=0.02),
    prediction="v",
    space=LatentSpace(scale=(0.08333,)),
    cfg_scale=9.0,
    further=("low",),
)
SDXL = dataclasses.replace(
    SD1,
    name="sdxl",
    unet=SDXL_UNET,
    conditioner=TextTowersConfig(
        towers=(
            TextConfig(clip=CLIP_L, layer=1, final_norm=False),
            TextConfig(clip=CLIP_BIG_G, layer=1, final_norm=False, pad="zero", pooled=True),
        ),
        zeros_for_empty=True,
    ),
    space=LatentSpace(scale=(0.13025,)),
    size=1024,
    cfg_scale=5.0,
    spacing="leading",
)
REFINER = dataclasses.replace(
    SDXL,
    name="sdxl-refiner",
    unet=REFINER_UNET,
    conditioner=TextTowersConfig(
        towers=(TextConfig(clip=CLIP_BIG_G, layer=1, final_norm=False, pad="zero", pooled=True),),
        numbers=("original_size", "crop", "aesthetic_score"),
    ),
)


INPAINTING: tuple[Further, ...] = ("mask", "masked")


def _with_channels(config: FamilyConfig, name: str, in_channels: int, *further: Further) -> FamilyConfig:
    unet = dataclasses.replace(config.unet, in_channels=in_channels)
    return dataclasses.replace(config, name=name, unet=unet, further=further)


FAMILIES = (
    Family(config=SD1, tells=Tells(conditioner="clip"), projection="conv"),
    Family(
        config=_with_channels(SD1, "sd1-inpainting", 9, *INPAINTING),
        tells=Tells(conditioner="clip", extra_channels=5),
        projection="conv",
    ),
    Family(
        config=_with_channels(SD1, "sd1-pix2pix", 8, "picture"),
        tells=Tells(conditioner="clip", extra_channels=4),
        projection="conv",
    ),
    Family(config=SD2, tells=Tells(conditioner="open_clip")),
    Family(
        config=dataclasses.replace(SD2, name="sd2-v", prediction="v", size=768), tells=Tells(conditioner="open_clip")
    ),
    Family(
        config=_with_channels(SD2, "sd2-inpainting", 9, *INPAINTING),
        tells=Tells(conditioner="open_clip", extra_channels=5),
    ),
    Family(config=_with_channels(SD2, "sd2-depth", 5, "depth"), tells=Tells(conditioner="open_clip", extra_channels=1)),
    Family(config=UPSCALER, tells=Tells(conditioner="open_clip", extra_channels=3, classes=True)),
    Family(config=SDXL, tells=Tells(conditioner="clip_and_open_clip")),
    Family(
        config=_with_channels(SDXL, "sdxl-inpainting", 9, *INPAINTING),
        tells=Tells(conditioner="clip_and_open_clip", extra_channels=5),
    ),
    Family(
        config=_with_channels(SDXL, "sdxl-pix2pix", 8, "picture"),
        tells=Tells(conditioner="clip_and_open_clip", extra_channels=4),
    ),
    Family(config=REFINER, tells=Tells(conditioner="open_clip_pooled")),
)
