"""Stable Diffusion's first stage as CompVis trained it: KL, factor 8, 4 channels (LDM, appendix G, table 8).

    tintype prepare openimages prepared --size 256
    torchrun --nproc-per-node 8 -m tintype train autoencoder_kl_f8 --out runs/kl-f8 --set data=prepared \\
        --set 'lpips=["vgg16-397923af.pth","vgg.pth"]' --set train.device=cuda --set train.accumulate=8 \\
        --set train.batch_size=3

24 pictures of 256 x 256 a step, however they are shared out; the learning rate is CompVis's 4.5e-6 times these. The
critic comes in after 50,001 steps; released weights are of step 246,803. CompVis averages no weights.

Expected: rFID 0.90 and PSNR 24.19 on ImageNet's validation pictures (trained on OpenImages; LDM, table 8); 4.99 and
23.4 on COCO 2017's (model card of sd-vae-ft-mse). Not run here: the loss equals theirs term by term (see
tests/objectives/test_compvis_losses.py), the cost is not measured.
"""

from tintype.data.scenes import SceneConfig
from tintype.models.autoencoder import AutoencoderConfig
from tintype.models.critic import CriticConfig
from tintype.objectives.adversarial import AdversarialConfig
from tintype.objectives.autoencoding import AutoencodingConfig
from tintype.recipes.autoencoder import AutoencoderTraining
from tintype.training.loop import TrainConfig

BASE_RATE = 4.5e-6  # for each picture of a step
NO_CLIPPING = 1e12


def autoencoder_kl_f8() -> AutoencoderTraining:
    return AutoencoderTraining(
        scenes=SceneConfig(),
        model=AutoencoderConfig(),
        loss=AutoencodingConfig(
            l2=0.0,
            edges=0.0,
            features=1.0,
            kl=1e-6,
            pixel_sums=True,
            adversarial=AdversarialConfig(weight=0.5, start=50_001),
        ),
        critic=CriticConfig(),
        size=256,
        mirrored=True,
        validate_every=5000,
        train=TrainConfig(
            steps=246_803,
            batch_size=12,
            accumulate=2,
            learning_rate=24 * BASE_RATE,
            warmup=0,
            hold=1.0,
            betas=(0.5, 0.9),
            weight_decay=0.0,
            clip_norm=NO_CLIPPING,
            ema_decay=0.0,
            save_every=5000,
        ),
    )
