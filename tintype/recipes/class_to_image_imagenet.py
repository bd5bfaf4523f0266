"""Pictures of ImageNet's classes, as latent-diffusion's cin256-v2 was trained (Rombach et al. 2022, tables 10 and 18).

    tintype latents PREPARED runs/latents --model MODEL       # ImageNet at 256 pixels, once
    torchrun --nproc-per-node 8 -m tintype train class_to_image_imagenet --out runs/cin --set data=runs/latents \\
        --set frozen=MODEL

MODEL gives the first stage vq-f4 and its latent space (or `--set autoencoder=FILE`, with latents brought to unit
variance). A class is a vector of 512 that is trained along; one time in ten it is that of no class.

Cost: 178,000 steps of 1,200, which the paper puts at 271 days of a V100. Expected: FID 3.60, Inception score 247.67 at
guidance 1.5 and 250 steps of DDIM; 10.56 and 103.49 without guidance (table 3). Not run by us.
"""

from tintype.data.scenes import SceneConfig
from tintype.families.latent_diffusion import IMAGENET
from tintype.models.clip import CLIPTextConfig
from tintype.recipes.latent_diffusion import LatentDiffusionTraining
from tintype.recipes.steering import SteeringSizes
from tintype.training.loop import TrainConfig


def class_to_image_imagenet() -> LatentDiffusionTraining:
    return LatentDiffusionTraining(
        scenes=SceneConfig(),
        unet=IMAGENET.unet,
        text=CLIPTextConfig(),
        schedule=IMAGENET.schedule,
        prediction="eps",
        condition="class",
        steering=SteeringSizes(classes=1000, width=512),
        dropout=0.1,
        held_out=64,
        validate_every=2000,
        steps=50,
        cfg_scale=1.5,
        scheduler="leading",
        sheet_every=2000,
        train=TrainConfig(
            steps=178_000,
            batch_size=75,
            accumulate=16,
            learning_rate=1e-4,
            warmup=1000,
            hold=1.0,
            betas=(0.9, 0.999),
            ema_decay=0.9999,
            precision="bf16",
            device="cuda",
            compile=True,
            save_every=2000,
        ),
    )
