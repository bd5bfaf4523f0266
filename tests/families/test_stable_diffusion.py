"""Stable Diffusion's families at their real size, without weights: names, shapes and what tells them apart."""

from functools import cache

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from network_oracles import their_autoencoder, their_clip_text, their_unet
from torch import Tensor

from tintype.checkpoints.fill import state
from tintype.checkpoints.single_file import made
from tintype.common.config import from_json, to_json
from tintype.conditioning.towers import TextTowersConfig
from tintype.families.base import Family, FamilyConfig
from tintype.families.detect import AUTOENCODER, FAMILIES, UNET, detect, fitted, tells
from tintype.families.shapes import autoencoder_config, below
from tintype.families.single_file import names
from tintype.families.stable_diffusion import FAMILIES as STABLE_DIFFUSION

every_sd = pytest.mark.parametrize("family", STABLE_DIFFUSION, ids=lambda family: family.config.name)

# Tensors of the U-Net, autoencoder and text encoders. sd_xl_base_1.0.safetensors has 2515: these, positions and a scale
TENSORS = {
    "sd1": (686, 248, 196),
    "sd2": (686, 248, 280),
    "sd2-upscaler": (687, 204, 280),
    "sdxl": (1680, 248, 585),
    "sdxl-refiner": (1220, 248, 389),
}
# Millions of parameters of the U-Net: Podell et al. 2023, table 1
UNETS = {"sd1": 860, "sd2": 865, "sdxl": 2600}


@cache
def ours_of(name: str) -> dict[str, Tensor]:
    return state({part: one for part, one in made(FAMILIES[name].config)._asdict().items() if one is not None})


@cache
def theirs_of(name: str) -> dict[str, Tensor]:
    return names(FAMILIES[name].config, FAMILIES[name]).to_theirs(ours_of(name))


@pytest.mark.parametrize("name", TENSORS)
def test_names_are_a_bijection_at_real_size(name: str) -> None:
    """Those of the other families differ in the width of one tensor alone."""
    ours, theirs = ours_of(name), theirs_of(name)
    back = names(FAMILIES[name].config, FAMILIES[name]).to_ours(theirs)
    assert {name: one.shape for name, one in back.items()} == {name: one.shape for name, one in ours.items()}
    assert sum(one.numel() for one in theirs.values()) == sum(one.numel() for one in ours.values())


@pytest.mark.parametrize("name", TENSORS)
def test_files_hold_as_many_tensors_as_released_ones(name: str) -> None:
    theirs = theirs_of(name)
    parts = [UNET, AUTOENCODER, ("cond_stage_model.", "conditioner.")]
    assert tuple(sum(one.startswith(part) for one in theirs) for part in parts) == TENSORS[name]


@pytest.mark.parametrize(("name", "published"), UNETS.items())
def test_unets_are_as_large_as_published(name: str, published: int) -> None:
    unet = sum(one.numel() for one in below_unet(name)) / 1e6
    assert unet == pytest.approx(published, rel=0.015)  # rounded there


def below_unet(name: str) -> list[Tensor]:
    return [one for key, one in theirs_of(name).items() if key.startswith(UNET)]


@pytest.mark.parametrize("name", TENSORS)
def test_diffusers_finds_its_own_networks_in_those_names(name: str) -> None:
    """Its converter turns them into the parameters of its U-Net, every one with its shape; so do the numbers of
    parameters of the others agree."""
    family, config = FAMILIES[name], FAMILIES[name].config
    theirs = theirs_of(name)
    with torch.device("meta"):
        unet = their_unet(config.unet, linear=family.projection == "linear")
        vae = their_autoencoder(config.autoencoder)
        conditioner = config.conditioner
        towers = conditioner.towers if isinstance(conditioner, TextTowersConfig) else (conditioner,)
        clips = [their_clip_text(tower.clip) for tower in towers]
    read = convert_ldm_unet_checkpoint(dict(theirs), dict(unet.config))
    assert {name: one.shape for name, one in read.items()} == {
        name: one.shape for name, one in unet.state_dict().items()
    }
    counts = [sum(one.numel() for one in network.state_dict().values()) for network in (vae, *clips)]
    rest = sum(one.numel() for name, one in theirs.items() if not name.startswith(UNET))
    assert sum(counts) == rest


@every_sd
def test_a_file_is_told_and_its_networks_are_read_from_its_shapes(family: Family) -> None:
    config = family.config
    shapes = {name: tuple(one.shape) for name, one in theirs_of(config.name).items()}
    autoencoder = autoencoder_config(below(shapes, AUTOENCODER))
    found = detect(tells(shapes, autoencoder), config.prediction)
    assert found == family
    assert fitted(shapes, found, autoencoder) == config


@every_sd
def test_configurations_come_back_from_json(family: Family) -> None:
    assert from_json(FamilyConfig, to_json(family.config)) == family.config


@every_sd
def test_only_sd2_has_to_be_asked(family: Family) -> None:
    if family.config.name in ("sd2", "sd2-v"):
        with pytest.raises(ValueError, match="does not tell what its U-Net predicts"):
            detect(family.tells)
    else:
        assert detect(family.tells) == family
