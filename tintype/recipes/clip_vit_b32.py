"""CLIP ViT-B/32 in earnest, with the hyperparameters of OpenAI (Radford et al. 2021, table 19) and LAION (open_clip).

    tintype prepare LAION PREPARED
    torchrun --nproc-per-node 8 -m tintype train clip_vit_b32 --out runs/b32 --set data=PREPARED

A step is 32 768 pairs: 32 micro-batches of 1024, whose features are cached (training/gathered.py), so that any number
of GPUs that divides 32 gives the same run; --set train.batch_size and train.accumulate for other memory.

Cost: 390 625 steps are 12.8 billion pairs, 32 rounds of 400 million. Expected: zero-shot top-1 on ImageNet of 63.2 %
(OpenAI's own data) or 62.9 % (LAION-400M, as open_clip published it). Not run here.
"""

from tintype.data.scenes import SceneConfig
from tintype.models.clip import CLIPTextConfig
from tintype.models.clip_image import CLIPImageConfig
from tintype.objectives.contrastive import ContrastiveConfig
from tintype.recipes.clip import ContrastiveRecipe
from tintype.training.loop import TrainConfig


def clip_vit_b32() -> ContrastiveRecipe:
    return ContrastiveRecipe(
        scenes=SceneConfig(size=224),  # for a rehearsal without data
        samples=100_000,
        image=CLIPImageConfig(),
        text=CLIPTextConfig(width=512, num_heads=8, projection_dim=512),
        loss=ContrastiveConfig(),
        smallest_crop=0.9,
        held_out=5000,
        train=TrainConfig(
            steps=390_625,
            batch_size=1024,
            accumulate=32,
            learning_rate=5e-4,
            warmup=2000,
            hold=0.0,
            betas=(0.9, 0.98),
            eps=1e-6,
            weight_decay=0.2,
            decay="matrices",
            precision="bf16",
            device="cuda",
        ),
    )
