"""The autoencoder against diffusers on small random weights, and what it promises besides."""

import dataclasses
from typing import Any

import pytest
import torch
from network_oracles import difference, randomize, their_autoencoder
from torch import nn

from tintype.families.diffusers_names import autoencoder_names
from tintype.families.stable_diffusion import KL_F8
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig, Codes, Posterior, looked_up

TOLERANCE = 1e-5

SMALL = AutoencoderConfig(width=8, mult=(1, 2, 4, 4), norm_groups=4)  # KL-f8
EVERY = {
    "kl-f8": SMALL,
    "attention at two levels": dataclasses.replace(SMALL, mult=(1, 2, 2), num_blocks=1, attention_levels=(0, 2)),
    "no attention": dataclasses.replace(SMALL, mult=(1, 2), latent_channels=3, middle_attention=False),
    "vq, attention at the coarsest": dataclasses.replace(
        SMALL, mult=(1, 2, 2), attention_levels=(2,), codebook_size=48
    ),
    "vq, no attention": dataclasses.replace(SMALL, latent_channels=3, middle_attention=False, codebook_size=17),
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
    encoded = ours.encode(image)
    if isinstance(encoded, Codes):
        expected_latent = theirs.encode(image).latents
        assert difference(encoded.latent, expected_latent) <= TOLERANCE
        assert len(encoded.indices.unique()) > 3  # a codebook of which one code is used would hide a wrong place
        assert difference(ours.decode(expected_latent), theirs.decode(expected_latent).sample) <= TOLERANCE
        return
    posterior, expected = encoded, theirs.encode(image).latent_dist
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 0}, "width 0: expected 1 or more"),
        ({"patch_size": 0}, "patch_size 0: expected 1 or more"),
        ({"norm_groups": 0}, "norm_groups 0: expected 1 or more"),
        ({"mult": ()}, r"mult \(\): expected a level or more"),
        ({"mult": (1, 0)}, r"mult \(1, 0\): expected .* of 1 or more each"),
        ({"num_blocks": -1}, "num_blocks -1: expected 0 or more"),
        ({"norm_groups": 7}, "norm_groups 7: 16 channels do not divide into as many; .*, such as 1"),
        ({"norm_groups": 12, "mult": (3, 2)}, "norm_groups 12: 32 channels .* such as 4"),
        ({"attention_levels": (2,)}, r"attention_levels \(2,\): expected some of 0 to 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    sizes: dict[str, Any] = {"width": 16, "mult": (1, 2), "norm_groups": 8}
    with pytest.raises(ValueError, match=said):
        Autoencoder(AutoencoderConfig(**(sizes | changes)))


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


VQ = dataclasses.replace(SMALL, mult=(1, 2), latent_channels=3, codebook_size=29)


@torch.inference_mode()
def test_codes_are_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = Codes(torch.randn(2, 3, 5, 4), torch.randn(29, 3))
    distances = torch.cdist(codes.latent.permute(0, 2, 3, 1).double(), codes.codebook.double())
    assert codes.indices.dtype == torch.int64
    assert torch.equal(codes.indices, distances.argmin(dim=-1))
    monkeypatch.setattr("tintype.models.autoencoder.PLACES_AT_ONCE", 7)
    assert torch.equal(codes.indices, distances.argmin(dim=-1))
    for place in ((0, 1, 2), (1, 4, 3)):
        row, y, x = place
        assert torch.equal(codes.quantised[row, :, y, x], codes.codebook[codes.indices[place]])


@torch.inference_mode()
def test_decoding_quantises_once() -> None:
    """Codes stay what they are; `quantise=False` takes a latent as it is (LDM's force_not_quantize)."""
    autoencoder = randomize(Autoencoder(VQ))
    encoded = autoencoder.encode(torch.randn(2, 3, 8, 8))
    assert isinstance(encoded, Codes)
    decoded = autoencoder.decode(encoded.latent)
    assert torch.equal(autoencoder.decode(encoded.quantised), decoded)
    assert torch.equal(autoencoder.decode(encoded.quantised, quantise=False), decoded)
    as_it_is = autoencoder.decode(encoded.latent, quantise=False)
    assert torch.equal(as_it_is, autoencoder.decoder(autoencoder.post_quant_conv(encoded.latent)))
    assert difference(as_it_is, decoded) > 1e-2


def test_codes_are_a_point_as_a_distribution() -> None:
    latent = torch.randn(2, 3, 4, 4)
    codes = Codes(latent, torch.randn(5, 3))
    assert torch.equal(codes.mean, latent)
    assert torch.equal(codes.sample(torch.randn_like(latent)), latent)
    assert not codes.std.any()


def test_half_precision_codes_are_looked_for_in_single() -> None:
    """100 and 100.25 are apart in half precision; their squares are not."""
    codebook = torch.tensor([[100.0], [100.25]]).half()
    latent = torch.tensor([[[[100.1, 100.2]]]]).half()
    codes = Codes(latent, codebook)
    assert codes.indices.tolist() == [[[0, 1]]]
    assert codes.quantised.dtype == torch.float16
    assert torch.equal(looked_up(codes.indices, codebook), torch.tensor([[[[100.0, 100.25]]]]).half())


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_codebook_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"codebook_size {size}: expected 1 or more, or none"):
        AutoencoderConfig(codebook_size=size)
