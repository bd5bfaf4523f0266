"""Every network of latent-diffusion's zoo against CompVis's own modules: at full size every parameter and norm has its
counterpart, and small ones with random weights compute the same."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from compvis_oracle import CompVisAutoencoder, compvis_token_transformer, compvis_unet
from ldm.modules.encoders.modules import ClassEmbedder, SpatialRescaler
from network_oracles import assert_counterparts, difference, randomize
from torch import Tensor, nn

from tintype.common.keymap import KeyMap
from tintype.conditioning.class_label import ClassConditioner, ClassConfig
from tintype.conditioning.spatial import SpatialConditioner, SpatialConfig
from tintype.families import latent_diffusion as zoo
from tintype.families.ldm_names import (
    autoencoder_names,
    class_names,
    spatial_names,
    token_transformer_names,
    unet_names,
)
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig, Codes
from tintype.models.token_transformer import TokenTransformer, TokenTransformerConfig
from tintype.models.unet import UNet, UNetConfig

TOLERANCE = 1e-5
UNETS = {name: config for name, config in vars(zoo).items() if isinstance(config, UNetConfig)}
TRANSFORMERS = {
    "bert 1280": zoo.BERT_1280.encoder,
    "bert 640": zoo.BERT_640.encoder,
    "layout": zoo.OPENIMAGES_LAYOUT.encoder,
}
Triple = tuple[nn.Module, nn.Module, KeyMap]  # ours, theirs, the map between them


def unet(config: UNetConfig) -> Triple:
    return UNet(config), compvis_unet(config), unet_names(config, projection="conv")


def autoencoder(config: AutoencoderConfig) -> Triple:
    return Autoencoder(config), CompVisAutoencoder(config), autoencoder_names(config)


def transformer(config: TokenTransformerConfig) -> Triple:
    theirs = compvis_token_transformer(config)
    del theirs.to_logits
    return TokenTransformer(config), theirs, token_transformer_names(config)


FULL_SIZE: dict[str, Callable[[], Triple]] = {
    **{name: lambda config=config: unet(config) for name, config in UNETS.items()},
    **{name: lambda config=config: autoencoder(config) for name, config in zoo.FIRST_STAGES.items()},
    **{name: lambda config=config: transformer(config) for name, config in TRANSFORMERS.items()},
}


@pytest.mark.parametrize("build", FULL_SIZE.values(), ids=FULL_SIZE)
def test_every_parameter_and_norm_has_its_counterpart(build: Callable[[], Triple]) -> None:
    with torch.device("meta"):
        parts = build()
    assert_counterparts(*parts)


def filled(triple: Triple) -> tuple[nn.Module, nn.Module]:
    """Both with the oracle's random weights, ours through the names."""
    ours, theirs, names = triple
    randomize(theirs)
    ours.load_state_dict(names.to_ours(theirs.state_dict()))
    return ours.eval(), theirs


@pytest.mark.parametrize("config", UNETS.values(), ids=UNETS)
@torch.inference_mode()
def test_unets(config: UNetConfig) -> None:
    config = dataclasses.replace(config, width=32, context_dim=config.context_dim and 24)
    ours, theirs = filled(unet(config))
    side = 2 ** (len(config.mult) - 1)
    x, t = torch.randn(2, config.in_channels, side, 2 * side), torch.tensor([3.0, 801.0])
    context = torch.randn(2, 5, config.context_dim) if config.context_dim else None
    assert difference(ours(x, t, context), theirs(x, t, context)) <= TOLERANCE


@pytest.mark.parametrize("config", zoo.FIRST_STAGES.values(), ids=zoo.FIRST_STAGES)
@torch.inference_mode()
def test_first_stages(config: AutoencoderConfig) -> None:
    codebook = config.codebook_size and 40
    config = dataclasses.replace(config, width=32, num_blocks=1, codebook_size=codebook)
    ours, theirs = filled(autoencoder(config))
    image = torch.randn(1, 3, 2 * config.factor, 2 * config.factor)
    encoded, moments = ours.encode(image), theirs.moments(image)
    expected = moments if isinstance(encoded, Codes) else moments.chunk(2, dim=1)[0]
    assert difference(encoded.mean, expected) <= TOLERANCE
    assert difference(ours.decode(expected), theirs.decode(expected)) <= TOLERANCE


@pytest.mark.parametrize("config", TRANSFORMERS.values(), ids=TRANSFORMERS)
@torch.inference_mode()
def test_token_transformers(config: TokenTransformerConfig) -> None:
    config = dataclasses.replace(config, width=24, num_layers=3, vocabulary_size=50)
    ours, theirs = filled(transformer(config))
    ids = torch.randint(50, (2, config.context_length))
    assert difference(ours(ids), theirs(ids, return_embeddings=True)) <= TOLERANCE


@torch.inference_mode()
def test_classes() -> None:
    theirs = randomize(ClassEmbedder(8, n_classes=11, key="class"))
    ours = ClassConditioner(ClassConfig(num_classes=11, width=8))
    ours.load_state_dict(class_names().to_ours(theirs.state_dict()))
    expected = theirs({"class": torch.tensor([3, 10, 0])})
    assert torch.equal(context_of(ours([3, 10, 0]).context), expected)


@torch.inference_mode()
def test_class_maps() -> None:
    theirs = randomize(SpatialRescaler(n_stages=2, in_channels=7, out_channels=3))
    ours = SpatialConditioner(SpatialConfig(num_classes=7))
    ours.load_state_dict(spatial_names().to_ours(theirs.state_dict()))
    labels = torch.randint(7, (2, 16, 8))
    one_hot = torch.eye(7)[labels].permute(0, 3, 1, 2)
    assert difference(context_of(ours(labels).concat), theirs(one_hot)) <= TOLERANCE


def context_of(slot: Tensor | None) -> Tensor:
    assert slot is not None
    return slot
