"""The networks of Stable Diffusion 1.x, 2.x and XL, from the released configurations (SD1, S2 and SGM repositories)."""

from tintype.models.autoencoder import AutoencoderConfig
from tintype.models.clip import CLIPTextConfig
from tintype.models.unet import UNetConfig

KL_F8 = AutoencoderConfig()
CLIP_L = CLIPTextConfig()
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
