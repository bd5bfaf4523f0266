import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tintype.common.rng import generator
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig, Posterior
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.objectives.autoencoding import AutoencodingConfig, AutoencodingObjective
from tintype.objectives.perceptual import FeatureDistance

TINY = AutoencoderConfig(latent_channels=8, width=16, mult=(1, 2), num_blocks=1, patch_size=2, norm_groups=4)


def distance() -> FeatureDistance:
    torch.manual_seed(5)
    return FeatureDistance(Classifier(ClassifierConfig(num_classes=4, image_size=16, widths=(8, 16), norm_groups=4)))


def eight_pictures() -> Tensor:
    """Smooth blobs of colour, 16 x 16."""
    coarse = torch.randn(8, 3, 4, 4, generator=generator("pictures"))
    return torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear").tanh()


@pytest.mark.parametrize(
    ("linear_shortcut", "with_features", "steps", "factor", "psnr"),
    [(False, False, 120, 4, 17), (True, True, 60, 8, 24)],
)
def test_eight_pictures_are_learned_by_heart(
    *, linear_shortcut: bool, with_features: bool, steps: int, factor: float, psnr: float
) -> None:
    torch.manual_seed(0)
    model = Autoencoder(
        AutoencoderConfig(
            latent_channels=8,
            width=16,
            mult=(1, 2),
            num_blocks=1,
            patch_size=2,
            norm_groups=4,
            linear_shortcut=linear_shortcut,
        )
    )
    features = distance() if with_features else None
    config = AutoencodingConfig(features=0.3 if with_features else 0.0, kl=1e-4)
    objective = AutoencodingObjective(model, config, features=features)
    batch = {"image": eight_pictures()}
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    judge = {} if features is None else {name: value.clone() for name, value in features.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.99))
    losses: list[float] = []
    metrics: dict[str, Tensor] = {}
    for step in range(steps):
        loss, metrics = objective.loss("autoencoder", batch, generator("train", step), step=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < losses[0] / factor
    assert metrics["psnr"] > psnr
    assert not any(value.requires_grad for value in metrics.values())
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert not torch.equal(value, start[name]), name
    if features is not None:
        assert all(torch.equal(value, judge[name]) for name, value in features.state_dict().items())
        assert all(value.grad is None and not value.requires_grad for value in features.parameters())


def test_the_divergence_is_that_of_normal_distributions() -> None:
    mean = 3 * torch.randn(2, 4, 3, 3, generator=generator(1), dtype=torch.float64)
    logvar = 4 * torch.randn(2, 4, 3, 3, generator=generator(2), dtype=torch.float64)
    expected = kl_divergence(Normal(mean, logvar.exp().sqrt()), Normal(torch.zeros(()), torch.ones(())))
    assert torch.allclose(Posterior(mean, logvar).kl(), expected)
    assert Posterior(torch.zeros(1), torch.zeros(1)).kl() == 0


def test_the_loss_by_hand() -> None:
    """In numpy, term by term, with the randomness the objective is documented to use."""
    torch.manual_seed(0)
    model, features = Autoencoder(TINY).eval(), distance()
    image = eight_pictures()[:3]
    config = AutoencodingConfig(l1=1.3, l2=0.7, edges=0.9, kl=0.02, features=0.4, features_from=10)
    objective = AutoencodingObjective(model, config, features=features)
    with torch.no_grad():
        loss, metrics = objective.loss("autoencoder", {"image": image}, generator("noise"), step=10)
        early, early_metrics = objective.loss("autoencoder", {"image": image}, generator("noise"), step=9)

        noise = torch.randn(3, 8, 4, 4, generator=generator("noise"))
        moments = model.quant_conv(model.encoder(image))
        mean, logvar = moments[:, :8], moments[:, 8:]
        decoded = model.decoder(model.post_quant_conv(mean + torch.exp(logvar / 2) * noise))
        apart = float(features(decoded, image).mean())
    out, real = decoded.double().numpy(), image.double().numpy()
    m, v = mean.double().numpy(), logvar.double().numpy()
    horizontal = (out[..., 1:] - out[..., :-1]) - (real[..., 1:] - real[..., :-1])
    vertical = (out[..., 1:, :] - out[..., :-1, :]) - (real[..., 1:, :] - real[..., :-1, :])
    terms = {
        "l1": np.abs(out - real).mean(),
        "l2": ((out - real) ** 2).mean(),
        "edges": np.abs(horizontal).mean() + np.abs(vertical).mean(),
        "kl": (0.5 * (m**2 + np.exp(v) - 1 - v)).mean(),
        "features": apart,
    }
    assert metrics.keys() == {*terms, "psnr"}
    for name, value in terms.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-4), name
    weighted = {name: getattr(config, name) * value for name, value in terms.items()}
    assert float(loss) == pytest.approx(sum(weighted.values()), rel=1e-4)
    assert float(metrics["psnr"]) == pytest.approx(
        20 * np.log10(2) - 10 * np.log10(((out.clip(-1, 1) - real) ** 2).mean()), rel=1e-4
    )
    assert "features" not in early_metrics
    assert float(early) == pytest.approx(sum(weighted.values()) - weighted["features"], rel=1e-4)


def test_a_feature_weight_needs_a_feature_network() -> None:
    with pytest.raises(ValueError, match=r"features weight 0\.1: a feature network is expected"):
        AutoencodingObjective(Autoencoder(TINY), AutoencodingConfig(features=0.1))


def test_the_loss_depends_on_the_given_generator_alone() -> None:
    torch.manual_seed(0)
    objective = AutoencodingObjective(Autoencoder(TINY), AutoencodingConfig())
    batch, state = {"image": eight_pictures()}, torch.get_rng_state()
    losses = [objective.loss("autoencoder", batch, generator("noise", seed), step=0)[0] for seed in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_codebook_needs_another_objective() -> None:
    with pytest.raises(ValueError, match="an autoencoder with a codebook: this objective expects a Gaussian latent"):
        AutoencodingObjective(Autoencoder(dataclasses.replace(TINY, codebook_size=8)), AutoencodingConfig())
