"""Stable Diffusion 1 as it was published: its U-Net from noise, around a frozen first stage and a frozen CLIP.

    tintype latents PREPARED runs/latents --model MODEL       # pictures of 512 pixels, once
    torchrun --nproc-per-node 8 -m tintype train stable_diffusion_1 --out runs/sd1 --set data=runs/latents \\
        --set frozen=MODEL

MODEL (a checkpoint, a folder) gives the first stage, the latent space and CLIP ViT-L/14's text tower. v1-1 was 237,000
steps at 256 pixels and then 194,000 at 512: two runs of other data. A batch of 2,048 is the published one, on whatever
number of processes divides `train.accumulate`; 10 % of captions are left out, as from v1-3 on.

Cost: 150,000 hours of an A100 in all (model card v1). Expected: the card gives FID against CLIP score as curves alone,
no numbers: 10,000 captions of COCO 2017's validation pictures at 512 pixels, 50 steps of PLMS, guidance 1.5 to 8; not
optimised for FID. Not run by us.
"""

from tintype.data.scenes import SceneConfig
from tintype.families.stable_diffusion import SD1
from tintype.models.clip import CLIPTextConfig
from tintype.recipes.latent_diffusion import LatentDiffusionTraining
from tintype.training.loop import TrainConfig


def stable_diffusion_1() -> LatentDiffusionTraining:
    return LatentDiffusionTraining(
        scenes=SceneConfig(),
        unet=SD1.unet,
        text=CLIPTextConfig(),
        schedule=SD1.schedule,
        prediction="eps",
        condition="text",
        dropout=0.1,
        held_out=64,
        validate_every=5000,
        steps=50,
        cfg_scale=7.5,
        scheduler="leading",
        sheet_every=5000,
        train=TrainConfig(
            steps=431_000,
            batch_size=32,
            accumulate=64,
            learning_rate=1e-4,
            warmup=10_000,
            hold=1.0,
            betas=(0.9, 0.999),
            ema_decay=0.9999,
            precision="bf16",
            device="cuda",
            compile=True,
            save_every=5000,
        ),
    )
