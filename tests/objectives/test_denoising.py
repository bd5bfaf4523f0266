from typing import cast

import pytest
import torch
from torch import Tensor

from tintype.common.rng import generator
from tintype.conditioning.text import TextConditioner, TextConfig, word_ids
from tintype.diffusion.scaling import SCALINGS, Prediction
from tintype.diffusion.schedule import DDPM, EDM, DDPMConfig, EDMConfig, Flow, FlowConfig, Schedule
from tintype.models.clip import CLIPTextConfig
from tintype.models.unet import UNet, UNetConfig
from tintype.objectives.denoising import DenoisingObjective, TextDiffusion

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
SCHEDULES: dict[str, Schedule] = {"ddpm": DDPM(DDPMConfig()), "edm": EDM(EDMConfig()), "flow": Flow(FlowConfig())}


def tiny() -> TextDiffusion:
    torch.manual_seed(0)
    clip = CLIPTextConfig(vocabulary_size=len(word_ids(WORDS)), context_length=4, width=16, num_layers=1, num_heads=2)
    unet = UNetConfig(
        width=32,
        mult=(1,),
        num_blocks=1,
        depth=(0,),
        middle_depth=1,
        context_dim=16,
        vector_dim=16,
        num_heads=2,
        norm_groups=8,
    )
    return TextDiffusion(UNet(unet), TextConditioner(TextConfig(clip=clip, words=WORDS, pooled=True)))


def eight_samples(model: TextDiffusion, *, std: float = 0.01) -> dict[str, Tensor]:
    """Eight latents, each with a caption of its own."""
    tokens = model.text.tokens(WORDS)
    mean = 0.5 * torch.randn(8, 4, 4, 4, generator=generator("latents"))
    return {"mean": mean, "std": torch.full_like(mean, std), "ids": tokens.ids, "end": tokens.end}


OVERFIT = [  # schedule, prediction, how many times smaller the loss is after 80 steps
    (DDPM(DDPMConfig()), "eps", 6),
    (DDPM(DDPMConfig()), "v", 3),
    (DDPM(DDPMConfig()), "x0", 30),
    (Flow(FlowConfig()), "flow", 4),
    (EDM(EDMConfig(log_mean=0.7, log_std=0.8)), "edm", 6),
    (EDM(EDMConfig(log_mean=0.7, log_std=0.8)), "v", 4),
]


@pytest.mark.parametrize(("schedule", "prediction", "factor"), OVERFIT)
def test_eight_samples_are_learned_by_heart(schedule: Schedule, prediction: Prediction, factor: float) -> None:
    model = tiny()
    objective = DenoisingObjective(model, schedule, SCALINGS[prediction], caption_dropout=0.0)
    batch = {name: value.repeat(4, *[1] * (value.ndim - 1)) for name, value in eight_samples(model).items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.99))
    start = {name: value.detach().clone() for name, value in model.named_parameters()}

    def measured() -> float:
        with torch.no_grad():
            losses = [objective.loss("diffusion", batch, generator("test", k), step=0)[0] for k in range(4)]
        return float(torch.stack(losses).mean())

    before = measured()
    for step in range(80):
        loss, metrics = objective.loss("diffusion", batch, generator("train", step), step=step)
        assert not metrics
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert measured() < before / factor
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert not torch.equal(value, start[name]), name


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
    model = tiny()
    for number, parameter in enumerate(model.unet.parameters()):  # no zeros: the answer must depend on the input
        torch.nn.init.normal_(parameter, std=0.15, generator=generator("weights", number))
    objective = DenoisingObjective(model, SCHEDULES[schedule], SCALINGS[prediction], caption_dropout=0.5)
    batch = eight_samples(model, std=0.3)
    with torch.no_grad():
        loss, _ = objective.loss("diffusion", batch, generator("noise"), step=0)

        noise = generator("noise")
        x0 = batch["mean"] + 0.3 * torch.randn(8, 4, 4, 4, generator=noise)
        sigma = SCHEDULES[schedule].draw(8, noise)[:, None, None, None]
        drawn = torch.randn(8, 4, 4, 4, generator=noise)
        dropped = torch.rand(8, generator=noise) < 0.5
        prompts = ["" if gone else word for word, gone in zip(WORDS, dropped.tolist(), strict=True)]
        assert 0 < prompts.count("") < 8
        cond = model.text(prompts)
        net_in, t, target = by_hand(schedule, prediction, x0.double(), drawn.double(), sigma)
        answer = cast("Tensor", model.unet(net_in, t, cond.context, cond.vector))
        other = cast("Tensor", model.unet(net_in, t.flip(0), cond.context, cond.vector))
        assert (answer - other).abs().max() > 1e-2  # or the times would not be tested
    assert torch.allclose(loss, (answer - target).square().mean(), rtol=1e-3)


def test_the_loss_depends_on_the_given_generator_alone() -> None:
    model = tiny()
    objective = DenoisingObjective(model, SCHEDULES["ddpm"], SCALINGS["v"], caption_dropout=0.3)
    batch, state = eight_samples(model), torch.get_rng_state()
    losses = [objective.loss("diffusion", batch, generator("noise", seed), step=0)[0] for seed in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_latents_and_short_ids_are_taken() -> None:
    """As files of latents hold them."""
    model = tiny()
    objective = DenoisingObjective(model, SCHEDULES["ddpm"], SCALINGS["v"], caption_dropout=0.1)
    batch = eight_samples(model)
    small = {"mean": batch["mean"].half(), "std": batch["std"].half(), "ids": batch["ids"].short(), "end": batch["end"]}
    exact, _ = objective.loss("diffusion", batch, generator("noise"), step=0)
    loss, _ = objective.loss("diffusion", small, generator("noise"), step=0)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, exact, rtol=1e-3)
