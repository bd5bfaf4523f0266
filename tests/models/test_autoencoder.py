"""The autoencoder against diffusers on small random weights, and what it promises besides."""

import dataclasses

import pytest
import torch
from network_oracles import difference, randomize, their_autoencoder
from torch import nn

from tintype.families.diffusers_names import autoencoder_names
from tintype.families.stable_diffusion import KL_F8
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig, Posterior

TOLERANCE = 1e-5

SMALL = AutoencoderConfig(width=8, mult=(1, 2, 4, 4), norm_groups=4)  # KL-f8
EVERY = {
    "kl-f8": SMALL,
    "attention at two levels": dataclasses.replace(SMALL, mult=(1, 2, 2), num_blocks=1, attention_levels=(0, 2)),
    "no attention": dataclasses.replace(SMALL, mult=(1, 2), latent_channels=3, middle_attention=False),
    "one level": dataclasses.replace(SMALL, mult=(1,), image_channels=4, num_blocks=3, attention_levels=(0,)),
}
every = pytest.mark.parametrize("config", EVERY.values(), ids=EVERY)


def test_parameter_count_is_the_published_one() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Autoencoder(KL_F8).parameters()) == 83_653_863


@every
@torch.inference_mode()
def test_equals_diffusers(config: AutoencoderConfig) -> None:
    theirs = randomize(their_autoencoder(config))
    ours = Autoencoder(config).eval()
    ours.load_state_dict(autoencoder_names(config).to_ours(theirs.state_dict()))
    image = torch.randn(2, config.image_channels, 4 * config.factor, 3 * config.factor)
    posterior, expected = ours.encode(image), theirs.encode(image).latent_dist
    assert difference(posterior.mean, expected.mean) <= TOLERANCE
    assert difference(posterior.logvar, expected.logvar) <= TOLERANCE
    assert difference(ours.decode(posterior.mean), theirs.decode(expected.mean).sample) <= TOLERANCE


@pytest.mark.parametrize("patch_size", [1, 2, 4])
@pytest.mark.parametrize("linear_shortcut", [False, True])
@torch.inference_mode()
def test_shapes_make_the_round_trip(patch_size: int, linear_shortcut: bool) -> None:
    config = dataclasses.replace(SMALL, mult=(1, 2), patch_size=patch_size, linear_shortcut=linear_shortcut)
    autoencoder = randomize(Autoencoder(config))
    assert config.factor == 2 * patch_size
    image = torch.randn(2, 3, 3 * config.factor, 5 * config.factor)
    posterior = autoencoder.encode(image)
    assert posterior.mean.shape == posterior.logvar.shape == (2, 4, 3, 5)
    decoded, again = autoencoder(image, torch.zeros(2, 4, 3, 5))
    assert decoded.shape == image.shape
    assert torch.equal(again.mean, posterior.mean)
    assert torch.equal(decoded, autoencoder.decode(posterior.mean))


@every
@torch.inference_mode()
def test_pictures_stay_channels_last(config: AutoencoderConfig) -> None:
    autoencoder = randomize(Autoencoder(config))
    for name, module in autoencoder.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last), name
            module.register_forward_hook(expect_channels_last)
    decoded = autoencoder.decode(autoencoder.encode(torch.randn(2, config.image_channels, 32, 16)).mean)
    assert decoded.is_contiguous(memory_format=torch.channels_last)


def expect_channels_last(module: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
    assert given[0].is_contiguous(memory_format=torch.channels_last), module
    assert out.is_contiguous(memory_format=torch.channels_last), module


@pytest.mark.parametrize("size", [(16, 12), (20, 16)], ids=str)
def test_sides_that_do_not_divide_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="both sides must be multiples of 8"):
        Autoencoder(SMALL).encode(torch.zeros(1, 3, *size))


def test_posterior_is_a_gaussian() -> None:
    mean, logvar = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    posterior = Posterior(mean, logvar)
    ours = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    kl = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(posterior.kl(), kl)
    noise = torch.randn_like(mean)
    torch.testing.assert_close(posterior.sample(noise), mean + ours.stddev * noise)


def test_an_overflowing_variance_is_held() -> None:
    autoencoder = Autoencoder(dataclasses.replace(SMALL, mult=(1,)))
    nn.init.constant_(autoencoder.quant_conv.bias, 1e4)
    assert autoencoder.encode(torch.zeros(1, 3, 8, 8)).logvar.max() == 20
