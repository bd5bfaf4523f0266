from typing import Literal, cast, get_args

import pytest
import torch
from tiny_diffusion import CONDITIONS, WORDS, condition, eight_samples, randomised, tiny
from torch import Tensor

from tintype.common.rng import generator
from tintype.conditioning.class_label import ClassConditioner, ClassConfig
from tintype.diffusion.denoiser import Conditioning, Denoiser
from tintype.diffusion.draws import DrawsConfig, draw
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.scaling import SCALINGS, Prediction
from tintype.diffusion.schedule import DDPM, EDM, DDPMConfig, EDMConfig, Flow, FlowConfig, Schedule
from tintype.diffusion.weighting import WEIGHTINGS, Law, WeightingConfig, answer_weights
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig, Posterior
from tintype.objectives.conditions import ClassCondition, Frozen, TextCondition, together
from tintype.objectives.denoising import DenoisingConfig, DenoisingObjective

SCHEDULES: dict[str, Schedule] = {"ddpm": DDPM(DDPMConfig()), "edm": EDM(EDMConfig()), "flow": Flow(FlowConfig())}
SD = {"schedule": SCHEDULES["ddpm"], "scaling": SCALINGS["eps"]}
NEAR_EDM = EDM(EDMConfig(log_mean=0.7, log_std=0.8))


def objective_of(
    steered: str = "text",
    *,
    dropout: float = 0.0,
    schedule: Schedule | None = None,
    prediction: Prediction = "eps",
    config: DenoisingConfig | None = None,
) -> DenoisingObjective:
    unet, conditions = tiny(steered, dropout=dropout)
    return DenoisingObjective(
        unet, conditions, schedule=schedule or SCHEDULES["ddpm"], scaling=SCALINGS[prediction], config=config
    )


def _weighted(law: Law, draws: DrawsConfig | None = None) -> DenoisingConfig:
    return DenoisingConfig(weighting=WeightingConfig(law=law), draws=draws or DrawsConfig())


def learned(objective: DenoisingObjective, *, steps: int = 60) -> float:
    """How many times smaller the loss of eight samples is after some steps; every weight must have moved."""
    few, many = (
        {name: value.repeat(times, *[1] * (value.ndim - 1)) for name, value in eight_samples().items()}
        for times in (2, 16)
    )
    model = objective.parts["diffusion"]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.99), fused=True)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}

    def measured() -> float:
        with torch.no_grad():
            return float(objective.loss("diffusion", many, generator("test"), step=0)[0])

    before = measured()
    for step in range(steps):
        loss, metrics = objective.loss("diffusion", few, generator("train", step), step=step)
        assert not metrics
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert not torch.equal(value, start[name]), name
    return before / measured()


LOG_NORMAL = DrawsConfig(law="log_normal", mean=0.7, std=0.8)
ZERO_TERMINAL = DDPM(DDPMConfig(zero_terminal_snr=True))
OVERFIT = [  # each way of steering, prediction, schedule, law of weights and of draws, distance; the factor
    ("class", "eps", SCHEDULES["ddpm"], DenoisingConfig(), 3.0),
    ("text", "v", SCHEDULES["ddpm"], _weighted("min_snr"), 1.5),
    ("layout", "x0", SCHEDULES["ddpm"], DenoisingConfig(distance="l1"), 1.3),
    ("spatial", "flow", SCHEDULES["flow"], DenoisingConfig(draws=DrawsConfig(law="logit_normal")), 1.5),
    ("concat", "edm", NEAR_EDM, _weighted("edm"), 4.0),
    ("text spatial", "v", ZERO_TERMINAL, _weighted("debiased"), 1.5),
    ("class layout", "x0", SCHEDULES["ddpm"], DenoisingConfig(distance="huber"), 1.5),
    ("none", "eps", SCHEDULES["ddpm"], DenoisingConfig(offset_noise=0.1, input_perturbation=0.1), 1.5),
    ("text", "v", SCHEDULES["edm"], _weighted("soft_min_snr", LOG_NORMAL), 1.5),
    ("class", "x0", SCHEDULES["ddpm"], _weighted("snr", LOG_NORMAL), 1.5),
    ("concat", "x0", SCHEDULES["ddpm"], _weighted("p2", DrawsConfig(law="mode")), 10.0),
]


@pytest.mark.parametrize(("steered", "prediction", "schedule", "config", "factor"), OVERFIT)
def test_eight_samples_are_learned_by_heart(
    steered: str, prediction: Prediction, schedule: Schedule, config: DenoisingConfig, factor: float
) -> None:
    assert learned(objective_of(steered, schedule=schedule, prediction=prediction, config=config)) > factor


def test_everything_that_can_be_trained_is_learned_by_heart() -> None:
    steered, predictions, _, configs, _ = zip(*OVERFIT, strict=True)
    assert set(steered) == set(CONDITIONS)
    assert set(predictions) == set(SCALINGS)
    assert {config.weighting.law for config in configs} == set(get_args(Law))
    assert {config.draws.law for config in configs} == {"schedule", "logit_normal", "mode", "log_normal"}
    assert {config.distance for config in configs} == {"l2", "l1", "huber"}


def by_hand(
    schedule: str, prediction: Prediction, x0: Tensor, noise: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(network input, time it is told, target), from each paper's own formulas; sigma: B 1 1 1."""
    alpha, sigma_vp = (1 + sigma**2) ** -0.5, sigma * (1 + sigma**2) ** -0.5  # variance preserving coordinates
    x = x0 + sigma * noise
    s = sigma / (1 + sigma)  # rectified flow's time, 0 to 1
    total = sigma**2 + 0.25
    inputs_and_targets = {
        "eps": (alpha * x0 + sigma_vp * noise, noise),
        "v": (alpha * x0 + sigma_vp * noise, alpha * noise - sigma_vp * x0),
        "x0": (alpha * x0 + sigma_vp * noise, x0),
        "flow": ((1 - s) * x0 + s * noise, noise - x0),
        "edm": (x / total.sqrt(), (x0 - 0.25 / total * x) / (sigma * 0.5 / total.sqrt())),
    }
    level = sigma.flatten()
    match schedule:
        case "ddpm":
            alpha_bar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
            t = ((1 / (1 + level**2))[:, None] - alpha_bar).abs().argmin(dim=1).double()
        case "edm":
            t = level.clamp(0.002, 80).log() / 4
        case _:
            t = 1000 * s.flatten()
    net_in, target = inputs_and_targets[prediction]
    return net_in.float(), t.float(), target.float()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", SCALINGS)
def test_the_loss_is_what_the_papers_say(schedule: str, prediction: Prediction) -> None:
    unet, (text,) = tiny("text", dropout=0.5)
    randomised(unet)
    objective = DenoisingObjective(unet, [text], schedule=SCHEDULES[schedule], scaling=SCALINGS[prediction])
    batch = eight_samples(std=0.3)
    with torch.no_grad():
        loss, _ = objective.loss("diffusion", batch, generator("noise"), step=0)

        noise = generator("noise")
        x0 = batch["mean"] + 0.3 * torch.randn(8, 4, 4, 4, generator=noise)
        sigma = SCHEDULES[schedule].draw(8, noise)[:, None, None, None]
        drawn = torch.randn(8, 4, 4, 4, generator=noise)
        dropped = torch.rand(8, generator=noise) < 0.5
        prompts = ["" if gone else word for word, gone in zip(WORDS, dropped.tolist(), strict=True)]
        assert 0 < prompts.count("") < 8
        assert text.network is not None
        cond = text.network(prompts)
        net_in, t, target = by_hand(schedule, prediction, x0.double(), drawn.double(), sigma)
        answer = cast("Tensor", unet(net_in, t, cond.context, cond.vector))
        other = cast("Tensor", unet(net_in, t.flip(0), cond.context, cond.vector))
        assert (answer - other).abs().max() > 1e-2  # or the times would not be tested
    assert torch.allclose(loss, (answer - target).square().mean(), rtol=1e-3)


def recomputed(config: DenoisingConfig, prediction: Prediction = "v") -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and difference and levels it is made of, drawn again in the order of the objective."""
    unet, _ = tiny("none")
    randomised(unet)
    schedule, scaling = SCHEDULES["ddpm"], SCALINGS[prediction]
    objective = DenoisingObjective(unet, schedule=schedule, scaling=scaling, config=config)
    batch = eight_samples()
    with torch.no_grad():
        loss, _ = objective.loss("diffusion", batch, generator("noise"), step=0)
        noise = generator("noise")
        x0 = batch["mean"] + 0.01 * torch.randn(8, 4, 4, 4, generator=noise)
        sigma = draw(config.draws, schedule, 8, noise)
        drawn = torch.randn(8, 4, 4, 4, generator=noise)
        if config.offset_noise:
            drawn = drawn + config.offset_noise * torch.randn(8, 4, 1, 1, generator=noise)
        seen = drawn
        if config.input_perturbation:
            seen = drawn + config.input_perturbation * torch.randn(8, 4, 4, 4, generator=noise)
        denoiser = Denoiser(unet, schedule, scaling)
        answer = denoiser.output(x0 + sigma.float()[:, None, None, None] * seen, sigma, Conditioning())
    return loss, answer - denoiser.target(x0, drawn, sigma), sigma


@pytest.mark.parametrize("law", WEIGHTINGS)
def test_each_sample_counts_as_its_level_says(law: str) -> None:
    config = WeightingConfig(law=law)
    loss, difference, sigma = recomputed(DenoisingConfig(weighting=config))
    weights = answer_weights(sigma, SCALINGS["v"], config)
    assert weights is not None
    expected = (difference.square().mean(dim=(1, 2, 3)) * weights).mean().float()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("law", ["logit_normal", "mode", "log_normal"])
def test_levels_are_drawn_by_the_law_that_is_set(law: Literal["logit_normal", "mode", "log_normal"]) -> None:
    loss, difference, sigma = recomputed(DenoisingConfig(draws=DrawsConfig(law=law)))
    torch.testing.assert_close(loss, difference.square().mean())
    assert not torch.equal(sigma, recomputed(DenoisingConfig())[2])


def test_distances_are_those_of_diffusers_training_scripts() -> None:
    """Huber: `scheduled_huber_loss_training` with huber_c, written for the squared difference."""
    loss, difference, _ = recomputed(DenoisingConfig(distance="l1"))
    torch.testing.assert_close(loss, difference.abs().mean())
    loss, difference, _ = recomputed(DenoisingConfig(distance="huber", huber=0.3))
    torch.testing.assert_close(loss, (0.6 * ((difference**2 + 0.3**2).sqrt() - 0.3)).mean())


def test_offset_noise_is_to_be_predicted_and_perturbation_is_not() -> None:
    """`train_text_to_image.py`: the target of eps is the noise with its offset, without what perturbs the input."""
    plain, offset, perturbed = (
        recomputed(DenoisingConfig(**changes), "eps")[:2]
        for changes in ({}, {"offset_noise": 0.4}, {"input_perturbation": 0.4})
    )
    for loss, difference in (plain, offset, perturbed):
        torch.testing.assert_close(loss, difference.square().mean())
    assert len({float(loss) for loss, _ in (plain, offset, perturbed)}) == 3


@pytest.mark.parametrize("name", ["class", "text", "layout", "spatial", "concat"])
def test_a_condition_is_left_out_as_often_as_it_says_and_then_says_nothing(name: str) -> None:
    batch = {key: value.repeat(64, *[1] * (value.ndim - 1)) for key, value in eight_samples().items()}
    torch.manual_seed(0)
    one = condition(name, dropout=0.25)
    with torch.no_grad():
        kept, mixed, never = (one(batch, noise) for noise in (None, generator("drop"), None))
        if name in ("class", "text", "layout"):
            assert one.network is not None
            empty = one.network.empty(1)
        else:
            empty = kept.map(lambda slot: torch.zeros_like(slot[:1]))
    for whole, some, nothing, again in zip(*(_slots(cond) for cond in (kept, mixed, empty, never)), strict=True):
        assert torch.equal(whole, again)
        gone = (some == nothing).flatten(1).all(dim=1)
        assert torch.equal(some[~gone], whole[~gone])
        assert not (whole == nothing).flatten(1).all(dim=1).any()
        assert 0.18 < gone.double().mean() < 0.32


def _slots(cond: Conditioning) -> list[Tensor]:
    return [slot for slot in (cond.context, cond.vector, cond.concat) if slot is not None]


def test_conditions_are_left_out_independently() -> None:
    batch = {key: value.repeat(64, *[1] * (value.ndim - 1)) for key, value in eight_samples().items()}
    objective = objective_of("text spatial", dropout=0.5)
    with torch.no_grad():
        cond = objective.conditioning(batch, generator("drop"))
        kept = objective.conditioning(batch)
    assert cond.context is not None
    assert cond.concat is not None
    assert kept.context is not None
    without_text = (cond.context != kept.context).flatten(1).any(dim=1)
    without_map = (cond.concat == 0).flatten(1).all(dim=1)
    for both in (without_text & without_map, ~without_text & ~without_map, without_text & ~without_map):
        assert 0.18 < both.double().mean() < 0.32


def test_conditions_come_together_slot_by_slot() -> None:
    a = Conditioning(context=torch.ones(2, 3, 4), concat=torch.zeros(2, 1, 5, 5))
    b = Conditioning(context=torch.zeros(2, 1, 4), vector=torch.ones(2, 6))
    both = together([a, b])
    assert both.shapes == ((4, 4), (6,), (1, 5, 5))
    assert together([]).shapes == (None, None, None)
    with pytest.raises(ValueError, match="contexts of width 4 and 5: expected one width"):
        together([a, Conditioning(context=torch.zeros(2, 1, 5))])


def test_a_frozen_condition_is_read_and_not_trained() -> None:
    unet, (text,) = tiny("text", dropout=0.3)
    randomised(unet)
    together_ = DenoisingObjective(unet, [text], **SD)
    batch = eight_samples()
    expected, _ = together_.loss("diffusion", batch, generator("noise"), step=0)
    assert any(name.startswith("text.") for name in together_.parts["diffusion"].state_dict())

    frozen = DenoisingObjective(unet, [Frozen(text)], **SD)
    assert all(name.startswith("unet.") for name in frozen.parts["diffusion"].state_dict())
    loss, _ = frozen.loss("diffusion", batch, generator("noise"), step=0)
    assert torch.equal(loss, expected)
    loss.backward()
    assert text.network is not None
    assert all(parameter.grad is None for parameter in text.network.parameters())
    assert all(parameter.grad is not None for parameter in unet.parameters())


def test_pictures_are_encoded_on_the_way_as_their_stored_latents_would_be() -> None:
    """By the frozen first stage; both are brought to the latent space."""
    torch.manual_seed(1)
    first_stage = Autoencoder(AutoencoderConfig(width=8, mult=(1, 1), num_blocks=1, norm_groups=4))
    image = torch.rand(8, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        posterior = first_stage.encode(image)
    assert isinstance(posterior, Posterior)
    space = LatentSpace(scale=(2.0, -0.5, 1.0, 3.0), shift=(0.1, 0.2, 0.3, 0.4))
    unet, conditions = tiny()
    randomised(unet)
    stored = DenoisingObjective(unet, conditions, space=space, **SD)
    on_the_way = DenoisingObjective(unet, conditions, space=space, first_stage=first_stage, **SD)
    batch = eight_samples()
    losses = [
        one.loss("diffusion", data, generator("noise"), step=0)[0]
        for one, data in (
            (stored, batch | {"mean": posterior.mean, "std": posterior.std}),
            (on_the_way, batch | {"image": image}),
        )
    ]
    torch.testing.assert_close(losses[0], losses[1])
    losses[1].backward()
    assert all(parameter.grad is None for parameter in first_stage.parameters())
    mean, std = stored.posterior({"mean": posterior.mean, "std": posterior.std})
    assert torch.equal(mean, space.wrap(posterior.mean))
    torch.testing.assert_close(std[:, 1], 0.5 * posterior.std[:, 1])


def test_the_loss_depends_on_the_given_generator_alone() -> None:
    objective = objective_of(dropout=0.3, prediction="v")
    batch, state = eight_samples(), torch.get_rng_state()
    losses = [objective.loss("diffusion", batch, generator("noise", seed), step=0)[0] for seed in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_latents_and_short_ids_are_taken() -> None:
    """As files of latents hold them."""
    objective = objective_of(dropout=0.1, prediction="v")
    batch = eight_samples()
    small = batch | {"mean": batch["mean"].half(), "std": batch["std"].half(), "ids": batch["ids"].short()}
    exact, _ = objective.loss("diffusion", batch, generator("noise"), step=0)
    loss, _ = objective.loss("diffusion", small, generator("noise"), step=0)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, exact, rtol=1e-3)


def test_eps_is_not_predicted_where_nothing_is_left_of_the_signal() -> None:
    with pytest.raises(ValueError, match="eps says nothing about x0 at zero terminal SNR; use prediction v or x0"):
        objective_of(schedule=DDPM(DDPMConfig(zero_terminal_snr=True)))
    objective_of(schedule=DDPM(DDPMConfig(zero_terminal_snr=True, sigma_max=40.0)))


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dropout 0\.1 of a class without a null class; give null_class, or dropout"):
        ClassCondition(ClassConditioner(ClassConfig(num_classes=4, width=8)), dropout=0.1)
    _, (text,) = tiny()
    assert isinstance(text, TextCondition)
    with pytest.raises(ValueError, match=r"dropout 1\.5: expected a probability, 0 to 1"):
        TextCondition(text.network, dropout=1.5)
    for changes in ({"offset_noise": -0.1}, {"input_perturbation": -1.0}, {"huber": 0.0}):
        with pytest.raises(ValueError, match=rf"{next(iter(changes))} .*: expected"):
            DenoisingConfig(**changes)
