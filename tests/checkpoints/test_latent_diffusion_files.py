"""latent-diffusion's checkpoints as Lightning wrote them: averaged weights, buffers of the schedule, losses."""

from pathlib import Path

import pytest
import torch
from test_compvis_chain import Theirs, small, their_side
from torch import Tensor

import tintype
from tintype.families.base import Family
from tintype.families.detect import FAMILIES, UNET
from tintype.families.single_file import names

BUFFERS = (  # ldm/models/diffusion/ddpm.py: register_schedule
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "lvlb_weights"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "logvar"),
)
LOSS = (
    "first_stage_model.loss.logvar",
    "first_stage_model.loss.discriminator.main.0.weight",
    "cond_stage_model.loss.x",
)


def average_of(name: str) -> str:
    """ldm/modules/ema.py: LitEma names the parameters of `model` without their dots."""
    return "model_ema." + name.removeprefix("model.").replace(".", "")


def state_of(theirs: Theirs) -> dict[str, Tensor]:
    parts = ((UNET, theirs.unet), ("first_stage_model.", theirs.first_stage), ("cond_stage_model.", theirs.cond_stage))
    return {prefix + name: one for prefix, part in parts for name, one in part.state_dict().items()}


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    beside = {name: torch.zeros(1000) for name in BUFFERS} | {name: torch.zeros(2) for name in LOSS}
    beside |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    torch.save({"state_dict": tensors | beside, "global_step": 7, "callbacks": {}, "optimizer_states": []}, path)
    return path


def unet_of(path: Path, family: Family) -> dict[str, Tensor]:
    model = tintype.load(path)
    assert model.config.name == family.config.name
    ours = {f"unet.{name}": one for name, one in model.networks["unet"].state_dict().items()}
    return names(model.config, family).to_theirs(ours)


SOME = [FAMILIES[name] for name in ("ldm-unconditional", "ldm-imagenet", "ldm-layout2img")]


@pytest.mark.parametrize("family", SOME, ids=lambda family: family.config.name)
def test_averaged_weights_are_taken_where_the_released_pictures_had_them(family: Family, tmp_path: Path) -> None:
    """Where the file has all of them; LDM's own scripts sample under `ema_scope`, but for those without averages."""
    tensors = state_of(their_side(small(family.config)))
    averages = {average_of(name): one + 1 for name, one in tensors.items() if name.startswith(UNET)}
    plain = unet_of(saved(tmp_path / "plain.ckpt", tensors), family)
    both = unet_of(saved(tmp_path / "both.ckpt", tensors | averages), family)
    assert len(plain) == len(averages)
    for name, one in plain.items():
        assert torch.equal(one, tensors[name]), name
        assert torch.equal(both[name], tensors[name] + (1 if family.averaged else 0)), name


def test_averages_that_are_not_whole_are_left_alone_or_refused(tmp_path: Path) -> None:
    family = FAMILIES["ldm-unconditional"]
    tensors = state_of(their_side(small(family.config)))
    averages = {average_of(name): one + 1 for name, one in tensors.items() if name.startswith(UNET)}
    first, *others = averages
    some = {name: averages[name] for name in others}
    name = f"{UNET}input_blocks.0.0.weight"
    assert torch.equal(unet_of(saved(tmp_path / "some.ckpt", tensors | some), family)[name], tensors[name])
    damaged = tensors | averages | {first: torch.zeros(3)}
    with pytest.raises(ValueError, match=rf"{first} is \(3,\); expected"):
        tintype.load(saved(tmp_path / "damaged.ckpt", damaged))
