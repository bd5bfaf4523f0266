"""Folders in diffusers' layout: the ways to store weights, what configurations may say, what is refused; and
latent-diffusion's own pipelines there."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LDMPipeline,
    LDMSuperResolutionPipeline,
    LDMTextToImagePipeline,
    PNDMScheduler,
    SchedulerMixin,
)
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from family_oracles import BETAS, SETTINGS, STABLE, pipeline
from network_oracles import difference, randomize, their_autoencoder, their_plain_unet, their_unet
from safetensors.torch import load_file, save_file
from test_bert import WORDS
from test_compvis_chain import small as small_ldm
from test_families import same
from test_single_file import weights
from torch import Tensor
from transformers import BertTokenizer

import tintype
from tintype.checkpoints.diffusers_write import save_diffusers_folder
from tintype.common.rng import Noise
from tintype.diffusion.denoiser import Conditioning
from tintype.diffusion.guidance import Guidance, guided
from tintype.diffusion.names import preset
from tintype.diffusion.samplers import SAMPLERS
from tintype.families import latent_diffusion as zoo
from tintype.families.base import FamilyConfig, LatentDiffusion
from tintype.families.diffusers_configs import AUTOENCODER_FIXED, PLAIN_UNET_FIXED, UNET_FIXED, plain_unet_from
from tintype.tasks.plan import spaced
from tintype.tasks.task import resolve

UNET, VAE, TEXT = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"


@pytest.fixture(scope="module")
def theirs() -> DiffusionPipeline:
    return pipeline("sd1")


@pytest.fixture(scope="module")
def saved(theirs: DiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(saved: Path) -> dict[str, Tensor]:
    return weights(tintype.load(saved))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to be changed; its weights are links."""
    return Path(shutil.copytree(saved, tmp_path / "folder", copy_function=linked))


def linked(source: str, target: str) -> None:
    Path(target).symlink_to(source) if source.endswith(".safetensors") else shutil.copy(source, target)


def rewritten(path: Path, change: Callable[[str], str]) -> None:
    tensors = load_file(path)
    path.unlink()
    save_file({change(name): tensor for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def said(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# How weights may lie there


def test_pickles(folder: Path, expected: dict[str, Tensor]) -> None:
    for stem, name in ((UNET, UNET), (VAE, VAE), (TEXT, "text_encoder/pytorch_model")):
        torch.save(load_file(folder / f"{stem}.safetensors"), folder / f"{name}.bin")
        (folder / f"{stem}.safetensors").unlink()
    same(weights(tintype.load(folder)), expected)


def test_shards(theirs: DiffusionPipeline, tmp_path: Path, expected: dict[str, Tensor]) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="2MB")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 2
    assert len(list((tmp_path / "text_encoder").glob("*.safetensors"))) > 1
    same(weights(tintype.load(tmp_path)), expected)
    next((tmp_path / "unet").glob("*-00002-of-*")).unlink()
    with pytest.raises(ValueError, match=r"index\.json names .*-00002-of-.*, which is not there; download"):
        tintype.load(tmp_path)


def test_variants(theirs: DiffusionPipeline, folder: Path, expected: dict[str, Tensor]) -> None:
    """Unasked the plain weights, or the only ones there are."""
    plain = load_file(folder / f"{UNET}.safetensors")
    for stem in (UNET, VAE, TEXT):
        halves = {name: tensor.half() for name, tensor in load_file(folder / f"{stem}.safetensors").items()}
        save_file(halves, folder / f"{stem}.fp16.safetensors")
    same(weights(tintype.load(folder)), expected)
    rounded = {name: tensor.half().float() for name, tensor in expected.items()}
    same(weights(tintype.load(folder, variant="fp16")), rounded)
    assert not torch.equal(plain["conv_in.weight"], plain["conv_in.weight"].half().float())
    for stem in (UNET, VAE, TEXT):
        (folder / f"{stem}.safetensors").unlink()
    same(weights(tintype.load(folder)), rounded)
    with pytest.raises(ValueError, match=r"unet has no weights of variant ema; expected"):
        tintype.load(folder, variant="ema")


def test_sharded_variants(theirs: DiffusionPipeline, tmp_path: Path, expected: dict[str, Tensor]) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="2MB", variant="fp16")
    assert list((tmp_path / "unet").glob("*.index.fp16.json"))
    same(weights(tintype.load(tmp_path)), expected)
    same(weights(tintype.load(tmp_path, variant="fp16")), expected)


def test_autoencoders_from_before_attention_was_renamed(folder: Path, expected: dict[str, Tensor]) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def before(name: str) -> str:
        found = [new for new in old if f"attentions.0.{new}." in name]
        return name.replace(found[0], old[found[0]]) if found else name

    rewritten(folder / f"{VAE}.safetensors", before)
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in load_file(folder / f"{VAE}.safetensors")
    same(weights(tintype.load(folder)), expected)


@pytest.mark.parametrize("level", ["", "text_model."])
def test_both_spellings_of_clip(level: str, folder: Path, expected: dict[str, Tensor]) -> None:
    rewritten(folder / f"{TEXT}.safetensors", lambda name: level + name.removeprefix("text_model."))
    same(weights(tintype.load(folder)), expected)


def test_tensors_of_other_things_are_passed_over(folder: Path, expected: dict[str, Tensor]) -> None:
    path = folder / f"{TEXT}.safetensors"
    tensors = load_file(path) | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    path.unlink()
    save_file(tensors, path)
    same(weights(tintype.load(folder)), expected)


def test_an_autoencoder_beside_it(theirs: DiffusionPipeline, folder: Path, expected: dict[str, Tensor]) -> None:
    """A folder of its own, a whole pipeline's, or a file; the folder's own need not be whole then."""
    other = their_autoencoder(small_vae := tintype.load(folder).config.autoencoder)
    assert small_vae.factor == 8
    randomize(other, 7).register_to_config(scaling_factor=0.25)
    other.save_pretrained(folder.parent / "vae")
    (folder / f"{VAE}.safetensors").unlink()
    model = tintype.load(folder, vae=folder.parent / "vae")
    assert model.space.scale == (0.25,)
    found = weights(model)
    unchanged = [name for name in expected if not name.startswith("autoencoder.")]
    same({name: found[name] for name in unchanged}, {name: expected[name] for name in unchanged})
    picture = torch.randn(1, 4, 8, 8)
    with torch.inference_mode():
        assert difference(model.autoencoder.decode(picture), other.decode(picture).sample) <= 1e-5


# What configurations say


# scheduler/scheduler_config.json as released: stabilityai/stable-diffusion-xl-base-1.0 and sdxl-turbo,
# stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1, SimianLuo/LCM_Dreamshaper_v7
OFFSET: dict[str, object] = {
    **BETAS,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}
RELEASED: dict[str, tuple[dict[str, object], tuple[str, str | None, str | None]]] = {
    "sdxl": (
        {"_class_name": "EulerDiscreteScheduler", **OFFSET, "timestep_spacing": "leading", "use_karras_sigmas": False},
        ("EulerDiscreteScheduler", "leading", "leading"),
    ),
    "sdxl-turbo": (
        {"_class_name": "EulerAncestralDiscreteScheduler", **OFFSET, "timestep_spacing": "trailing"},
        ("EulerAncestralDiscreteScheduler", "trailing", "trailing"),
    ),
    "sd1": ({"_class_name": "PNDMScheduler", **OFFSET}, ("PNDMScheduler", None, None)),
    "sd2": (
        {"_class_name": "DDIMScheduler", **OFFSET, "prediction_type": "v_prediction"},
        ("DDIMScheduler", None, None),
    ),
    "karras": (  # as many have been published since
        {"_class_name": "DPMSolverMultistepScheduler", **OFFSET, "use_karras_sigmas": True},
        ("DPMSolverMultistepScheduler", "karras", None),
    ),
    "lcm": (
        {"_class_name": "LCMScheduler", "original_inference_steps": 50, "timestep_spacing": "leading", **OFFSET},
        ("LCMScheduler", None, "leading"),
    ),
}
OTHERS = (
    None,
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "LCMScheduler",
)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' and numpy's
@pytest.mark.parametrize("name", RELEASED)
def test_a_released_scheduler_goes_for_others_as_from_config_does(folder: Path, name: str) -> None:
    """The training steps that each visits, unasked for a spacing."""
    settings, said_so = RELEASED[name]
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings))
    model = tintype.load(folder)
    assert (model.config.sampler, model.config.scheduler, model.config.spacing) == said_so
    if name in ("sd1", "sdxl", "karras"):  # nothing said, a spacing, a flag
        save_diffusers_folder(folder.parent / f"{name} again", model, dtype=torch.float32)
        again = tintype.load(folder.parent / f"{name} again").config
        assert (again.sampler, again.scheduler, again.spacing, again.levels) == (*said_so, model.config.levels)
    own = getattr(diffusers, said_so[0]).from_pretrained(folder / "scheduler")
    for other in OTHERS:
        theirs = own if other is None else getattr(diffusers, other).from_config(own.config)
        theirs.set_timesteps(10)
        request = resolve(model, tintype.Request(sampler=other, steps=10, seed=1))
        visited = model.denoiser.schedule.t(spaced(model, request)[:-1])
        expected = sorted({float(t) for t in theirs.timesteps}, reverse=True)
        told = 0.501 if request.scheduler == "karras" else 1e-3  # of which most tell the network the nearest step
        assert visited.tolist() == pytest.approx(expected, abs=told), (name, other)


def test_the_scheduler_is_the_folders_own(folder: Path) -> None:
    config = tintype.load(folder).config
    assert (config.sampler, config.scheduler) == ("DDIMScheduler", "leading")
    euler = EulerDiscreteScheduler(**SETTINGS, **BETAS, use_karras_sigmas=True, timestep_spacing="trailing")
    euler.save_pretrained(folder / "scheduler")
    config = tintype.load(folder).config
    assert (config.sampler, config.scheduler) == ("EulerDiscreteScheduler", "karras")
    changed = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "use_karras_sigmas": False}
    said(folder / "scheduler" / "scheduler_config.json", **changed)
    config = tintype.load(folder).config
    assert (config.prediction, config.scheduler, config.schedule.zero_terminal_snr) == ("v", "trailing", True)
    said(folder / "scheduler" / "scheduler_config.json", beta_schedule="sigmoid")
    with pytest.raises(ValueError, match="scheduler: beta_schedule is 'sigmoid'; expected linear, scaled_linear"):
        tintype.load(folder)


@pytest.mark.parametrize(
    ("scheduler", "sampler"),
    [
        (PNDMScheduler(**SETTINGS, **BETAS, skip_prk_steps=True, set_alpha_to_one=False), "PNDMScheduler"),
        (PNDMScheduler(**SETTINGS, **BETAS, set_alpha_to_one=False), "pndm"),
        (DPMSolverMultistepScheduler(**SETTINGS, **BETAS), "DPMSolverMultistepScheduler"),
        (DPMSolverMultistepScheduler(**SETTINGS, **BETAS, algorithm_type="sde-dpmsolver++"), "dpmpp_2m_sde"),
    ],
)
def test_a_setting_may_make_it_another_sampler(scheduler: SchedulerMixin, sampler: str, folder: Path) -> None:
    scheduler.save_pretrained(folder / "scheduler")
    assert tintype.load(folder).config.sampler == sampler


@pytest.mark.parametrize(
    ("name", "value"), [("clip_sample", True), ("steps_offset", 0), ("final_sigmas_type", "sigma_min")]
)
def test_what_is_sampled_otherwise_than_the_folder_says_is_told(
    name: str, value: object, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tintype.load(folder)
    assert not caplog.records
    said(folder / "scheduler" / "scheduler_config.json", **{name: value})
    tintype.load(folder)
    assert f"{name} is {value}; taken as" in caplog.text


def test_a_tokenizer_that_pads_with_zeros(folder: Path) -> None:
    assert tintype.load(folder).config.conditioner.pad == "end"
    for pad in ("!", {"content": "!", "lstrip": False}):
        said(folder / "tokenizer" / "tokenizer_config.json", pad_token=pad)
        assert tintype.load(folder).config.conditioner.pad == "zero"


def test_the_size_is_the_networks(folder: Path) -> None:
    said(folder / "unet" / "config.json", sample_size=96)
    assert tintype.load(folder).config.size == 768


def beyond(known: tuple[object, ...]) -> object:
    """A value of the same kind that is none of those."""
    first = next((one for one in known if one is not None), "other")
    return not first if isinstance(first, bool) else first + 1 if isinstance(first, int | float) else "mish"


@pytest.mark.parametrize("field", UNET_FIXED)
def test_what_our_unet_does_not_do_is_refused_by_name(field: str, folder: Path) -> None:
    value = beyond(UNET_FIXED[field])
    assert value not in UNET_FIXED[field]
    said(folder / "unet" / "config.json", **{field: value})
    with pytest.raises(ValueError, match=rf"unet: {field} is {re.escape(repr(value))}; expected"):
        tintype.load(folder)


@pytest.mark.parametrize("field", AUTOENCODER_FIXED)
def test_what_our_autoencoder_does_not_do_is_refused_by_name(field: str, folder: Path) -> None:
    said(folder / "vae" / "config.json", **{field: beyond(AUTOENCODER_FIXED[field])})
    with pytest.raises(ValueError, match=rf"vae: {field} is .*; expected"):
        tintype.load(folder)


@pytest.mark.parametrize("field", PLAIN_UNET_FIXED)
def test_what_our_plain_unet_does_not_do_is_refused_by_name(field: str) -> None:
    config = json.loads(their_plain_unet(small_ldm(zoo.UNCONDITIONAL).unet).to_json_string())
    plain_unet_from(config)
    with pytest.raises(ValueError, match=rf"unet: {field} is .*; expected"):
        plain_unet_from(config | {field: beyond(PLAIN_UNET_FIXED[field])})


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("text_encoder", {"hidden_act": "relu"}, "text_encoder: hidden_act is 'relu'"),
        ("text_encoder", {"layer_norm_eps": 1e-3}, "text_encoder: layer_norm_eps is 0.001"),
        ("text_encoder", {"intermediate_size": 100}, "intermediate_size is 100; expected 256"),
        ("unet", {"up_block_types": ["UpBlock2D"] * 4}, "up_block_types are .*; expected"),
        ("unet", {"block_out_channels": None}, "block_out_channels"),
        ("unet", {"in_channels": "four"}, "in_channels"),
        ("unet", {"in_channels": 11}, "extra channels 7.*the closest are sd1"),
        ("vae", {"down_block_types": ["DownBlock2D"]}, "down_block_types are .*; expected DownEncoderBlock2D"),
        ("unet", {"cross_attention_dim": 32}, r"unet: .*attn2\.to_k\.weight is \(\d+, 64\); expected \(\d+, 32\)"),
        ("unet", {"layers_per_block": 2}, "unet: .* tensors are missing"),
    ],
)
def test_a_configuration_that_does_not_fit_says_where(
    part: str, changes: dict[str, object], message: str, folder: Path
) -> None:
    said(folder / part / "config.json", **changes)
    with pytest.raises(ValueError, match=message):
        tintype.load(folder)


@pytest.mark.parametrize("gone", ["block_out_channels", "in_channels", "attention_head_dim", "cross_attention_dim"])
def test_a_configuration_that_lacks_something_is_refused(gone: str, folder: Path) -> None:
    """Whatever diffusers would take for it."""
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({name: one for name, one in json.loads(path.read_text()).items() if name != gone}))
    with pytest.raises(ValueError, match=gone):
        tintype.load(folder)


# Folders that are not whole, or not honest


@pytest.mark.parametrize(
    "gone", ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "text_encoder/config.json"]
)
def test_a_folder_that_lacks_a_file_names_it(gone: str, folder: Path) -> None:
    (folder / gone).unlink()
    with pytest.raises(ValueError, match=rf"{gone}: No such file or directory; expected a folder in diffusers' layout"):
        tintype.load(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000])
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_a_damaged_configuration_is_named(content: str, file: str, folder: Path) -> None:
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=rf"{file} is damaged"):
        tintype.load(folder)


def test_a_folder_without_its_text_encoder_is_refused(folder: Path) -> None:
    said(folder / "model_index.json", text_encoder=[None, None])
    with pytest.raises(ValueError, match="unet reads a context, and the index names no text encoder"):
        tintype.load(folder)


@pytest.mark.parametrize("name", ["../unet/weights.safetensors", "/etc/passwd", "a/../../b.safetensors", ".."])
def test_an_index_cannot_name_files_elsewhere(name: str, folder: Path) -> None:
    (folder / f"{UNET}.safetensors").unlink()
    index = folder / f"{UNET}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": name}}))
    with pytest.raises(ValueError, match=rf"index\.json names '{re.escape(name)}'; expected files beside it"):
        tintype.load(folder)


@pytest.mark.parametrize("content", ["", "{}", '{"weight_map": 3}', '{"weight_map": [1]}', '{"weight_map": {}}'])
def test_a_damaged_index_is_named(content: str, folder: Path) -> None:
    (folder / f"{UNET}.safetensors").unlink()
    (folder / f"{UNET}.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index\.json is damaged"):
        tintype.load(folder)


def test_tensors_that_are_missing_or_unexpected_name_the_component(folder: Path) -> None:
    rewritten(folder / f"{VAE}.safetensors", lambda name: name.replace("conv_norm_out", "elsewhere"))
    message = r"vae: 4 tensors are missing \(encoder\.conv_norm_out\.weight.*4 tensors are unexpected"
    with pytest.raises(ValueError, match=message):
        tintype.load(folder)


# latent-diffusion's pipelines


@torch.inference_mode()
def test_text_to_image(tmp_path: Path) -> None:
    config = small_ldm(zoo.TEXT)
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    bert = LDMBertModel(
        LDMBertConfig(
            vocab_size=len(WORDS),
            max_position_embeddings=77,
            encoder_layers=2,
            encoder_ffn_dim=96,
            encoder_attention_heads=8,
            head_dim=64,
            d_model=24,
        )
    )
    made = LDMTextToImagePipeline(
        vqvae=randomize(their_autoencoder(config.autoencoder), 1),
        bert=randomize(bert, 2),
        tokenizer=BertTokenizer(str(vocabulary)),
        unet=randomize(their_unet(config.unet, linear=False), 3),
        scheduler=DDIMScheduler(**SETTINGS, **BETAS, **STABLE),
    )
    made.unet.register_to_config(sample_size=8)
    model = opened(made, tmp_path / "folder")
    shutil.copy(vocabulary, tmp_path / "folder" / "tokenizer" / "vocab.txt")
    assert (model.config.name, model.config.size) == ("ldm-text2img", 64)
    request = tintype.Request(prompt="a red apple on the cafe", seed=4, steps=10, cfg_scale=3)
    *_, last = tintype.steps(model, request)
    start = Noise([4]).normal((4, 8, 8))
    theirs = decoded(made, ["a red apple on the cafe"], latents=start, num_inference_steps=10, guidance_scale=3.0)
    assert_drawn(model, last.x / (1 + last.sigma**2) ** 0.5, *theirs)


@torch.inference_mode()
def test_unconditional(tmp_path: Path) -> None:
    config = small_ldm(zoo.UNCONDITIONAL)
    vqvae = randomize(their_autoencoder(config.autoencoder), 1)
    vqvae.register_to_config(scaling_factor=1.0)
    unet = randomize(their_plain_unet(config.unet), 2)
    unet.register_to_config(sample_size=8)
    made = LDMPipeline(vqvae, unet, scheduler(config))
    model = opened(made, tmp_path)
    assert (model.config.name, model.config.size) == ("ldm-unconditional", 32)
    start = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    theirs = decoded(made, generator=torch.Generator().manual_seed(4), num_inference_steps=10)
    assert_drawn(model, walked(model, start, Conditioning()), *theirs)


@torch.inference_mode()
def test_super_resolution(tmp_path: Path) -> None:
    config = small_ldm(zoo.SUPER_RESOLUTION)
    unet = randomize(their_plain_unet(config.unet), 2)
    unet.register_to_config(sample_size=8)
    made = LDMSuperResolutionPipeline(
        vqvae=randomize(their_autoencoder(config.autoencoder), 1), unet=unet, scheduler=scheduler(config)
    )
    model = opened(made, tmp_path)
    assert (model.config.name, model.space.scale) == ("ldm-super-resolution", (1.0,))
    start = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    picture = torch.rand(1, 3, 8, 8) * 2 - 1
    theirs = decoded(made, picture, generator=torch.Generator().manual_seed(4), num_inference_steps=10)
    assert_drawn(model, walked(model, start, Conditioning(concat=picture)), *theirs)


def scheduler(config: FamilyConfig) -> DDIMScheduler:
    return DDIMScheduler(**SETTINGS, **STABLE, beta_start=config.schedule.start, beta_end=config.schedule.end)


def opened(made: DiffusionPipeline, folder: Path) -> LatentDiffusion:
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(folder)
    return tintype.load(folder)


def decoded(made: DiffusionPipeline, *given: object, **named: object) -> tuple[Tensor, Tensor]:
    """The latents that the pipeline decodes, and its picture."""
    seen: list[Tensor] = []
    decode = made.vqvae.decode

    def watched(latents: Tensor) -> object:
        seen.append(latents)
        return decode(latents)

    made.vqvae.decode = watched
    picture = torch.from_numpy(made(*given, **named, output_type="np").images)
    return seen[0], picture.permute(0, 3, 1, 2) * 2 - 1


def walked(model: LatentDiffusion, start: Tensor, cond: Conditioning) -> Tensor:
    ddim = preset("DDIMScheduler")
    sigmas = ddim.levels(model.denoiser.schedule, "leading", 10)
    denoise = guided(model.denoiser, [(1.0, cond)], None, Guidance())
    *_, last = SAMPLERS["ddim"](denoise, start * (1 + float(sigmas[0]) ** 2) ** 0.5, sigmas, Noise([0]))
    return ddim.ended(last.x, last.sigma)


def assert_drawn(model: LatentDiffusion, latents: Tensor, expected: Tensor, picture: Tensor) -> None:
    raw = model.space.unwrap(latents)
    assert difference(raw, expected) <= 1e-4
    assert float((model.autoencoder.decode(raw).clamp(-1, 1) - picture).abs().max()) <= 2 / 255
