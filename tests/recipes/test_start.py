"""A run that begins with a model keeps that model's latent space, whatever else changes."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from miniature import small

from tintype.checkpoints import load
from tintype.checkpoints.model_folder import save_model
from tintype.conditioning.prompt import Prompt
from tintype.data.emoji import vocabulary
from tintype.diffusion.latent_space import LatentSpace
from tintype.recipes import run


def other_space(model: Path, to: Path) -> Path:
    """The same networks in latents of another scale."""
    loaded = load(str(model), device="cpu")
    space = LatentSpace(scale=(0.5,) * 4, shift=(0.0,) * 4)
    save_model(
        to, dataclasses.replace(loaded, config=dataclasses.replace(loaded.config, space=space)), dtype=torch.float16
    )
    return to


@pytest.mark.parametrize("change", ["another start", "the start published anew", "a first stage of its own"])
def test_a_run_does_not_go_on_in_another_latent_space(text2img: Path, tmp_path: Path, change: str) -> None:
    start, out = tmp_path / "start", tmp_path / "out"
    shutil.copytree(text2img / "model", start)
    run(small("default_text2img", f"start={start}"), out, progress=False)
    longer = "train.steps=6"
    match change:
        case "another start":
            settings = (f"start={other_space(start, tmp_path / 'other')}",)
        case "the start published anew":
            other_space(start, start)
            settings = (f"start={start}",)
        case _:
            settings = (f"autoencoder={start / 'autoencoder.safetensors'}",)
    with pytest.raises(ValueError, match="inputs"):
        run(small("default_text2img", *settings, longer), out, progress=False)
    assert load(str(out / "model"), device="cpu").space == load(str(text2img / "model"), device="cpu").space


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("prediction=edm", "prediction edm is for data of std 0.5; latents have std 1: use v"),
        ("caption_dropout=7", "caption_dropout 7.0: expected 0 to 1"),
    ],
)
def test_settings_that_would_train_something_else_are_refused(
    text2img: Path, tmp_path: Path, change: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        small("default_text2img", f"start={text2img / 'model'}", change).prepare(tmp_path)


def test_a_latent_space_of_another_number_of_channels_is_refused(text2img: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(text2img / "model", folder)
    config = json.loads((folder / "model.json").read_text())
    config["space"]["scale"] = [1.0, 1.0, 1.0]
    (folder / "model.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"space\.scale has 3 entries; expected 1 or 4, one per channel"):
        load(str(folder), device="cpu")


def test_what_the_start_lacks_begins_from_nothing(text2img: Path, tmp_path: Path) -> None:
    """A U-Net that is shown a mask, and a tower that reads objects, begin as the model without them was."""
    start = load(str(text2img / "model"), device="cpu")
    objective = small("default_tasks", f"start={text2img / 'model'}").prepare(tmp_path).objective
    trained = objective.parts["diffusion"]
    for name, value in start.denoiser.network.state_dict().items():
        got = trained.unet.state_dict()[name]
        if name == "conv_in.weight":
            assert got[:, 4:].eq(0).all()
            got = got[:, :4]
        assert torch.equal(got, value), name
    for name, value in start.networks["conditioner"].state_dict().items():
        assert torch.equal(trained.text.state_dict()[name], value), name
    said = trained.text(["frog"]).context[0, 1]  # and objects as the words for them
    frog = [emoji.name for emoji in vocabulary(256)].index("frog")
    anywhere = trained.text([Prompt(text="", objects=((frog, None),))]).context[0, -2]
    assert torch.allclose(anywhere, said, atol=1e-4)
    run(small("default_tasks", f"start={text2img / 'model'}"), tmp_path / "out", progress=False)
    made = load(str(tmp_path / "out" / "model"), device="cpu")
    assert made.config.further == ("mask", "masked")
    assert len(made.config.labels) == 256
    with pytest.raises(ValueError, match="its U-Net is configured otherwise"):  # it does not forget again
        small("default_text2img", f"start={tmp_path / 'out' / 'model'}").prepare(tmp_path / "back")
