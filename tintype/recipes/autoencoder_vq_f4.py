"""The first stage of LDM-4 as CompVis trained it: VQ, factor 4, 8,192 codes of 3 numbers (LDM, table 8).

    tintype prepare openimages prepared --size 256
    tintype train autoencoder_vq_f4 --out runs/vq-f4 --set data=prepared --set train.device=cuda \\
        --set 'lpips=["vgg16-397923af.pth","vgg.pth"]'

8 pictures of 256 x 256 a step. The critic plays from the first step; released weights are of step 533,066. As theirs
the codebook weighs its commitment the wrong way round (`legacy`) and revives no code: the papers mean
loss.codebook.legacy=false, and loss.codebook.revive_below=0.03 revives. CompVis averages no weights.

Expected: rFID 0.58 and PSNR 27.43 on ImageNet's validation pictures (trained on OpenImages; LDM, table 8). Not run
here: the loss equals theirs term by term (see tests/objectives/test_compvis_losses.py), the cost is not measured.
"""

from tintype.data.scenes import SceneConfig
from tintype.models.autoencoder import AutoencoderConfig
from tintype.models.critic import CriticConfig
from tintype.objectives.adversarial import AdversarialConfig
from tintype.objectives.autoencoding import AutoencodingConfig
from tintype.objectives.codebook import CodebookConfig
from tintype.recipes.autoencoder import AutoencoderTraining
from tintype.recipes.autoencoder_kl_f8 import BASE_RATE, NO_CLIPPING
from tintype.training.loop import TrainConfig


def autoencoder_vq_f4() -> AutoencoderTraining:
    return AutoencoderTraining(
        scenes=SceneConfig(),
        model=AutoencoderConfig(latent_channels=3, mult=(1, 2, 4), codebook_size=8192),
        loss=AutoencodingConfig(
            l2=0.0,
            edges=0.0,
            features=1.0,
            codebook=CodebookConfig(legacy=True, revive_below=0.0),
            adversarial=AdversarialConfig(weight=0.75, start=0),
        ),
        critic=CriticConfig(),
        size=256,
        mirrored=True,
        validate_every=5000,
        train=TrainConfig(
            steps=533_066,
            batch_size=8,
            learning_rate=8 * BASE_RATE,
            warmup=0,
            hold=1.0,
            betas=(0.5, 0.9),
            weight_decay=0.0,
            clip_norm=NO_CLIPPING,
            ema_decay=0.0,
            save_every=5000,
        ),
    )
