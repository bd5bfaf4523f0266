"""Single files: diffusers reads them as we do; what they may leave open, spell otherwise or lack; what is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from family_oracles import PIPELINES, SD, pipeline, save_single_file, single_file
from safetensors.torch import save_file
from test_families import same
from test_pickled import Canary
from torch import Tensor

import tintype
from tintype.families.base import LatentDiffusion
from tintype.families.detect import AUTOENCODER, CLIP, OPEN_CLIP, TEXT_MODEL, UNET

Tensors = dict[str, Tensor]


class Made:
    """A family's pipeline and its tensors in LDM's layout."""

    def __init__(self, name: str) -> None:
        self.name, self.pipeline = name, pipeline(name)
        self.tensors = single_file(name, self.pipeline)

    def saved(self, folder: Path, change: Callable[[Tensors], Tensors] = dict, **texts: str) -> Path:
        path = folder / "model.safetensors"
        save_file(change(self.tensors), path, metadata={"format": "pt", **texts})
        return path


@pytest.fixture(scope="module")
def sd1() -> Made:
    return Made("sd1")


@pytest.fixture(scope="module")
def sd2() -> Made:
    return Made("sd2")


def weights(model: LatentDiffusion) -> Tensors:
    parts = model.networks.items()
    return {f"{part}.{name}": one for part, network in parts for name, one in network.state_dict().items()}


def without(*beginnings: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: one for name, one in tensors.items() if not name.startswith(beginnings)}


def spelled(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): one for name, one in tensors.items()}


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_diffusers_opens_the_same_file_to_the_same_weights(name: str, tmp_path: Path) -> None:
    made = Made(name)
    made.pipeline.save_pretrained(tmp_path / "folder")
    for file in (tmp_path / "folder").rglob("*.safetensors"):
        file.unlink()  # its configurations alone
    path = made.saved(tmp_path)
    kind = getattr(diffusers, PIPELINES[name])
    theirs: DiffusionPipeline = kind.from_single_file(path, config=str(tmp_path / "folder"), local_files_only=True)
    for part, network in made.pipeline.components.items():
        if isinstance(network, torch.nn.Module):
            same(getattr(theirs, part).state_dict(), network.state_dict())


# What a file may be like


def test_both_spellings_of_clip_open(sd1: Made, tmp_path: Path) -> None:
    usual = weights(tintype.load(sd1.saved(tmp_path)))
    same(weights(tintype.load(sd1.saved(tmp_path, spelled(CLIP + TEXT_MODEL, CLIP)))), usual)


def test_a_ckpt_opens_to_the_same_weights(sd1: Made, tmp_path: Path) -> None:
    usual = weights(tintype.load(sd1.saved(tmp_path)))
    torch.save({"state_dict": sd1.tensors, "global_step": 840000}, tmp_path / "model.ckpt")
    same(weights(tintype.load(tmp_path / "model.ckpt")), usual)
    (tmp_path / "model.ckpt").rename(tmp_path / "renamed.safetensors")
    same(weights(tintype.load(tmp_path / "renamed.safetensors")), usual)


def test_sd2_may_lack_the_layer_that_is_not_used(sd2: Made, tmp_path: Path) -> None:
    """As diffusers' script and kohya's write it."""
    usual = weights(tintype.load(sd2.saved(tmp_path), prediction="eps"))
    unused = f"{OPEN_CLIP}transformer.resblocks.23."
    same(weights(tintype.load(sd2.saved(tmp_path, without(unused)), prediction="eps")), usual)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_opens_in_float32_and_stays_half_when_asked(
    stored: torch.dtype, sd1: Made, tmp_path: Path
) -> None:
    halved = {name: one.to(stored) if one.is_floating_point() else one for name, one in sd1.tensors.items()}
    path = sd1.saved(tmp_path, lambda _: halved)
    whole = weights(tintype.load(path))
    exact = weights(tintype.load(sd1.saved(tmp_path)))
    assert {one.dtype for one in whole.values()} == {torch.float32}
    for name, one in exact.items():
        assert torch.equal(whole[name], one.to(stored).float()), name
    half = tintype.load(sd1.saved(tmp_path, lambda _: halved), dtype=str(stored).removeprefix("torch."))
    for part, network in half.networks.items():
        expected = torch.float32 if part == "autoencoder" else stored
        assert {one.dtype for one in network.state_dict().values()} == {expected}, part
    request = tintype.Request(prompt="a puppy", seed=1, steps=2, width=64, height=64)
    [picture] = tintype.generate(half, request)
    assert picture.size == (64, 64)


def test_tensors_of_other_things_are_passed_over(sd1: Made, tmp_path: Path) -> None:
    """What is about in files that ComfyUI, kohya's scripts and Lightning wrote."""
    names = (
        "model_ema.diffusion_modelinput_blocks00weight",
        "first_stage_model.loss.discriminator.main.0.weight",
        "first_stage_model.model_ema.decay",
        "cond_stage_model.logit_scale",
        "cond_stage_model.transformer.text_projection.weight",
        "sqrt_alphas_cumprod",
        "posterior_mean_coef1",
    )
    usual = weights(tintype.load(sd1.saved(tmp_path)))
    more = {name: torch.zeros(2) for name in names}
    same(weights(tintype.load(sd1.saved(tmp_path, lambda tensors: tensors | more))), usual)


# What SD 2.x's files do not tell


def test_sd2_asks_what_its_unet_predicts(sd2: Made, tmp_path: Path) -> None:
    path = sd2.saved(tmp_path)
    with pytest.raises(ValueError, match=r"eps \(sd2\) or v \(sd2-v\).*Give prediction=, --prediction"):
        tintype.load(path)
    for prediction, name in (("eps", "sd2"), ("v", "sd2-v")):
        config = tintype.load(path, prediction=prediction).config
        assert (config.name, config.prediction) == (name, prediction)


@pytest.mark.parametrize(("said", "name"), [("epsilon", "sd2"), ("v", "sd2-v"), ("v_prediction", "sd2-v")])
def test_metadata_may_tell(said: str, name: str, sd2: Made, tmp_path: Path) -> None:
    """modelspec, as Stability and kohya write it ("epsilon" and "v"), and in diffusers' word."""
    texts = {"modelspec.prediction_type": said}
    assert tintype.load(sd2.saved(tmp_path, **texts)).config.name == name
    other = "eps" if name == "sd2-v" else "v"
    assert tintype.load(sd2.saved(tmp_path, **texts), prediction=other).config.prediction == other  # whoever asks knows


def test_marks_of_v_and_of_zero_terminal_signal_are_read(sd1: Made, tmp_path: Path) -> None:
    """As NoobAI's files carry them, and ComfyUI reads them."""
    assert tintype.load(sd1.saved(tmp_path)).config.prediction == "eps"
    path = sd1.saved(tmp_path, lambda tensors: tensors | {"v_pred": torch.zeros(0)})
    model = tintype.load(path)
    assert (model.config.prediction, model.config.schedule.zero_terminal_snr) == ("v", False)
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    model = tintype.load(sd1.saved(tmp_path, lambda tensors: tensors | marks))
    assert (model.config.prediction, model.config.schedule.zero_terminal_snr) == ("v", True)
    assert model.denoiser.schedule.sigma_max == pytest.approx(4096)


# An autoencoder beside it


@pytest.mark.parametrize("prefix", ["", AUTOENCODER])
def test_an_autoencoder_of_its_own_takes_the_place_of_the_files(prefix: str, sd1: Made, tmp_path: Path) -> None:
    other = {name: one + 1 for name, one in sd1.tensors.items() if name.startswith(AUTOENCODER)}
    vae = save_single_file(tmp_path / "vae.pt", spelled(AUTOENCODER, prefix)(other))
    model = tintype.load(sd1.saved(tmp_path), vae=vae)
    expected = weights(tintype.load(sd1.saved(tmp_path, lambda tensors: tensors | other)))
    same(weights(model), expected)
    assert model.space == SD["sd1"].config.space


def test_an_autoencoder_in_diffusers_layout_brings_its_scale(sd1: Made, tmp_path: Path) -> None:
    vae = sd1.pipeline.vae
    vae.register_to_config(scaling_factor=0.5)
    vae.save_pretrained(tmp_path / "vae")
    vae.register_to_config(scaling_factor=0.18215)
    model = tintype.load(sd1.saved(tmp_path, without(AUTOENCODER)), vae=tmp_path / "vae")
    same(weights(model), weights(tintype.load(sd1.saved(tmp_path))))
    assert model.space.scale == (0.5,)


def test_a_file_without_autoencoder_asks_for_one(sd1: Made, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it has no autoencoder; give one beside it as vae=, --vae"):
        tintype.load(sd1.saved(tmp_path, without(AUTOENCODER)))
    with pytest.raises(ValueError, match=r"model\.safetensors is no autoencoder: no encoder\.conv_in\.weight"):
        tintype.load(sd1.saved(tmp_path), vae=sd1.saved(tmp_path, without(AUTOENCODER)))


# Refusals


def test_a_file_without_text_encoder_is_refused(sd1: Made, tmp_path: Path) -> None:
    """It is not a model that nothing steers."""
    with pytest.raises(ValueError, match="it has no text encoder, whose context its U-Net reads"):
        tintype.load(sd1.saved(tmp_path, without(CLIP)))


def test_the_first_tensors_that_are_missing_or_unexpected_are_named(sd1: Made, tmp_path: Path) -> None:
    """And the family that the file was taken for."""
    gone = f"{UNET}middle_block.1.norm.weight"
    path = sd1.saved(tmp_path, lambda tensors: without(gone)(tensors) | {f"{UNET}extra.weight": torch.zeros(1)})
    said = f"the family sd1, but 1 tensors are missing ({gone}), 1 tensors are unexpected ({UNET}extra.weight)"
    with pytest.raises(ValueError, match=re.escape(said)):
        tintype.load(path)


def test_a_tensor_of_another_shape_is_named(sd1: Made, tmp_path: Path) -> None:
    name = f"{UNET}time_embed.0.weight"
    path = sd1.saved(tmp_path, lambda tensors: tensors | {name: torch.zeros(3, 32)})
    with pytest.raises(ValueError, match=rf"sd1, but {re.escape(name)} is \(3, 32\); expected \(128, 32\)"):
        tintype.load(path)


def test_other_channels_name_the_closest_families(sd1: Made, tmp_path: Path) -> None:
    name = f"{UNET}input_blocks.0.0.weight"
    path = sd1.saved(tmp_path, lambda tensors: tensors | {name: torch.zeros(32, 11, 3, 3)})
    with pytest.raises(ValueError, match=r"no family has conditioner clip, extra channels 7.*closest are sd1"):
        tintype.load(path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", "a LoRA"),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", "a LoRA"),
        ("unet.down_blocks.0.attentions.0.processor.to_q_lora.down.weight", "a LoRA"),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("controlnet_cond_embedding.conv_in.weight", "a ControlNet"),
        ("emb_params", "a textual inversion"),
        ("first_stage_model.decoder.conv_in.weight", "an autoencoder alone"),
        ("clip_g", "a textual inversion"),
        ("decoder.conv_in.weight", "an autoencoder alone"),
        ("down_blocks.0.resnets.0.conv1.weight", "diffusers' U-Net alone"),
        ("text_model.final_layer_norm.weight", "a text encoder alone"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("double_blocks.0.img_attn.qkv.weight", "FLUX"),
    ],
)
def test_what_is_no_checkpoint_is_named(name: str, what: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"it looks like {what}"):
        tintype.load(tmp_path / "model.safetensors")


def test_a_textual_inversion_in_a_pickle_is_named(tmp_path: Path) -> None:
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(2, 768)}}, tmp_path / "it.pt")
    with pytest.raises(ValueError, match="a textual inversion"):
        tintype.load(tmp_path / "it.pt")


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_hostile_file_is_refused_and_not_run(suffix: str, sd1: Made, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / f"model.{suffix}"
    torch.save({"state_dict": sd1.tensors, "callbacks": Canary(canary)}, path)
    for use in (lambda: tintype.load(path), lambda: tintype.load(sd1.saved(tmp_path / ".."), vae=path)):
        with pytest.raises(ValueError, match="nothing was run"):
            use()
    assert not canary.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_file_cut_short_is_refused(suffix: str, share: float, sd1: Made, tmp_path: Path) -> None:
    path = tmp_path / f"model.{suffix}"
    if suffix == "ckpt":
        torch.save({"state_dict": sd1.tensors}, path)
    else:
        save_file(sd1.tensors, path)
    with path.open("r+b") as file:
        file.truncate(int(share * path.stat().st_size))
    with pytest.raises(ValueError, match=r"is not a whole file of weights|is not a whole"):
        tintype.load(path)


def test_a_header_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    """Before any memory is taken for it."""
    path = tmp_path / "model.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b'{"a":')
    with pytest.raises(ValueError, match="is not a whole file of weights"):
        tintype.load(path)
