"""Each recipe in miniature: a run of seconds."""

from collections.abc import Callable
from pathlib import Path

from tintype.common.config import override
from tintype.recipes import RECIPES, Recipe

TRAIN = ("train.steps=4", "train.batch_size=4", "train.save_every=2", "train.warmup=1", "train.hold=1.0")
LATENT_DIFFUSION = (
    *TRAIN,
    'unet={"width":16,"mult":[1,2],"num_blocks":1,"depth":[0,1],"num_heads":2,"norm_groups":4}',
    "text.width=16",
    "text.num_layers=1",
    "text.num_heads=2",
    "steering.width=16",
    "steering.layers=1",
    "samples=24",
    "held_out=2",
    "levels=2",
    "steps=2",
    "condition=class",
)
IN_EARNEST = ("train.accumulate=1", "train.device=cpu", "train.precision=fp32", "train.compile=false")
FIRST_STAGE = (
    *("model.width=8", "model.norm_groups=4", "model.num_blocks=1", "critic.width=4", "critic.num_layers=2"),
    *("held_out=3", "measured=10", "samples=20", "size=32"),
)
CLIP = (
    'image={"image_size":64,"patch_size":16,"width":16,"num_layers":1,"num_heads":2,"projection_dim":8}',
    'text={"context_length":24,"width":16,"num_layers":1,"num_heads":2,"projection_dim":8}',
    "samples=24",
    "held_out=6",
)


def text2img(channels: int) -> tuple[str, ...]:
    return (
        f'unet={{"in_channels":{channels},"out_channels":4,"width":16,"mult":[1,2],"num_blocks":1,"depth":[0,1],'
        '"context_dim":16,"vector_dim":16,"num_heads":2,"norm_groups":4}',
        "text.width=16",
        "text.num_heads=2",
        "text.num_layers=1",
        "latents=24",
        "steps=2",
    )


SMALL = {
    "scene_classifier": (*TRAIN, "model.widths=[8,16]", "model.norm_groups=4"),
    "default_autoencoder": (
        *TRAIN,
        'model={"latent_channels":4,"width":8,"mult":[1,1],"num_blocks":1,"patch_size":4,"norm_groups":4}',
        "loss.features=0.1",
        "loss.features_from=1",
    ),
    "autoencoder": (*TRAIN, *FIRST_STAGE, "model.mult=[1]", "loss.adversarial.start=2"),
    "autoencoder_kl_f8": (*TRAIN, *FIRST_STAGE, "loss.features=0", "loss.adversarial.start=3"),
    "autoencoder_vq_f4": (*TRAIN, *FIRST_STAGE, "loss.features=0", "model.codebook_size=32"),
    "clip": (*TRAIN, *CLIP),
    "clip_vit_b32": (*TRAIN, *CLIP, *IN_EARNEST, "train.accumulate=2", "scenes.size=64"),
    "default_text2img": (*TRAIN, *text2img(4)),
    "default_tasks": (*TRAIN, *text2img(9), "objects=2"),
    "default_upscaler": (
        *TRAIN,
        'unet={"in_channels":8,"out_channels":4,"width":8,"mult":[1],"num_blocks":1,"depth":[0],'
        '"context_dim":null,"num_heads":1,"norm_groups":4,"num_classes":30}',
        "windows=24",
        "sizes=[64,128]",
        "steps=2",
    ),
    "compression_study": (
        *TRAIN,
        'unet={"in_channels":4,"out_channels":4,"width":8,"mult":[1],"num_blocks":1,"depth":[0],'
        '"context_dim":null,"num_heads":1,"norm_groups":4}',
        "latents=24",
    ),
    "latent_diffusion": LATENT_DIFFUSION,
    "stable_diffusion_1": (*LATENT_DIFFUSION, *IN_EARNEST),
    "class_to_image_imagenet": (*LATENT_DIFFUSION, *IN_EARNEST),
}


def small(name: str, *more: str) -> Recipe:
    return override(RECIPES[name](), [*SMALL[name], *more])


# What a recipe reads of another's finished run: {recipe: {field: (that recipe, its file)}}
NEEDS = {
    "default_autoencoder": {"features": ("scene_classifier", "classifier.safetensors")},
    "compression_study": {"autoencoder": ("default_autoencoder", "autoencoder.safetensors")},
    "default_text2img": {"autoencoder": ("default_autoencoder", "autoencoder.safetensors")},
    "default_tasks": {"autoencoder": ("default_autoencoder", "autoencoder.safetensors")},
    "default_upscaler": {"start": ("default_text2img", "model")},
    "latent_diffusion": {"autoencoder": ("default_autoencoder", "autoencoder.safetensors")},
    "stable_diffusion_1": {"autoencoder": ("default_autoencoder", "autoencoder.safetensors")},
    "class_to_image_imagenet": {"autoencoder": ("default_autoencoder", "autoencoder.safetensors")},
}


def needed(name: str, finished: Callable[[str], Path]) -> tuple[str, ...]:
    """What a recipe must be told beside its own numbers."""
    return tuple(f"{field}={finished(other) / file}" for field, (other, file) in NEEDS.get(name, {}).items())
