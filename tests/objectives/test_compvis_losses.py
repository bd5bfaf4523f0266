"""The first stage's loss against CompVis's own on the same weights: every term, the adaptive weight, gradients."""

from collections.abc import Mapping
from typing import Literal

import pytest
import torch
from compvis_losses import compvis_losses
from critic_oracle import take_weights
from diffusers.models.autoencoders.vq_model import VectorQuantizer
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from torch import Tensor, nn

from tintype.common.rng import generator
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig, Codes, Posterior
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.models.critic import Critic, CriticConfig
from tintype.objectives.adversarial import AdversarialConfig
from tintype.objectives.autoencoding import AutoencodingConfig, AutoencodingObjective
from tintype.objectives.codebook import CodebookConfig
from tintype.objectives.perceptual import FeatureDistance

TOLERANCE = 1e-5
START = 10
SMALL = AutoencoderConfig(latent_channels=3, width=8, mult=(1, 2), num_blocks=1, norm_groups=4)
VQ = AutoencoderConfig(latent_channels=3, width=8, mult=(1, 2), num_blocks=1, norm_groups=4, codebook_size=24)
IMAGE = torch.rand(2, 3, 24, 24, generator=generator("pictures")) * 2 - 1


@pytest.fixture(scope="module")
def distance() -> FeatureDistance:
    torch.manual_seed(5)
    return FeatureDistance(Classifier(ClassifierConfig(num_classes=4, image_size=24, widths=(8, 16), norm_groups=4)))


def close(ours: Tensor, theirs: Tensor) -> None:
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=TOLERANCE)


def assert_gradients(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    apart = torch.cat([(ours[name] - gradient).flatten() for name, gradient in theirs.items()]).norm()
    assert apart <= TOLERANCE * torch.cat([gradient.flatten() for gradient in theirs.values()]).norm()


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    learning = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss, list(learning.values()), allow_unused=True, retain_graph=True)
    return {name: value for name, value in zip(learning, found, strict=True) if value is not None}


def objective(
    model: AutoencoderConfig, config: AutoencodingConfig, distance: FeatureDistance, theirs: nn.Module, layers: int
) -> AutoencodingObjective:
    torch.manual_seed(0)
    autoencoder = Autoencoder(model)
    for parameter in autoencoder.parameters():  # away from zeros
        nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    if autoencoder.codebook is not None:
        nn.init.normal_(autoencoder.codebook.weight)
    nn.init.constant_(theirs.main[-1].bias, 0.7)  # answers that do not cancel out
    critic = Critic(CriticConfig(num_layers=layers))
    take_weights(critic, theirs)
    return AutoencodingObjective(autoencoder, config, features=distance, critic=critic)


@pytest.mark.parametrize(
    ("step", "logvar", "kind"), [(START, 0.0, "hinge"), (START, -1.3, "vanilla"), (START - 1, -1.3, "hinge")]
)
def test_a_gaussian_latent(
    distance: FeatureDistance, step: int, logvar: float, kind: Literal["hinge", "vanilla"]
) -> None:
    torch.manual_seed(0)
    theirs = compvis_losses(distance)[0](START, logvar_init=logvar, kl_weight=1e-2, disc_weight=0.5, disc_loss=kind)
    config = AutoencodingConfig(
        l2=0.0,
        edges=0.0,
        kl=1e-2,
        features=1.0,
        pixel_sums=True,
        logvar=logvar,
        learn_logvar=True,
        adversarial=AdversarialConfig(start=START, loss=kind),
    )
    ours = objective(SMALL, config, distance, theirs.discriminator, 3)
    total, told = ours.loss("autoencoder", {"image": IMAGE}, generator("noise"), step=step)

    model = ours.model.autoencoder
    encoded = model.encode(IMAGE)
    assert isinstance(encoded, Posterior)
    decoded = model.decode(encoded.sample(torch.randn(encoded.mean.shape, generator=generator("noise"))))
    posterior = DiagonalGaussianDistribution(torch.cat((encoded.mean, encoded.logvar), dim=1))
    last = model.decoder.conv_out.weight
    expected, log = theirs(IMAGE, decoded, posterior, 0, step, last_layer=last)
    close(total, expected)
    close(told["l1"] + told["features"], log["train/rec_loss"])
    close(told["kl"] * encoded.mean[0].numel(), log["train/kl_loss"])
    close(told["logvar"], log["train/logvar"])
    assert ("adversarial" in told) == (step >= START)
    if step >= START:
        close(told["adversarial"], log["train/g_loss"])
        close(told["adaptive weight"], log["train/d_weight"])
    assert_gradients(gradients(total, model), gradients(expected, model))
    [own] = torch.autograd.grad(total, ours.model.logvar, retain_graph=True)
    [other] = torch.autograd.grad(expected, theirs.logvar, retain_graph=True)
    close(own, other)
    total.backward()
    assert ours.critic is not None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in ours.critic.parameters())

    critic, told = ours.loss("critic", {"image": IMAGE}, generator("noise"), step=step)
    expected, log = theirs(IMAGE, decoded, posterior, 1, step)
    close(critic, expected)
    if step >= START:
        close(told["real"], log["train/logits_real"])
        close(told["fake"], log["train/logits_fake"])
        assert float(critic.detach()) > 0
    scale = sum(value.norm() for value in gradients(expected, theirs).values())
    own_scale = sum(value.norm() for value in gradients(critic, ours.critic).values())
    close(own_scale, scale)


@pytest.mark.parametrize(("step", "legacy"), [(START, True), (START, False), (START - 1, True)])
def test_a_codebook(distance: FeatureDistance, step: int, legacy: bool) -> None:
    torch.manual_seed(0)
    theirs = compvis_losses(distance)[1](
        START, disc_num_layers=2, disc_weight=0.75, pixel_loss="l2" if legacy else "l1", n_classes=24
    )
    config = AutoencodingConfig(
        l1=0.0 if legacy else 1.0,
        l2=1.0 if legacy else 0.0,
        edges=0.0,
        features=1.0,
        codebook=CodebookConfig(legacy=legacy, revive_below=0.0),
        adversarial=AdversarialConfig(weight=0.75, start=START),
    )
    ours = objective(VQ, config, distance, theirs.discriminator, 2)
    total, told = ours.loss("autoencoder", {"image": IMAGE}, generator("noise"), step=step)

    model = ours.model.autoencoder
    encoded = model.encode(IMAGE)
    assert isinstance(encoded, Codes)
    quantizer = VectorQuantizer(24, 3, beta=0.25, legacy=legacy, sane_index_shape=True)
    quantizer.embedding.weight = encoded.codebook
    straight, codebook_loss, (_, _, indices) = quantizer(encoded.latent)
    decoded = model.decode(straight, quantise=False)
    last = model.decoder.conv_out.weight
    expected, log = theirs(codebook_loss, IMAGE, decoded, 0, step, last_layer=last, predicted_indices=indices)
    close(total, expected)
    close(told["codebook"], log["train/quant_loss"])
    close(told["features"], log["train/p_loss"])
    if step >= START:
        close(told["adversarial"], log["train/g_loss"])
        close(told["adaptive weight"], log["train/d_weight"])
    assert_gradients(gradients(total, model), gradients(expected, model))
    assert "codebook.weight" in gradients(total, model)

    settled = ours.settle("autoencoder", Alone())
    close(settled["usage"] * 24, log["train/cluster_usage"])
    assert float(settled["perplexity"]) == pytest.approx(float(log["train/perplexity"]), rel=1e-4)
    assert log["train/cluster_usage"] >= 3
    assert ours.settle("critic", Alone()) == {}


class Alone:
    def total(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor[None]
