"""What training shows of a picture that is known in part is what sampling shows."""

import torch

from tintype.common.rng import generator
from tintype.diffusion.latent_space import LatentSpace
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.objectives.conditions import RepaintCondition

CONFIG = AutoencoderConfig(latent_channels=2, width=8, mult=(1, 1), num_blocks=1, norm_groups=4)
SPACE = LatentSpace(scale=(2.0,), shift=(0.5,))


def test_mask_and_masked_picture_stand_beside_the_noise() -> None:
    torch.manual_seed(1)
    stage = Autoencoder(CONFIG)
    condition = RepaintCondition(stage, SPACE, size=16)
    image = torch.rand(3, 3, 16, 16, generator=generator(1)) * 2 - 1
    mask = torch.ones(3, 16, 16, dtype=torch.uint8)
    mask[0, :, :7] = 0  # an odd number of columns: the cell they end in is drawn anew
    concat = condition({"image": image, "mask": mask}, generator(2)).concat
    assert concat is not None
    assert concat.shape == (3, 3, 8, 8)
    assert concat[0, 0, :, :3].eq(0).all()
    assert concat[0, 0, :, 3:].eq(1).all()
    assert concat[1:, 0].eq(1).all()
    with torch.no_grad():
        known = SPACE.wrap(stage.encode(image[:1] * (1 - mask[:1, None].float())).mean)
        gray = SPACE.wrap(stage.encode(torch.zeros(1, 3, 16, 16)).mean)
    assert torch.allclose(concat[:1, 1:], known, atol=1e-6)
    assert torch.allclose(concat[1:, 1:], gray.expand(2, -1, -1, -1), atol=1e-6)
    assert not concat.requires_grad
    assert not any(parameter.requires_grad for parameter in stage.parameters())
