"""Models written again in another layout: diffusers opens the folders, and the way back loses nothing."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from family_oracles import BETAS, PIPELINES, SD, SETTINGS, STABLE, pipeline, save_single_file, single_file, small
from safetensors.torch import load_file
from test_families import same
from torch import Tensor

import tintype
from tintype.apps.cli import main
from tintype.checkpoints import convert as converting
from tintype.checkpoints.convert import convert
from tintype.checkpoints.diffusers_folder import family_config, read_pipeline
from tintype.checkpoints.diffusers_write import save_diffusers_folder
from tintype.checkpoints.single_file import save_single_file as save_ours
from tintype.checkpoints.tensors import open_tensors
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.schedule import DDPMConfig
from tintype.families.base import FamilyConfig, LatentDiffusion
from tintype.families.detect import ENTRANCE

DTYPES = ("float32", "float16", "bfloat16")
SCHEDULE = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type")
UNUSED = {  # of a component's configuration; sizes of pictures are not in a single file, which they come from here
    *(
        "_name_or_path",
        "_use_default_values",
        "sample_size",
        "architectures",
        "dtype",
        "transformers_version",
        "_diffusers_version",
        "_class_name",
    ),
    *("pad_token_id", "projection_dim"),
}


@dataclasses.dataclass
class Oracle:
    """A pipeline, and the same weights in both layouts."""

    pipeline: DiffusionPipeline
    folder: Path
    file: Path


def made(name: str, place: Path) -> Oracle:
    theirs = pipeline(name)
    theirs.save_pretrained(place / "folder")
    return Oracle(theirs, place / "folder", save_single_file(place / "it.safetensors", single_file(name, theirs)))


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return made("sd1", tmp_path_factory.mktemp("sd1"))


@pytest.fixture
def model(sd1: Oracle) -> LatentDiffusion:
    return tintype.load(sd1.folder)


def networks(theirs: DiffusionPipeline) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in theirs.components.items() if isinstance(part, torch.nn.Module)}


def settings(config: object) -> dict[str, object]:
    """A component's, lists and tuples alike."""
    found = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.loads(json.dumps({name: one for name, one in found.items() if name not in UNUSED}, default=str))


def assert_same(found: DiffusionPipeline, theirs: DiffusionPipeline) -> None:
    """In the weights and settings of every part, and how a prompt becomes ids."""
    assert networks(found).keys() == networks(theirs).keys()
    for name, network in networks(theirs).items():
        other = getattr(found, name)
        assert type(other) is type(network)
        same(other.state_dict(), network.state_dict())
        assert settings(other.config) == settings(network.config), name
    for name in ("force_zeros_for_empty_prompt", "requires_aesthetics_score", "requires_safety_checker"):
        assert found.config.get(name) == theirs.config.get(name), name
    for name in [name for name in theirs.components if name.startswith("tokenizer")]:
        got, expected = (
            one and one("A puppy, café", padding="max_length").input_ids
            for one in (getattr(found, name), getattr(theirs, name))
        )
        assert got == expected


# Every family


@pytest.mark.parametrize("name", [name for name in SD if name != "sd2-depth"])
def test_a_file_becomes_a_folder_that_diffusers_opens_and_a_file_again(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, config = pipeline(name), small(SD[name])
    stored = single_file(name, theirs)
    asked = ["convert", str(save_single_file(tmp_path / "it.safetensors", stored)), str(tmp_path / "folder")]
    if name in ("sd2", "sd2-v"):  # which the file does not tell
        assert main(asked) == 2
        assert "--prediction" in capsys.readouterr().err
        asked += ["--prediction", config.prediction]
    assert main(asked) == 0
    found = DiffusionPipeline.from_pretrained(tmp_path / "folder")
    assert type(found).__name__ == PIPELINES[name]
    assert_same(found, theirs)
    assert found.unet.config.sample_size == SD[name].config.size // config.autoencoder.factor
    for scheduler in ("scheduler", "low_res_scheduler"):
        got, expected = (one.components.get(scheduler) for one in (found, theirs))
        assert (got is None) == (expected is None)
        for setting in SCHEDULE if expected is not None else ():
            assert got.config[setting] == expected.config[setting], (scheduler, setting)
    convert(tmp_path / "folder", tmp_path / "again.safetensors")
    written = load_file(tmp_path / "again.safetensors")
    assert not written.keys() - stored.keys(), "names that no released file has"
    same(written, {key: stored[key] for key in written})
    again = tintype.load(tmp_path / "again.safetensors")  # which tells what it predicts, and holds all that is needed
    assert again.config == dataclasses.replace(config, size=SD[name].config.size)


@pytest.mark.parametrize("name", ["sd1", "sdxl-refiner"])
def test_a_folder_becomes_the_folder_it_was(name: str, sd1: Oracle, tmp_path: Path) -> None:
    """With the size of its pictures, and its scheduler."""
    oracle = sd1 if name == "sd1" else made(name, tmp_path)
    again = tmp_path / "again"
    convert(oracle.folder, again)
    assert tintype.load(again).config == tintype.load(oracle.folder).config
    found = DiffusionPipeline.from_pretrained(again)
    assert_same(found, oracle.pipeline)
    assert found.unet.config.sample_size == oracle.pipeline.unet.config.sample_size == 8
    assert found.vae.config.sample_size == 64
    assert settings(found.scheduler.config) == settings(oracle.pipeline.scheduler.config)


def test_a_depth_model_becomes_a_file_and_no_folder(tmp_path: Path) -> None:
    stored = single_file("sd2-depth", pipeline("sd2-depth"))
    file = save_single_file(tmp_path / "it.safetensors", stored)
    with pytest.raises(ValueError, match=r"holds a depth estimator, which .*expected a target in \.safetensors"):
        convert(file, tmp_path / "folder")
    convert(file, tmp_path / "again.safetensors")
    written = load_file(tmp_path / "again.safetensors")
    same(written, {key: stored[key] for key in written})
    assert tintype.load(tmp_path / "again.safetensors").config.name == "sd2-depth"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' and numpy's
@torch.inference_mode()
def test_the_folder_draws_what_the_model_does(sd1: Oracle, tmp_path: Path) -> None:
    convert(sd1.file, tmp_path / "folder")
    theirs = DiffusionPipeline.from_pretrained(tmp_path / "folder", safety_checker=None)
    theirs.set_progress_bar_config(disable=True)
    asked = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np"}
    got, expected = (
        one("a puppy", generator=torch.Generator().manual_seed(1), **asked).images
        for one in (theirs, type(theirs)(**(theirs.components | networks(sd1.pipeline)), requires_safety_checker=False))
    )
    assert np.ptp(got) > 0.1
    assert np.abs(got - expected).max() <= 1e-5  # weights lie otherwise in memory


# Precision


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_precision_is_the_one_asked_for_or_else_the_sources(dtype: str, sd1: Oracle, tmp_path: Path) -> None:
    kind = getattr(torch, dtype)
    convert(sd1.folder, tmp_path / "first.safetensors", dtype=dtype)
    convert(tmp_path / "first.safetensors", tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "own", layout="tintype")
    convert(tmp_path / "own", tmp_path / "last.safetensors")
    files = list(tmp_path.rglob("*.safetensors"))
    assert len(files) == 2 + 3 + 3
    for file in files:
        assert {one.dtype for one in load_file(file).values()} == {kind}, file
    first, stored = load_file(tmp_path / "first.safetensors"), load_file(sd1.file)
    same(first, {name: stored[name].to(kind) for name in first})
    same(load_file(tmp_path / "last.safetensors"), first)


def test_the_variant_asked_for_is_written_as_it_is(sd1: Oracle, tmp_path: Path) -> None:
    sd1.pipeline.save_pretrained(tmp_path / "folder")
    unet = tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors"
    halves = {name: one.half() for name, one in load_file(unet).items()}
    save_single_file(unet.with_suffix(".fp16.safetensors"), halves)
    for variant, kind in (("fp16", torch.float16), (None, torch.float32)):
        convert(tmp_path / "folder", tmp_path / f"{variant}.safetensors", variant=variant)
        assert open_tensors(tmp_path / f"{variant}.safetensors").dtype(ENTRANCE) == kind


@pytest.mark.parametrize(("stored", "kind"), [(torch.float8_e4m3fn, torch.float16), (torch.float64, torch.float32)])
def test_other_precisions_are_written_in_one_that_holds_them(
    stored: torch.dtype, kind: torch.dtype, sd1: Oracle, tmp_path: Path
) -> None:
    unet = {
        name: one.to(stored) for name, one in load_file(sd1.file).items() if name.startswith("model.diffusion_model")
    }
    source = save_single_file(tmp_path / "it.safetensors", load_file(sd1.file) | unet)
    convert(source, tmp_path / "new.safetensors")
    written = load_file(tmp_path / "new.safetensors")
    assert {one.dtype for one in written.values()} == {kind}
    same({name: written[name] for name in unet}, {name: one.to(kind) for name, one in unet.items()})


# Schedulers


@pytest.mark.parametrize(
    ("scheduler", "sampler"),
    [
        (PNDMScheduler(**SETTINGS, **BETAS, skip_prk_steps=True), "PNDMScheduler"),
        (PNDMScheduler(**SETTINGS, **BETAS), "pndm"),
        (DPMSolverMultistepScheduler(**SETTINGS, **BETAS), "DPMSolverMultistepScheduler"),
        (
            DPMSolverMultistepScheduler(**SETTINGS, **BETAS, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True),
            "dpmpp_2m_sde",
        ),
        (EulerDiscreteScheduler(**SETTINGS, **BETAS, timestep_spacing="trailing"), "EulerDiscreteScheduler"),
        (UniPCMultistepScheduler(**SETTINGS, **BETAS, prediction_type="v_prediction"), "UniPCMultistepScheduler"),
        (LCMScheduler(**SETTINGS, **BETAS, set_alpha_to_one=False), "LCMScheduler"),
        (DDIMScheduler(**SETTINGS, **BETAS, **STABLE, rescale_betas_zero_snr=True), "DDIMScheduler"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_folder_keeps_its_scheduler(
    scheduler: SchedulerMixin, sampler: str, sd1: Oracle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every setting of it, in its own class."""
    first = with_scheduler(sd1.folder, tmp_path / "first", scheduler)
    convert(first, tmp_path / "folder")
    assert not caplog.records
    assert described(tmp_path / "folder").sampler == described(first).sampler == sampler
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", type(scheduler).__name__]
    expected = settings(scheduler.config)
    got = settings(type(scheduler).from_pretrained(tmp_path / "folder" / "scheduler").config)
    assert {name: got[name] for name in expected} == expected


def with_scheduler(folder: Path, target: Path, scheduler: SchedulerMixin) -> Path:
    shutil.copytree(folder, target, copy_function=os.link)
    (target / "scheduler" / "scheduler_config.json").unlink()
    scheduler.save_pretrained(target / "scheduler")
    return target


def described(folder: Path) -> FamilyConfig:
    return family_config(read_pipeline(folder), None, None)[0]


def test_a_scheduler_that_does_not_say_starts_with_runge_kutta(sd1: Oracle, tmp_path: Path) -> None:
    """As diffusers takes a PNDM file without skip_prk_steps."""
    folder = with_scheduler(sd1.folder, tmp_path / "folder", PNDMScheduler(**SETTINGS, **BETAS))
    path = folder / "scheduler" / "scheduler_config.json"
    said = json.loads(path.read_text())
    assert said.pop("skip_prk_steps") is False
    path.write_text(json.dumps(said))
    assert PNDMScheduler.from_pretrained(path.parent).config.skip_prk_steps is False
    assert described(folder).sampler == "pndm"


def test_a_sampler_that_diffusers_has_not_is_told(
    model: LatentDiffusion, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_diffusers_folder(tmp_path / "known", with_config(model, sampler="dpmpp_2m_sde"), dtype=torch.float32)
    assert not caplog.records
    save_diffusers_folder(tmp_path / "folder", with_config(model, sampler="dpm_adaptive"), dtype=torch.float32)
    assert "no scheduler of diffusers samples as dpm_adaptive does; the folder says DDIMScheduler" in caplog.text
    assert described(tmp_path / "folder").sampler == "DDIMScheduler"


# What one file tells, and what it does not


def with_config(model: LatentDiffusion, **changes: object) -> LatentDiffusion:
    return dataclasses.replace(model, config=dataclasses.replace(model.config, **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: {"unet": dataclasses.replace(config.unet, num_heads=4)}, "unet.num_heads is 4, not 8"),
        (lambda config: {"schedule": DDPMConfig(start=0.0001)}, "schedule.start is 0.0001, not 0.00085"),
        (
            lambda config: {"conditioner": dataclasses.replace(config.conditioner, pad="zero")},
            "conditioner.pad is zero, not None",
        ),
        (lambda _: {"space": LatentSpace(shift=(0.5,))}, r"space.shift is \[0.5\], not \[0.0\]"),
        (
            lambda _: {"space": LatentSpace(scale=(1.0, 2.0, 3.0, 4.0))},
            r"space.scale is \[1.0, 2.0, 3.0, 4.0\], not \[1.0\]",
        ),
    ],
)
def test_what_one_file_does_not_tell_is_refused_by_field(
    change: Callable[..., dict[str, object]], message: str, model: LatentDiffusion, tmp_path: Path
) -> None:
    said = rf"^one file does not tell that {message} \(it would open as sd1\); expected a folder as target$"
    with pytest.raises(ValueError, match=said):
        save_ours(tmp_path / "it.safetensors", with_config(model, **change(model.config)), dtype=torch.float32)
    assert not list(tmp_path.iterdir())


def test_marks_in_one_file_are_read_again(model: LatentDiffusion, tmp_path: Path) -> None:
    """The scale of latents, exactly; a terminal signal of zero; the prediction."""
    marked = with_config(
        model, space=LatentSpace(scale=(0.13025,)), schedule=DDPMConfig(zero_terminal_snr=True), prediction="v"
    )
    save_ours(tmp_path / "it.safetensors", marked, dtype=torch.float16)
    config = tintype.load(tmp_path / "it.safetensors").config
    for part in ("space", "schedule", "prediction"):
        assert getattr(config, part) == getattr(marked.config, part), part


# The embedded model


def test_the_embedded_model_is_written_only_as_it_is(tmp_path: Path) -> None:
    convert("default", tmp_path / "again", layout="tintype")
    own, again = tintype.load("default"), tintype.load(tmp_path / "again")
    assert (again.digest, again.config) == (own.digest, own.config)
    request = tintype.Request(prompt="a red apple", seed=7, steps=2)
    got, expected = (np.asarray(tintype.generate(one, request)[0]) for one in (again, own))
    assert np.array_equal(got, expected)
    for target in ("it.safetensors", "folder"):
        with pytest.raises(ValueError, match=r"the model is of the family .*; expected a released one: sd1, "):
            convert("default", tmp_path / target)
        assert not (tmp_path / target).exists()


# Targets


@pytest.mark.parametrize(
    ("target", "layout", "message"),
    [
        ("there", None, "there is there already; expected a new name"),
        ("nowhere/new", None, "nowhere is no folder; expected one that is there"),
        ("nowhere/new.safetensors", None, "nowhere is no folder; expected one that is there"),
        *(
            (f"it{ending}", None, "expected a name in .safetensors for one file")
            for ending in (".ckpt", ".bin", ".png", ".json")
        ),
        ("it.SAFETENSORS", None, "expected a name in .safetensors for one file"),
        ("it.ckpt", "diffusers", "expected a name in .safetensors for one file"),
        ("it.ckpt", "single", "expected a name in .safetensors for one file"),
        ("it", "single", "expected a name in .safetensors for one file"),
        ("it.safetensors", "diffusers", "no such ending for a folder"),
        ("it.safetensors", "tintype", "no such ending for a folder"),
        ("it", "ldm", "ldm"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_anything_is_opened(
    target: str, layout: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(converting, "load", None)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, tmp_path / target, layout=layout)
    assert [one.name for one in tmp_path.iterdir()] == ["there"]


def test_a_folder_may_have_dots_in_its_name(sd1: Oracle, tmp_path: Path) -> None:
    for name, layout in (("sd-v1.5", None), ("new.inpainting", "diffusers")):
        convert(sd1.folder, tmp_path / name, layout=layout)
        assert (tmp_path / name / "model_index.json").is_file()


# The command line


def test_the_command_writes_and_says_where(sd1: Oracle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "it.safetensors"
    assert main(["convert", str(sd1.folder), str(target), "--dtype", "bfloat16"]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert {one.dtype for one in load_file(target).values()} == {torch.bfloat16}
    assert main(["convert", str(target), str(tmp_path / "own"), "--layout", "tintype"]) == 0
    assert (tmp_path / "own" / "model.json").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "is there already; expected a new name"),
        ({1: "no/where"}, "no is no folder"),
        ({0: "missing", 1: "new"}, "no model 'missing'"),
        ({0: "default", 1: "new"}, "the model is of the family"),
        ({1: "new", 2: "--dtype=int8"}, "int8"),
    ],
)
def test_the_command_says_what_is_wrong(
    changes: dict[int, str],
    message: str,
    sd1: Oracle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(sd1.folder), ".", "--dtype=float32"]
    for place, one in changes.items():
        arguments[place] = one
    assert main(["convert", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tintype convert: ")
    assert message in said.err
    assert not list(tmp_path.iterdir())


def test_an_autoencoder_given_beside_it_is_written_too(sd1: Oracle, tmp_path: Path) -> None:
    def other(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: one + 1 for name, one in tensors.items() if name.startswith("first_stage_model.")}

    vae = save_single_file(tmp_path / "vae.safetensors", other(load_file(sd1.file)))
    convert(sd1.file, tmp_path / "it.safetensors", vae=vae)
    written = load_file(tmp_path / "it.safetensors")
    same({name: written[name] for name in load_file(vae)}, load_file(vae))
