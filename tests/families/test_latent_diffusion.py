"""The released networks are as large as published; that they are CompVis's stands in tests/models/test_compvis.py."""

import pytest
import torch
from torch import nn

from tintype.common.config import from_json, to_json
from tintype.diffusion.schedule import DDPMConfig
from tintype.families import latent_diffusion as zoo
from tintype.families.base import Family, FamilyConfig, make_conditioner
from tintype.families.detect import AUTOENCODER, detect, fitted, tells
from tintype.families.shapes import autoencoder_config, below
from tintype.families.single_file import names
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.token_transformer import TokenTransformer
from tintype.models.unet import UNet, UNetConfig

# Millions of parameters: the paper's tables 10, 12, 15 and, of inpainting_big, section 4.5 (arXiv 2112.10752v2). The
# released super-resolution model is a smaller one than table 15's.
PUBLISHED_UNETS = {
    "unconditional": (zoo.FACES_UNET, 274),
    "churches": (zoo.CHURCHES_UNET, 294),
    "ImageNet, f 8": (zoo.IMAGENET_F8_UNET, 395),
    "ImageNet, f 4": (zoo.IMAGENET_UNET, 400),
    "inpainting, big": (zoo.INPAINTING_UNET, 387),
    "semantic synthesis": (zoo.SEMANTIC_UNET, 215),
}


def millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


@pytest.mark.parametrize(("config", "published"), PUBLISHED_UNETS.values(), ids=PUBLISHED_UNETS)
def test_unets_are_as_large_as_published(config: UNetConfig, published: int) -> None:
    with torch.device("meta"):
        assert abs(millions(UNet(config)) - published) < 1  # rounded there, or cut


def test_text_to_image_has_1450_million_parameters() -> None:
    """U-Net, encoder and the encoder's head, which predicts words and is never used."""
    encoder = zoo.BERT_1280.encoder
    with torch.device("meta"):
        head = nn.Linear(encoder.width, encoder.vocabulary_size)
        networks = (UNet(zoo.TEXT_UNET), TokenTransformer(encoder), head)
        assert sum(map(millions, networks)) == pytest.approx(1454.29, abs=0.01)


FACTORS = {name: int(name.split("-f")[1].split("-")[0]) for name in zoo.FIRST_STAGES if "-f" in name}


@pytest.mark.parametrize(("name", "factor"), FACTORS.items())
def test_first_stages_have_the_factor_of_their_name(name: str, factor: int) -> None:
    assert zoo.FIRST_STAGES[name].factor == factor


def test_kl_f8_has_84_million_parameters() -> None:
    with torch.device("meta"):
        assert millions(Autoencoder(AutoencoderConfig())) == pytest.approx(83.65, abs=0.01)
        assert millions(Autoencoder(zoo.VQ_F4)) == pytest.approx(55.32, abs=0.01)


# As the released files put it: in_channels, model_channels, channel_mult, attention_resolutions, num_heads or
# num_head_channels, context_dim, transformer_depth, linear_end; and what is set beside
RELEASED = {
    "models/ldm/celeba256": (3, 224, (1, 2, 3, 4), (8, 4, 2), {"head_dim": 32}, None, 1, 0.0195),
    "models/ldm/lsun_churches256": (4, 192, (1, 2, 2, 4, 4), (1, 2, 4, 8), {"num_heads": 8}, None, 1, 0.0155),
    "models/ldm/cin256": (4, 256, (1, 2, 4), (4, 2, 1), {"head_dim": 32}, 512, 1, 0.0195),
    "configs/latent-diffusion/cin256-v2": (3, 192, (1, 2, 3, 5), (8, 4, 2), {"num_heads": 1}, 512, 1, 0.0195),
    "configs/latent-diffusion/txt2img-1p4B-eval": (4, 320, (1, 2, 4, 4), (4, 2, 1), {"num_heads": 8}, 1280, 1, 0.012),
    "models/ldm/text2img256": (3, 192, (1, 2, 3, 5), (8, 4, 2), {"head_dim": 32}, 640, 1, 0.0195),
    "models/ldm/layout2img-openimages256": (3, 128, (1, 2, 3, 4), (8, 4, 2), {"head_dim": 32}, 512, 3, 0.0205),
    "models/ldm/inpainting_big": (7, 256, (1, 2, 3, 4), (8, 4, 2), {"num_heads": 8}, None, 1, 0.0205),
    "models/ldm/bsr_sr": (6, 160, (1, 2, 2, 4), (16, 8), {"head_dim": 32}, None, 1, 0.0155),
    "models/ldm/semantic_synthesis256": (6, 128, (1, 4, 8), (32, 16, 8), {"num_heads": 8}, None, 1, 0.0205),
}
BESIDE: dict[str, dict[str, bool]] = {
    "models/ldm/lsun_churches256": {"scale_shift": True, "resample_in_blocks": True},
    "models/ldm/inpainting_big": {"resample_in_blocks": True},
}


@pytest.mark.parametrize(("file", "family"), list(zip(RELEASED, zoo.FAMILIES, strict=True)), ids=RELEASED)
def test_configurations_are_the_released_ones(file: str, family: Family) -> None:
    """Attention stands where the downsampling factor is one of `attention_resolutions`, and in the middle always."""
    in_channels, width, mult, factors, heads, context_dim, blocks, last_beta = RELEASED[file]
    expected = UNetConfig(
        in_channels=in_channels,
        out_channels=family.config.autoencoder.latent_channels,
        width=width,
        mult=mult,
        depth=tuple(blocks * (2**level in factors) for level in range(len(mult))),
        middle_depth=blocks,
        context_dim=context_dim,
        **{"num_heads": None, **heads},
        **BESIDE.get(file, {}),
    )
    assert family.config.unet == expected
    assert isinstance(family.config.schedule, DDPMConfig)
    assert family.config.schedule.end == last_beta
    assert family.config.schedule.start == (0.00085 if "txt2img" in file else 0.0015)
    assert family.config.schedule.betas == "scaled_linear"  # LDM's "linear"
    assert family.averaged == ("cin256-v2" not in file and "txt2img" not in file)  # use_ema


every_family = pytest.mark.parametrize("family", zoo.FAMILIES, ids=lambda family: family.config.name)


@every_family
def test_configurations_come_back_from_json(family: Family) -> None:
    """Which conditioner it is shows in the fields alone."""
    assert from_json(FamilyConfig, to_json(family.config)) == family.config


@every_family
def test_a_file_is_told_and_its_networks_are_read_from_its_shapes(family: Family) -> None:
    """What the names and shapes of a file at full size say is what CompVis's configuration says."""
    config = family.config
    with torch.device("meta"):
        networks = {"unet": UNet(config.unet), "autoencoder": Autoencoder(config.autoencoder)}
        if config.conditioner is not None:
            networks["conditioner"] = make_conditioner(config.conditioner)
    ours = {f"{part}.{name}": tensor for part, one in networks.items() for name, tensor in one.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in names(config, family).to_theirs(ours).items()}
    autoencoder = autoencoder_config(below(shapes, AUTOENCODER))
    found = detect(tells(shapes, autoencoder))
    assert found == family
    assert fitted(shapes, found, autoencoder) == config
