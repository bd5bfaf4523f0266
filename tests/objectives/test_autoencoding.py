import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tintype.common.rng import generator
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig, Posterior
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.models.critic import Critic, CriticConfig
from tintype.objectives.adversarial import AdversarialConfig
from tintype.objectives.autoencoding import AutoencodingConfig, AutoencodingObjective
from tintype.objectives.codebook import CodebookConfig
from tintype.objectives.perceptual import FeatureDistance

TINY = AutoencoderConfig(latent_channels=8, width=16, mult=(1, 2), num_blocks=1, patch_size=2, norm_groups=4)
PLAYED = AutoencodingConfig(adversarial=AdversarialConfig(start=0))


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


def test_the_codebooks_term_counts_as_its_weight_says() -> None:
    found: list[tuple[float, float]] = []
    for weight in (1.0, 0.25):
        torch.manual_seed(0)
        model = Autoencoder(dataclasses.replace(TINY, codebook_size=16))
        objective = AutoencodingObjective(model, AutoencodingConfig(codebook=CodebookConfig(weight=weight)))
        loss, told = objective.loss("autoencoder", {"image": eight_pictures()}, generator("noise"), step=0)
        found.append((float(loss.detach()), float(told["codebook"])))
    (whole, term), (less, same) = found
    assert term == same > 0
    assert whole - less == pytest.approx(0.75 * term, rel=1e-3)


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


class Alone:
    """One process."""

    def total(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor[None]


def learn(
    objective: AutoencodingObjective, image: Tensor, steps: int, *, rate: float = 1e-2, parts: Sequence[str] = ()
) -> list[dict[str, float]]:
    """What the training loop does, with one batch; some parts, or all of them."""
    optimizers = {
        part: torch.optim.Adam([one for one in module.parameters() if one.requires_grad], lr=rate, betas=(0.5, 0.9))
        for part, module in objective.parts.items()
        if not parts or part in parts
    }
    told: list[dict[str, float]] = []
    for step in range(steps):
        every: dict[str, Tensor] = {}
        for part, optimizer in optimizers.items():
            loss, metrics = objective.loss(part, {"image": image}, generator("learn", part, step), step=step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            every |= {f"{part} loss": loss.detach(), **metrics, **objective.settle(part, Alone())}
        assert not any(value.requires_grad for value in every.values())
        told.append({name: float(value) for name, value in every.items()})
    return told


def smooth(size: int) -> Tensor:
    """Eight pictures."""
    coarse = torch.randn(8, 3, 4, 4, generator=generator("large"))
    return torch.nn.functional.interpolate(coarse, scale_factor=size // 4, mode="bilinear").tanh()


def small(mult: tuple[int, ...], channels: int, codes: int | None = None, *, patch_size: int = 1) -> Autoencoder:
    torch.manual_seed(0)
    config = AutoencoderConfig(
        latent_channels=channels,
        width=8,
        mult=mult,
        num_blocks=1,
        patch_size=patch_size,
        norm_groups=4,
        middle_attention=False,
        linear_shortcut=True,
        codebook_size=codes,
    )
    return Autoencoder(config)


KINDS = {
    "kl": (None, CodebookConfig()),
    "vq": (32, CodebookConfig(decay=0.8, revive_below=0.2)),
    "vq of averages": (32, CodebookConfig(learning="average", decay=0.8, revive_below=0.2)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_learns_eight_pictures_against_a_critic(kind: str) -> None:
    """The critic comes in at step 15; nothing falls apart."""
    codes, codebook = KINDS[kind]
    config = AutoencodingConfig(
        kl=1e-4, codebook=codebook, learn_logvar=True, adversarial=AdversarialConfig(weight=0.2, start=15)
    )
    critic = Critic(CriticConfig(width=8, num_layers=1))
    objective = AutoencodingObjective(small((1,), 8, codes, patch_size=2), config, critic=critic)
    before = {name: value.detach().clone() for name, value in critic.named_parameters()}
    told = learn(objective, smooth(16), 30)
    assert {one["critic loss"] for one in told[:15]} == {0}
    assert "adversarial" not in told[14]
    assert not any("real" in one for one in told[:15])
    for one in told[15:]:
        assert 0 < one["adaptive weight"] <= 0.2 * 1e4
        assert 0.5 < one["critic loss"] < 1.5
    for name, value in critic.named_parameters():
        assert not torch.equal(value, before[name]), name
    assert told[0]["psnr"] < 12
    assert told[-1]["psnr"] > 16
    assert told[-1]["logvar"] < -0.1
    if codes is not None:
        assert told[-1]["usage"] > 0.5
        assert told[-1]["perplexity"] > 8
        assert sum(one["revived"] for one in told) > 0


def test_the_critic_learns_to_tell_the_eight_from_their_copies() -> None:
    torch.manual_seed(1)
    critic = Critic(CriticConfig(width=8, num_layers=1))
    objective = AutoencodingObjective(small((1,), 8, patch_size=2), PLAYED, critic=critic)
    model = {name: value.clone() for name, value in objective.model.state_dict().items()}
    told = learn(objective, smooth(16), 30, parts=["critic"])
    assert told[0]["critic loss"] == pytest.approx(1, abs=0.1)
    assert told[-1]["critic loss"] < 0.3
    assert told[-1]["real"] > 0.5 > -0.5 > told[-1]["fake"]
    assert all(torch.equal(value, model[name]) for name, value in objective.model.state_dict().items())


@pytest.mark.parametrize(
    ("levels", "channels", "codes"),
    [(1, 4, None), (2, 4, None), (3, 4, None), (4, 16, None), (5, 16, None), (6, 32, None), (4, 16, 48)],
    ids=["kl-f1", "kl-f2", "kl-f4", "kl-f8", "kl-f16", "kl-f32", "vq-f8"],
)
def test_every_downsampling_factor_learns_eight_pictures(levels: int, channels: int, codes: int | None) -> None:
    config = AutoencodingConfig(kl=1e-5, codebook=CodebookConfig(learning="average", decay=0.8, revive_below=0.2))
    objective = AutoencodingObjective(small((1,) * levels, channels, codes), config)
    deep = levels == 6
    told = learn(objective, smooth(32 if deep else 16), 30 if deep else 20, rate=5e-3 if deep else 1e-2)
    assert told[0]["psnr"] < 12
    assert told[-1]["psnr"] > 14.5


def test_a_critic_and_its_term_come_together() -> None:
    for config, critic in ((AutoencodingConfig(), Critic(CriticConfig(width=4))), (PLAYED, None)):
        with pytest.raises(ValueError, match="a critic and an adversarial term are expected together"):
            AutoencodingObjective(Autoencoder(TINY), config, critic=critic)
    with pytest.raises(ValueError, match=r"adversarial weight 0, start 0: expected a weight above 0"):
        AdversarialConfig(weight=0, start=0)


def test_in_bfloat16_terms_and_weights_are_float32_and_close() -> None:
    """The adaptive weight as well, whose gradients go through a low-precision graph."""
    for size in (None, 16):
        torch.manual_seed(0)
        model = Autoencoder(dataclasses.replace(TINY, codebook_size=size))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
        objective = AutoencodingObjective(model, PLAYED, critic=Critic(CriticConfig(width=8, num_layers=1)))
        batch = {"image": smooth(16)}
        found: list[dict[str, Tensor]] = []
        for low in (False, True):
            every: dict[str, Tensor] = {}
            for part in objective.parts:
                with torch.autocast("cpu", torch.bfloat16, enabled=low):
                    loss, metrics = objective.loss(part, batch, generator("noise"), step=0)
                loss.backward()
                every |= {f"{part} loss": loss.detach(), **metrics}
            assert all(value.dtype == torch.float32 for value in every.values())
            found.append(every)
        for name, value in found[0].items():
            assert float(found[1][name]) == pytest.approx(float(value), rel=0.1, abs=0.02), (name, size)
