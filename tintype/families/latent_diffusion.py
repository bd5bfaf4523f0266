"""The first stages and models that CompVis released with latent diffusion (Rombach et al. 2022), from their own
configurations (`models/*/config.yaml`, `configs/*/*.yaml` of CompVis/latent-diffusion).

Latents of VQ first stages are diffused as they are. A file that holds a tensor `scale_factor` says its own scale
(LDM's `scale_by_std`): lsun_churches does, and 1 stands for it here. Models of one configuration are one family: a file
does not tell faces from bedrooms. Pictures and masks that go in as further channels are the task's to say.
"""

import dataclasses

from tintype.conditioning.bert import BertConfig
from tintype.conditioning.class_label import ClassConfig
from tintype.conditioning.layout import LayoutConfig
from tintype.conditioning.spatial import SpatialConfig
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.schedule import DDPMConfig
from tintype.families.base import Family, FamilyConfig, Tells
from tintype.families.stable_diffusion import KL_F4_UPSCALER, KL_F8
from tintype.models.autoencoder import AutoencoderConfig
from tintype.models.token_transformer import TokenTransformerConfig
from tintype.models.unet import UNetConfig

# First stages

VQ_F4 = AutoencoderConfig(latent_channels=3, mult=(1, 2, 4), codebook_size=8192)
VQ_F4_NO_ATTENTION = AutoencoderConfig(latent_channels=3, mult=(1, 2, 4), codebook_size=8192, middle_attention=False)
VQ_F8 = AutoencoderConfig(mult=(1, 2, 2, 4), attention_levels=(3,), codebook_size=16_384)
KL_F16 = AutoencoderConfig(latent_channels=16, mult=(1, 1, 2, 2, 4), attention_levels=(4,))
FIRST_STAGES = {
    "kl-f4": AutoencoderConfig(latent_channels=3, mult=(1, 2, 4)),
    "kl-f8": KL_F8,
    "kl-f16": KL_F16,
    "kl-f32": AutoencoderConfig(latent_channels=64, mult=(1, 1, 2, 2, 4, 4), attention_levels=(4, 5)),
    "vq-f4": VQ_F4,
    "vq-f4-noattn": VQ_F4_NO_ATTENTION,
    "vq-f8": VQ_F8,
    "vq-f8-n256": AutoencoderConfig(mult=(1, 2, 2, 4), attention_levels=(3,), codebook_size=256),
    "vq-f16": AutoencoderConfig(latent_channels=8, mult=(1, 1, 2, 2, 4), attention_levels=(4,), codebook_size=16_384),
    "taming-f16": AutoencoderConfig(  # taming-transformers' ImageNet VQGAN
        latent_channels=256, mult=(1, 1, 2, 2, 4), attention_levels=(4,), codebook_size=1024
    ),
    "x4-upscaler": KL_F4_UPSCALER,  # Stable Diffusion 2's
}

# U-Nets

FACES_UNET = UNetConfig(  # CelebA-HQ, FFHQ and LSUN bedrooms
    in_channels=3,
    out_channels=3,
    width=224,
    mult=(1, 2, 3, 4),
    depth=(0, 1, 1, 1),
    context_dim=None,
    num_heads=None,
    head_dim=32,
)
CHURCHES_UNET = UNetConfig(
    width=192,
    mult=(1, 2, 2, 4, 4),
    depth=(1, 1, 1, 1, 0),
    context_dim=None,
    scale_shift=True,
    resample_in_blocks=True,
)
IMAGENET_F8_UNET = UNetConfig(width=256, mult=(1, 2, 4), depth=(1, 1, 1), context_dim=512, num_heads=None, head_dim=32)
IMAGENET_UNET = UNetConfig(  # cin256-v2
    in_channels=3,
    out_channels=3,
    width=192,
    mult=(1, 2, 3, 5),
    depth=(0, 1, 1, 1),
    context_dim=512,
    num_heads=1,
)
TEXT_UNET = UNetConfig(context_dim=1280)
CAPTIONS_UNET = UNetConfig(
    in_channels=3,
    out_channels=3,
    width=192,
    mult=(1, 2, 3, 5),
    depth=(0, 1, 1, 1),
    context_dim=640,
    num_heads=None,
    head_dim=32,
)
LAYOUT_UNET = UNetConfig(
    in_channels=3,
    out_channels=3,
    width=128,
    mult=(1, 2, 3, 4),
    depth=(0, 3, 3, 3),
    middle_depth=3,
    context_dim=512,
    num_heads=None,
    head_dim=32,
)
INPAINTING_UNET = UNetConfig(  # noisy latent, the masked picture's latent, the mask
    in_channels=7,
    out_channels=3,
    width=256,
    mult=(1, 2, 3, 4),
    depth=(0, 1, 1, 1),
    context_dim=None,
    resample_in_blocks=True,
)
SUPER_RESOLUTION_UNET = UNetConfig(  # attention is asked for at 8 and 16 times coarser; the coarsest level is 8
    in_channels=6,
    out_channels=3,
    width=160,
    mult=(1, 2, 2, 4),
    depth=(0, 0, 0, 1),
    context_dim=None,
    num_heads=None,
    head_dim=32,
)
SEMANTIC_UNET = UNetConfig(  # attention is asked for at 8 to 32 times coarser: none but the middle's is that coarse
    in_channels=6, out_channels=3, width=128, mult=(1, 4, 8), depth=(0, 0, 0), context_dim=None
)
RETRIEVAL_UNET = UNetConfig(  # RDM 768: neighbours' CLIP vectors as context
    in_channels=16,
    out_channels=16,
    width=448,
    mult=(1, 2, 3, 4),
    depth=(1, 1, 1, 0),
    context_dim=768,
    num_heads=None,
    head_dim=32,
)

# Conditioners

IMAGENET_CLASSES = ClassConfig(num_classes=1001, null_class=1000)
IMAGENET_F8_CLASSES = ClassConfig()
BERT_1280 = BertConfig(encoder=TokenTransformerConfig())
BERT_640 = BertConfig(encoder=TokenTransformerConfig(width=640))
OPENIMAGES_LAYOUT = LayoutConfig(
    encoder=TokenTransformerConfig(vocabulary_size=8192, context_length=92, width=512, num_layers=16)
)
LANDSCAPES = SpatialConfig()

# Models


def _noise(end: float) -> DDPMConfig:
    return DDPMConfig(start=0.0015, end=end)


UNCONDITIONAL = FamilyConfig(
    name="ldm-unconditional",
    unet=FACES_UNET,
    autoencoder=VQ_F4,
    conditioner=None,
    schedule=_noise(0.0195),
    prediction="eps",
    space=LatentSpace(scale=(1.0,)),
    size=256,
    steps=50,
    cfg_scale=1.0,
    conventions="diffusers",
)
CHURCHES = dataclasses.replace(
    UNCONDITIONAL, name="ldm-churches", unet=CHURCHES_UNET, autoencoder=KL_F8, schedule=_noise(0.0155)
)
IMAGENET_F8 = dataclasses.replace(
    UNCONDITIONAL, name="ldm-imagenet-f8", unet=IMAGENET_F8_UNET, autoencoder=VQ_F8, conditioner=IMAGENET_F8_CLASSES
)
IMAGENET = dataclasses.replace(
    UNCONDITIONAL, name="ldm-imagenet", unet=IMAGENET_UNET, conditioner=IMAGENET_CLASSES, steps=20, cfg_scale=3.0
)
TEXT = dataclasses.replace(
    UNCONDITIONAL,
    name="ldm-text2img",
    unet=TEXT_UNET,
    autoencoder=KL_F8,
    conditioner=BERT_1280,
    schedule=DDPMConfig(),
    space=LatentSpace(),
    cfg_scale=5.0,
)
CAPTIONS = dataclasses.replace(UNCONDITIONAL, name="ldm-captions", unet=CAPTIONS_UNET, conditioner=BERT_640)
LAYOUT = dataclasses.replace(
    UNCONDITIONAL,
    name="ldm-layout2img",
    unet=LAYOUT_UNET,
    conditioner=OPENIMAGES_LAYOUT,
    schedule=_noise(0.0205),
)
INPAINTING = dataclasses.replace(
    UNCONDITIONAL,
    name="ldm-inpainting",
    unet=INPAINTING_UNET,
    autoencoder=VQ_F4_NO_ATTENTION,
    schedule=_noise(0.0205),
    further=("masked_black", "signed_mask"),
)
SUPER_RESOLUTION = dataclasses.replace(
    UNCONDITIONAL,
    name="ldm-super-resolution",
    unet=SUPER_RESOLUTION_UNET,
    schedule=_noise(0.0155),
    steps=100,
    further=("low",),
)
SEMANTIC = dataclasses.replace(
    UNCONDITIONAL,
    name="ldm-semantic-synthesis",
    unet=SEMANTIC_UNET,
    conditioner=LANDSCAPES,
    schedule=_noise(0.0205),
)


def _family(config: FamilyConfig, tells: Tells, *, averaged: bool = True) -> Family:
    return Family(config=config, tells=tells, projection="conv", averaged=averaged)


FAMILIES = (
    _family(UNCONDITIONAL, Tells(conditioner="none", codebook=True)),  # celeba256, ffhq256, lsun_beds256
    _family(CHURCHES, Tells(conditioner="none", codebook=False)),  # lsun_churches256
    _family(IMAGENET_F8, Tells(conditioner="class", levels=4)),  # cin256, cin-ldm-vq-f8
    _family(IMAGENET, Tells(conditioner="class", levels=3), averaged=False),  # cin256-v2
    _family(TEXT, Tells(conditioner="bert", codebook=False), averaged=False),  # txt2img-1p4B
    _family(CAPTIONS, Tells(conditioner="bert", codebook=True)),  # text2img256
    _family(LAYOUT, Tells(conditioner="layout")),  # layout2img-openimages256
    _family(INPAINTING, Tells(conditioner="none", extra_channels=4)),  # inpainting_big
    _family(SUPER_RESOLUTION, Tells(conditioner="none", extra_channels=3)),  # bsr_sr
    _family(SEMANTIC, Tells(conditioner="spatial", extra_channels=3)),  # semantic_synthesis256, 512
)
