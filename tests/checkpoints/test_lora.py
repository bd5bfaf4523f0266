"""LoRA files in everybody's words, against diffusers' pipelines with peft."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from family_oracles import SD, pipeline
from network_oracles import difference
from peft import LoraConfig, get_peft_model_state_dict
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from small_lora import small_lora
from torch import Tensor

import tintype
from tintype.checkpoints.lora import HEADER, differences, with_lora
from tintype.common.rng import Noise
from tintype.families import diffusers_names, ldm_names
from tintype.families.base import LatentDiffusion
from tintype.generation import latents
from tintype.tasks.task import resolve

RANK, ALPHA, STRENGTH = 4, 6, 0.7
UNET = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "ff.net.0.proj",
    "ff.net.2",
    "proj_in",
    "proj_out",
    "conv1",
    "time_emb_proj",
]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
Tensors = dict[str, Tensor]


@dataclasses.dataclass
class Oracle:
    """A family of which there is a pipeline, our model of the same weights, and a LoRA for it as peft names it, below
    `unet.` and `text_encoder.`."""

    name: str
    model: LatentDiffusion
    tensors: Tensors


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def oracle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    folder = tmp_path_factory.mktemp(request.param) / "folder"
    pipeline(request.param).save_pretrained(folder)
    yield Oracle(request.param, tintype.load(folder), _lora(request.param))
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()


def _lora(name: str) -> Tensors:
    made, found = pipeline(name), Tensors()
    for part in ("unet", "text_encoder", "text_encoder_2"):
        network = getattr(made, part, None)
        if network is None:
            continue
        targets = UNET if part == "unet" else TEXT
        network.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets, init_lora_weights="gaussian"))
        own = get_peft_model_state_dict(network)
        generator = torch.Generator().manual_seed(len(part))
        own = {key: torch.randn(value.shape, generator=generator) * 0.2 for key, value in own.items()}
        set_peft_model_state_dict(network, own)
        found |= {f"{part}.{key}": value for key, value in own.items()}
    return found


def kohya(tensors: Tensors) -> Tensors:
    """In the words of sd-scripts, with an alpha of its own."""
    begins = {"text_encoder_2.": "lora_te2_", "unet.": "lora_unet_"}
    begins["text_encoder."] = "lora_te1_" if any(name.startswith("text_encoder_2.") for name in tensors) else "lora_te_"
    found = Tensors()
    for name, tensor in tensors.items():
        begin = next(one for one in begins if name.startswith(one))
        layer, _, end = name.removeprefix(begin).partition(".lora_")
        layer = begins[begin] + layer.replace(".", "_")
        if begin.startswith("text") and "text_model" not in layer:  # transformers from 5.6 on
            layer = layer.replace("encoder_layers", "text_model_encoder_layers")
        found[f"{layer}.lora_{ {'A.weight': 'down', 'B.weight': 'up'}[end] }.weight"] = tensor
        found[f"{layer}.alpha"] = torch.tensor(float(ALPHA))
    return found


def old(tensors: Tensors) -> Tensors:
    """As diffusers' examples wrote it before peft."""
    ends = {"lora_A.weight": "lora.down.weight", "lora_B.weight": "lora.up.weight"}
    text = {"lora_A.weight": "lora_linear_layer.down.weight", "lora_B.weight": "lora_linear_layer.up.weight"}
    return {
        f"{layer}.{(text if layer.startswith('text') else ends)[f'lora_{end}']}": tensor
        for name, tensor in tensors.items()
        for layer, _, end in (name.partition(".lora_"),)
    }


def processors(tensors: Tensors) -> Tensors:
    """As attention processors of diffusers named the attention's layers alone."""
    found = Tensors()
    for name, tensor in tensors.items():
        layer, _, end = name.partition(".lora_")
        place, attention, rest = layer.rpartition(".attn")
        if layer.startswith("unet.") and attention:
            number, _, linear = rest.partition(".")
            way = {"A.weight": "down", "B.weight": "up"}[end]
            linear = linear.removesuffix(".0")
            found[f"{place}.attn{number}.processor.{linear}_lora.{way}.weight"] = tensor
    return found


def saved(tmp_path: Path, tensors: Tensors, **header: str) -> Path:
    path = tmp_path / "style.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=header or None)
    return path


def drawn(model: LatentDiffusion, *lora: str, prompt: str = "A picture of a puppy") -> Tensor:
    asked = tintype.Request(
        prompt=prompt, seed=3, steps=4, cfg_scale=5, width=64, height=64, sampler="DDIMScheduler", lora=lora
    )
    request = resolve(model, asked)
    *_, last = tintype.steps(model, request)
    return latents(model, request, last)


def theirs_drawn(theirs: DiffusionPipeline, strength: float) -> Tensor:
    return theirs(
        "A picture of a puppy",
        num_inference_steps=4,
        guidance_scale=5.0,
        height=64,
        width=64,
        latents=Noise([3]).normal((4, 8, 8)),
        output_type="latent",
        cross_attention_kwargs={"scale": strength},
    ).images


@pytest.mark.parametrize("words", [dict, kohya, old])
@torch.inference_mode()
def test_it_draws_as_diffusers_does(oracle: Oracle, words: Callable[[Tensors], Tensors], tmp_path: Path) -> None:
    path = saved(tmp_path, words(oracle.tensors))
    theirs = pipeline(oracle.name)  # anew: what is unloaded leaves something in its text towers
    theirs.load_lora_weights(str(path))
    expected = theirs_drawn(theirs, STRENGTH)
    before = drawn(oracle.model)
    assert difference(drawn(oracle.model, f"{path}:{STRENGTH}"), expected) <= 1e-4
    assert difference(before, expected) > 1e-2, "the LoRA changes nothing: nothing is compared"
    assert torch.equal(drawn(oracle.model), before)  # the model is as it was


def test_every_tensor_counts(oracle: Oracle, tmp_path: Path) -> None:
    """Of the whole difference, layer by layer, in all words."""
    expected = differences(saved(tmp_path, oracle.tensors), oracle.model)
    assert len(expected) == len(oracle.tensors) / 2
    for words, layers, factor in (
        (kohya, len(expected), ALPHA / RANK),
        (old, len(expected), 1),
        (processors, sum(".attn" in name for name in expected), 1),
    ):
        got = differences(saved(tmp_path, words(oracle.tensors)), oracle.model)
        assert len(got) == layers
        for name, one in got.items():
            assert torch.equal(one.up, expected[name].up)
            assert torch.equal(one.down, expected[name].down)
            assert one.factor == pytest.approx(factor)


def test_names_of_ldm_are_those_of_diffusers(oracle: Oracle, tmp_path: Path) -> None:
    """As sd-scripts names SDXL's."""
    family = SD[oracle.name]
    config = oracle.model.config.unet
    theirs = diffusers_names.unet_names(config, projection=family.projection)
    ldm = ldm_names.unet_names(config, projection=family.projection)
    by_ours = {rule.ours: rule.theirs.removesuffix(".weight") for rule in ldm.rules}
    names = {
        rule.theirs.removesuffix(".weight").replace(".", "_"): by_ours[rule.ours].replace(".", "_")
        for rule in theirs.rules
        if rule.theirs.endswith(".weight")
    }
    plain = {name: one for name, one in kohya(oracle.tensors).items() if name.startswith("lora_unet_")}
    other = Tensors()
    for name, tensor in plain.items():
        layer, _, end = name.removeprefix("lora_unet_").partition(".")
        other[f"lora_unet_{names[layer]}.{end}"] = tensor
    assert not set(other) & {name for name in plain if "block" in name}
    expected = differences(saved(tmp_path, plain), oracle.model)
    got = differences(saved(tmp_path, other), oracle.model)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name].up, expected[name].up) for name in got)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default", device="cpu")


def test_several_add_up_and_none_is_forgotten(model: LatentDiffusion, tmp_path: Path) -> None:
    tensors = small_lora()
    one, other = (saved(tmp_path / name, part) for name, part in _halves(tmp_path, tensors))
    whole = saved(tmp_path, tensors)
    together = drawn(model, f"{one}:0.5", f"{other}:0.5")
    assert difference(together, drawn(model, f"{whole}:0.5")) <= 1e-6
    assert difference(together, drawn(model, f"{one}:0.5")) > 1e-3
    assert torch.equal(drawn(model, f"{whole}:0"), drawn(model))


def _halves(tmp_path: Path, tensors: Tensors) -> list[tuple[str, Tensors]]:
    names = sorted(tensors)
    cut = len(names) // 4 * 2  # both of a layer are neighbours
    halves = [("one", names[:cut]), ("other", names[cut:])]
    for name, _ in halves:
        (tmp_path / name).mkdir()
    return [(name, {key: tensors[key] for key in keys}) for name, keys in halves]


def test_what_a_picture_tells_of_it_repeats_it(model: LatentDiffusion, tmp_path: Path) -> None:
    path = saved(tmp_path, small_lora())
    request = tintype.Request(prompt="a red apple", seed=1, steps=3, lora=(f"{path}:0.5",))
    [picture] = tintype.generate(model, request)
    told = picture.info["parameters"]
    assert "LoRA: " in told
    assert "style@" in told
    assert str(tmp_path) not in json.dumps(picture.info)
    [plain] = tintype.generate(model, dataclasses.replace(request, lora=()))
    assert (np.asarray(plain) != np.asarray(picture)).any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: {"a.hada_w1_a": torch.ones(2, 2)}, "hada_w1_a is of another kind"),
        (
            lambda tensors: tensors | {"lora_unet_nowhere.lora_up.weight": torch.ones(2, 2)},
            "1 of .* no layer of tintype",
        ),
        (lambda tensors: {"weight": torch.ones(2, 2)}, "1 of 1 tensors"),
        (lambda tensors: dict(list(tensors.items())[:-1]), "stands alone"),
        (lambda tensors: {name: one[:, :-1].contiguous() for name, one in tensors.items()}, "expected factors of"),
    ],
)
def test_what_is_none_of_this_models_is_refused(
    model: LatentDiffusion, tmp_path: Path, change: Callable[[Tensors], Tensors], sentence: str
) -> None:
    path = saved(tmp_path, change(small_lora()))
    with pytest.raises(ValueError, match=sentence):
        tintype.steps(model, tintype.Request(prompt="a dog", lora=(str(path),)))


@pytest.mark.parametrize("text", ["nowhere.safetensors", "nowhere.safetensors:11", "nowhere.safetensors:nan"])
def test_no_such_file_and_no_such_strength(model: LatentDiffusion, text: str) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        tintype.steps(model, tintype.Request(prompt="a dog", lora=(text,)))


def test_alpha_in_the_header_counts_and_variants_are_refused(model: LatentDiffusion, tmp_path: Path) -> None:
    tensors = {name.replace("lora_unet_", "unet."): one for name, one in small_lora().items()}

    def header(**more: object) -> dict[str, str]:
        return {HEADER: json.dumps({"unet.r": 2, "unet.lora_alpha": 3, **{f"unet.{k}": v for k, v in more.items()}})}

    found = differences(saved(tmp_path, tensors, **header(use_rslora=False)), model)
    assert {one.factor for one in found.values()} == {1.5}
    with pytest.raises(ValueError, match="use_rslora is set"):
        differences(saved(tmp_path, tensors, **header(use_rslora=True)), model)


def test_a_model_with_it_shares_all_other_weights(model: LatentDiffusion, tmp_path: Path) -> None:
    path = saved(tmp_path, small_lora())
    changed = with_lora(model, path, 1.0)
    names = set(differences(path, model))
    for part, network in model.networks.items():
        other = dict(changed.networks[part].named_parameters())
        for name, tensor in network.named_parameters():
            assert (other[name] is not tensor) == (f"{part}.{name}" in names)
    assert load_file(path).keys() == small_lora().keys()  # nothing was written
