"""Files and names that are nearly right: each is opened as meant, or refused in a sentence."""

import dataclasses
from pathlib import Path

import pytest
import torch
from family_oracles import pipeline
from network_oracles import randomize, their_autoencoder
from safetensors.torch import save_file

import tintype
from tintype.checkpoints.hub import is_hub_name
from tintype.checkpoints.single_file import load_first_stage
from tintype.checkpoints.weight_files import chosen
from tintype.families.detect import detect, fitted, tells
from tintype.families.shapes import autoencoder_config, unet_config
from tintype.families.stable_diffusion import KL_F8, SD1_UNET
from tintype.models.autoencoder import AutoencoderConfig

SMALL = dataclasses.replace(KL_F8, width=32, mult=(1, 2), num_blocks=1)


@pytest.mark.parametrize("config", [SMALL, dataclasses.replace(SMALL, attention_levels=(1,), middle_attention=False)])
def test_an_autoencoder_in_diffusers_spelling_needs_no_configuration(tmp_path: Path, config: AutoencoderConfig) -> None:
    theirs = randomize(their_autoencoder(config))
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(theirs.state_dict(), path)
    ours = load_first_stage(path).network
    assert ours.config == config
    z = torch.randn(1, 4, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(ours.decode(z), theirs.decode(z).sample, rtol=1e-4, atol=1e-4)


UNET_SHAPES = {
    "input_blocks.0.0.weight": (32, 4, 3, 3),
    "input_blocks.1.0.out_layers.3.weight": (32, 32, 3, 3),
    "input_blocks.1.0.emb_layers.1.weight": (32, 128),
    "input_blocks.2.0.out_layers.3.weight": (32, 32, 3, 3),
    "out.2.weight": (4, 32, 3, 3),
}


def test_these_shapes_are_a_unet() -> None:
    """Else the next tests prove nothing."""
    assert unet_config(UNET_SHAPES, SD1_UNET).mult == (1,)


@pytest.mark.parametrize("shape", [(), (4,), (0, 4, 3, 3)])
@pytest.mark.parametrize("name", UNET_SHAPES)
def test_shapes_that_no_layer_has_are_refused(name: str, shape: tuple[int, ...]) -> None:
    if name.startswith("input_blocks.2"):
        return  # only counted
    with pytest.raises(ValueError, match="expected the weight of a layer"):
        unet_config(UNET_SHAPES | {name: shape}, SD1_UNET)


@pytest.mark.parametrize("extra", ["input_blocks.9000000.0.op.weight", "input_blocks.9000000.1.x.weight"])
def test_no_header_asks_for_a_million_layers(extra: str) -> None:
    assert unet_config(UNET_SHAPES | {extra: (1, 1)}, SD1_UNET).num_blocks == 3  # which are not there: refused later


def test_no_header_asks_for_a_million_blocks() -> None:
    shapes = {
        "encoder.conv_in.weight": (32, 3, 3, 3),
        "encoder.down.0.block.0.conv2.weight": (32, 32, 3, 3),
        "encoder.down.0.block.5000000.conv2.weight": (1, 1),
        "post_quant_conv.weight": (4, 4, 1, 1),
    }
    assert autoencoder_config(shapes).num_blocks == 2


@pytest.mark.parametrize(
    ("name", "asks"),
    [
        ("stabilityai/sdxl-turbo", True),
        ("owner/repository/model.safetensors", True),
        ("models/model.safetensors", False),
        ("./owner/repository", False),
        ("model", False),
    ],
)
def test_what_is_a_name_on_the_hub(name: str, asks: bool) -> None:
    assert is_hub_name(name) is asks


@pytest.mark.parametrize(
    ("names", "variant", "expected"),
    [
        (["model.bin", "model.fp16.safetensors"], None, "model.bin"),
        (["model.bin", "model.safetensors"], None, "model.safetensors"),
        (["model.fp16.safetensors", "notes.safetensors"], None, "model.fp16.safetensors"),
        (["model.bin", "model.fp16.bin", "model.fp16.safetensors"], "fp16", "model.fp16.safetensors"),
        (["model.safetensors"], "fp16", None),
    ],
)
def test_which_weights_are_meant(names: list[str], variant: str | None, expected: str | None) -> None:
    assert chosen(names, variant) == expected


def test_a_variant_of_the_unet_alone(tmp_path: Path) -> None:
    pipeline("sd1").save_pretrained(tmp_path, variant="fp16")
    for file in tmp_path.rglob("*.fp16.safetensors"):
        if file.parent.name != "unet":
            file.rename(file.with_name(file.name.replace(".fp16", "")))
    assert tintype.load(tmp_path, variant="fp16").config.name == "sd1"
    (unet,) = (tmp_path / "unet").glob("*.safetensors")
    unet.rename(unet.with_name("diffusion_pytorch_model.safetensors"))
    with pytest.raises(ValueError, match="unet has no weights of variant fp16"):
        tintype.load(tmp_path, variant="fp16")


@pytest.mark.parametrize("word", ["v", "v_prediction"])
def test_words_for_what_a_unet_predicts(word: str) -> None:
    with pytest.raises(ValueError, match="default is a model folder of ours"):
        tintype.load("default", prediction=word)
    with pytest.raises(ValueError, match="unknown prediction 'w'"):
        tintype.load("default", prediction="w")


def test_a_model_of_ours_in_half_precision() -> None:
    model = tintype.load("default", dtype="bfloat16")
    assert model.denoiser.dtype == torch.bfloat16
    assert model.autoencoder.post_quant_conv.weight.dtype == torch.float32
    assert tintype.generate(model, tintype.Request(prompt="a frog", seed=1, steps=2))[0].size == (64, 64)


def test_a_family_is_named_by_prediction() -> None:
    found = tells({"model.diffusion_model.input_blocks.0.0.weight": (32, 4, 3, 3)} | OPEN_CLIP, KL_F8)
    with pytest.raises(ValueError, match=r"eps \(sd2\) or v \(sd2-v\)"):
        detect(found)
    assert detect(found, "v").config.name == "sd2-v"
    with pytest.raises(ValueError, match="input_blocks"):
        fitted({}, detect(found, "v"), KL_F8)


OPEN_CLIP = {"cond_stage_model.model.transformer.resblocks.0.ln_1.weight": (64,)}
