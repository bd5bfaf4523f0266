"""CLIPs of others open as they are, and ours as it was saved."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from network_oracles import difference, randomize
from open_clip_oracles import normalised, their_open_clip
from safetensors.torch import save_file
from test_clip_pair import GELU, MEAN, SIGMOID, SMALL, VIT_B32, inputs, their_clip

from tintype.checkpoints.clip import load_clip, save_clip
from tintype.conditioning.clip import CLIPModel, CLIPModelConfig
from tintype.families.clip_configs import clip_from_shapes, layout_of
from tintype.families.clip_names import open_clip_pair_names, transformers_clip_names
from tintype.models.clip_pair import CLIP, CLIPConfig


def fitted(config: CLIPConfig, *, head: int = 64) -> CLIPConfig:
    """With CLIP's whole vocabulary and heads as wide as released ones."""
    text = dataclasses.replace(config.text, vocabulary_size=49_408, width=head, num_heads=1)
    return dataclasses.replace(
        config, text=text, image=dataclasses.replace(config.image, width=2 * head, num_heads=2, mlp_width=300)
    )


def open_clip_json(config: CLIPConfig) -> dict[str, object]:
    image, text = config.image, config.text
    vision = {"image_size": image.image_size, "layers": image.num_layers, "width": image.width}
    vision |= {"patch_size": image.patch_size, "head_width": image.width // image.num_heads}
    if image.pooling == "mean":
        vision["pool_type"] = "avg"
    tower = {"context_length": text.context_length, "vocab_size": text.vocabulary_size, "width": text.width}
    model: dict[str, object] = {
        "embed_dim": text.projection_dim,
        "vision_cfg": vision,
        "text_cfg": tower | {"heads": text.num_heads, "layers": text.num_layers},
    }
    if config.logit_bias:
        model["init_logit_bias"] = -10
    return {"model_cfg": model, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]}}


def whole(config: CLIPConfig) -> CLIPConfig:
    return dataclasses.replace(config, text=dataclasses.replace(config.text, vocabulary_size=49_408))


@torch.inference_mode()
def test_a_folder_of_transformers(tmp_path: Path) -> None:
    config = whole(GELU)
    theirs = randomize(their_clip(config))
    theirs.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    model = load_clip(tmp_path)
    half = (0.5, 0.5, 0.5)
    config = dataclasses.replace(config, image=dataclasses.replace(config.image, mean=half, std=half))
    assert model.network.config == config
    image, ids, end = inputs(config)
    expected = theirs(input_ids=ids, pixel_values=normalised(image, config))
    images, texts = model.network(image, ids, end)
    assert difference(images, expected.image_embeds) <= 1e-5
    assert difference(texts, expected.text_embeds) <= 1e-5


@pytest.mark.parametrize("config", [GELU, MEAN, SIGMOID], ids=["class", "mean", "sigmoid"])
@torch.inference_mode()
def test_a_folder_of_open_clip(config: CLIPConfig, tmp_path: Path) -> None:
    config = whole(config)
    theirs = randomize(their_open_clip(config))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_json(config)))
    save_file(theirs.state_dict(), tmp_path / "open_clip_model.safetensors")
    model = load_clip(tmp_path)
    config = dataclasses.replace(
        config, image=dataclasses.replace(config.image, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 0.5))
    )
    assert model.network.config == config
    image, ids, end = inputs(config)
    for got, expected in zip(model.network(image, ids, end), theirs(normalised(image, config), ids)[:2], strict=True):
        assert difference(got, expected) <= 1e-5


@pytest.mark.parametrize(
    ("layout", "base"), [("transformers", GELU), ("open_clip", SIGMOID)], ids=["transformers", "open_clip"]
)
def test_one_file_is_told_by_its_shapes(layout: str, base: CLIPConfig, tmp_path: Path) -> None:
    config = fitted(base)
    ours = randomize(CLIP(config))
    names = transformers_clip_names(config) if layout == "transformers" else open_clip_pair_names(config)
    file = tmp_path / "clip.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in names.to_theirs(ours.state_dict()).items()}
    if layout == "transformers":
        tensors["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"do not tell the activation; say quick_gelu \(OpenAI's weights\) or gelu"):
        load_clip(file)
    model = load_clip(file, activation="gelu")
    assert model.network.config == config
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


def test_shapes_tell_the_released_sizes() -> None:
    with torch.device("meta"):
        clip = CLIP(VIT_B32)
    for names in (transformers_clip_names(VIT_B32), open_clip_pair_names(VIT_B32)):
        shapes = {name: tuple(tensor.shape) for name, tensor in names.to_theirs(clip.state_dict()).items()}
        layout = layout_of(shapes)
        assert layout is not None
        assert clip_from_shapes(shapes, layout, "quick_gelu") == VIT_B32


def test_ours_comes_back_with_its_words(tmp_path: Path) -> None:
    words = ("apple", "red")
    config = dataclasses.replace(SMALL, text=dataclasses.replace(SMALL.text, vocabulary_size=4))
    before = CLIPModel(randomize(CLIP(config)), words)
    file = tmp_path / "clip.safetensors"
    save_clip(file, CLIPModelConfig(clip=config, words=words), before.network.state_dict(), dtype=torch.float32)
    after = load_clip(file)
    assert after.config == before.config
    captions = ["red apple", "apple"]
    assert torch.equal(after.encode_captions(captions), before.encode_captions(captions))
    assert not torch.equal(*after.encode_captions(captions))


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no CLIP; expected config\.json or open_clip_config\.json in it"):
        load_clip(tmp_path)
    file = tmp_path / "some.safetensors"
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"holds no CLIP; expected both towers"):
        load_clip(file)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(ValueError, match=r"model_type is 'siglip'; expected 'clip'"):
        load_clip(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": {"hidden_act": "relu"}}))
    with pytest.raises(ValueError, match=r"hidden_act: got 'relu'; expected quick_gelu or gelu"):
        load_clip(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        load_clip(tmp_path)
    told = open_clip_json(GELU)
    told["model_cfg"]["vision_cfg"]["timm_model_name"] = "eva"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"has no 'timm_model_name'"):
        load_clip(tmp_path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    config = fitted(GELU)
    tensors = open_clip_pair_names(config).to_theirs(CLIP(config).state_dict())
    del tensors["visual.ln_post.bias"]
    file = tmp_path / "clip.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    with pytest.raises(ValueError, match=r"1 tensors are missing \(visual\.ln_post\.bias\)"):
        load_clip(file, activation="gelu")
