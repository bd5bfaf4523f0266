"""CLIP whole against transformers and open_clip on small random weights; full-size names are bijections."""

import dataclasses
import math

import pytest
import torch
from network_oracles import assert_counterparts, difference, randomize
from open_clip_oracles import normalised, their_open_clip
from torch import Tensor, nn
from transformers import CLIPConfig as TheirConfig
from transformers import CLIPModel, CLIPVisionModelWithProjection
from transformers import CLIPVisionConfig as TheirImageConfig

from tintype.families.clip_names import clip_image_names, open_clip_pair_names, transformers_clip_names
from tintype.models.clip import CLIPTextConfig
from tintype.models.clip_image import CLIPImage, CLIPImageConfig
from tintype.models.clip_pair import CLIP, CLIPConfig

TOLERANCE = 1e-5
TEXT = CLIPTextConfig(vocabulary_size=60, context_length=16, width=32, num_layers=2, num_heads=4, projection_dim=20)
IMAGE = CLIPImageConfig(image_size=32, patch_size=8, width=48, num_layers=3, num_heads=4, projection_dim=20)
SMALL = CLIPConfig(text=TEXT, image=IMAGE)
GELU = CLIPConfig(
    text=dataclasses.replace(TEXT, activation="gelu"), image=dataclasses.replace(IMAGE, activation="gelu")
)
MEAN = dataclasses.replace(GELU, image=dataclasses.replace(GELU.image, pooling="mean"))
SIGMOID = dataclasses.replace(GELU, logit_bias=True)
VIT_B32 = CLIPConfig(
    text=CLIPTextConfig(width=512, num_heads=8, projection_dim=512),
    image=CLIPImageConfig(),
)
VIT_L14 = CLIPConfig(
    text=CLIPTextConfig(projection_dim=768),
    image=CLIPImageConfig(patch_size=14, width=1024, num_layers=24, num_heads=16, projection_dim=768),
)


def their_image_settings(config: CLIPImageConfig) -> dict[str, object]:
    return {
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_act": config.activation,
        "projection_dim": config.projection_dim,
    }


def their_clip(config: CLIPConfig) -> CLIPModel:
    text = config.text
    settings = {
        "vocab_size": text.vocabulary_size,
        "max_position_embeddings": text.context_length,
        "hidden_size": text.width,
        "intermediate_size": 4 * text.width,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "hidden_act": text.activation,
        "bos_token_id": text.vocabulary_size - 2,
        "eos_token_id": text.vocabulary_size - 1,
    }
    return CLIPModel(
        TheirConfig(
            text_config=settings,
            vision_config=their_image_settings(config.image),
            projection_dim=text.projection_dim,
        )
    ).eval()


def inputs(config: CLIPConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures in [-1, 1], ids with the end of text at different places, and those places."""
    drawn = torch.Generator().manual_seed(3)
    size, last = config.image.image_size, config.text.vocabulary_size - 1
    image = torch.rand(3, 3, size, size, generator=drawn) * 2 - 1
    ids, end = torch.randint(last, (3, 16), generator=drawn), torch.tensor([3, 9, 15])
    for row, place in zip(ids, end.tolist(), strict=True):
        row[place:] = last
    return image, ids, end


@pytest.mark.parametrize("config", [SMALL, GELU], ids=["quick_gelu", "gelu"])
@torch.inference_mode()
def test_equals_transformers(config: CLIPConfig) -> None:
    theirs, ours = randomize(their_clip(config)), CLIP(config).eval()
    ours.load_state_dict(transformers_clip_names(config).to_ours(theirs.state_dict()))
    image, ids, end = inputs(config)
    expected = theirs(input_ids=ids, pixel_values=normalised(image, config))
    images, texts = ours(image, ids, end)
    assert difference(images, expected.image_embeds) <= TOLERANCE
    assert difference(texts, expected.text_embeds) <= TOLERANCE
    logits = ours.logit_scale.exp() * images @ texts.T
    assert difference(logits, expected.logits_per_image) <= TOLERANCE


@torch.inference_mode()
def test_the_image_tower_equals_transformers() -> None:
    theirs = randomize(CLIPVisionModelWithProjection(TheirImageConfig(**their_image_settings(IMAGE))))
    ours = CLIPImage(IMAGE).eval()
    ours.load_state_dict(clip_image_names(IMAGE).to_ours(theirs.state_dict()))
    image, *_ = inputs(SMALL)
    got, expected = ours(image), theirs(normalised(image, SMALL), output_hidden_states=True)
    assert difference(got.pooled, expected.image_embeds) <= TOLERANCE
    assert len(got.hidden) == len(expected.hidden_states) == IMAGE.num_layers + 1
    for one, other in zip(got.hidden, expected.hidden_states, strict=True):
        assert difference(one, other) <= TOLERANCE
    features = ours.features(image)
    assert [one.shape for one in features] == [(3, 48, 4, 4)] * IMAGE.num_layers
    for one, other in zip(features, expected.hidden_states[1:], strict=True):
        assert difference(one[:, :, 1, 2], other[:, 1 + 1 * 4 + 2]) <= TOLERANCE


@pytest.mark.parametrize("config", [SMALL, GELU, MEAN, SIGMOID], ids=["quick_gelu", "gelu", "mean", "sigmoid"])
@torch.inference_mode()
def test_equals_open_clip(config: CLIPConfig) -> None:
    theirs, ours = randomize(their_open_clip(config)), CLIP(config).eval()
    names = open_clip_pair_names(config)
    ours.load_state_dict(names.to_ours(theirs.state_dict()))
    back = names.to_theirs(ours.state_dict())
    assert all(torch.equal(back[name], value) for name, value in theirs.state_dict().items())
    image, ids, end = inputs(config)
    images, texts = ours(image, ids, end)
    expected = theirs(normalised(image, config), ids)
    assert difference(images, expected[0]) <= TOLERANCE
    assert difference(texts, expected[1]) <= TOLERANCE
    assert difference(ours.logit_scale.exp()[0], expected[2]) <= TOLERANCE


@pytest.mark.parametrize("config", [VIT_B32, VIT_L14], ids=["b32", "l14"])
def test_full_size_names_are_bijections(config: CLIPConfig) -> None:
    with torch.device("meta"):
        ours = CLIP(config)
        assert_counterparts(ours, their_clip(config), transformers_clip_names(config))
        assert_counterparts(ours, their_open_clip(config), open_clip_pair_names(config))


def test_parameter_count_is_the_published_one() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in CLIP(VIT_B32).parameters()) == 151_277_313


@torch.inference_mode()
def test_left_out_patches_are_as_if_they_were_not_there() -> None:
    """All of them in any order is the whole picture; without some, those that are left see each other alone."""
    tower = randomize(CLIPImage(IMAGE))
    image, *_ = inputs(SMALL)
    whole, every = tower(image), torch.arange(16).flip(0).expand(3, -1)
    assert difference(tower(image, every).pooled, whole.pooled) <= TOLERANCE
    other = image.clone()
    other[:, :, 8:16] = 0.3  # the second row of patches
    kept = torch.cat((torch.arange(4), torch.arange(8, 16))).expand(3, -1)
    assert torch.equal(tower(image, kept).pooled, tower(other, kept).pooled)
    assert difference(tower(image, kept).pooled, whole.pooled) > 0.01


def test_how_towers_begin() -> None:
    torch.manual_seed(0)
    clip = CLIP(dataclasses.replace(SMALL, image=dataclasses.replace(IMAGE, width=256, num_layers=2)))
    layer = next(iter(clip.image.layers))
    for weight, std in (
        (layer.attention.to_q.weight, 256**-0.5),
        (layer.attention.to_out.weight, 256**-0.5 * 4**-0.5),
        (layer.fc1.weight, 512**-0.5),
        (layer.fc2.weight, 256**-0.5 * 4**-0.5),
        (clip.image.position_embedding.weight, 256**-0.5),
    ):
        assert float(weight.detach().std()) == pytest.approx(std, rel=0.05)
    assert float(clip.logit_scale.detach().exp()) == pytest.approx(1 / 0.07)
    biased = CLIP(SIGMOID)
    assert isinstance(biased.logit_bias, nn.Parameter)
    assert [float(one.detach()) for one in (biased.logit_scale.exp(), biased.logit_bias)] == pytest.approx([10, -10])


def test_the_temperature_is_clamped() -> None:
    clip = CLIP(SMALL)
    for before, after in ((9.0, math.log(100)), (-1.0, 0.0), (3.0, 3.0)):
        with torch.no_grad():
            clip.logit_scale.fill_(before)
        clip.clamp()
        assert float(clip.logit_scale.detach()) == pytest.approx(after)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"projection_dim of text and image are 20, 24; expected one number"):
        CLIPConfig(text=TEXT, image=dataclasses.replace(IMAGE, projection_dim=24))
    with pytest.raises(ValueError, match=r"image_size 30: expected a multiple of patch_size 8"):
        dataclasses.replace(IMAGE, image_size=30)
    with pytest.raises(ValueError, match=r"width 48: expected a multiple of num_heads 5"):
        dataclasses.replace(IMAGE, num_heads=5)
    with pytest.raises(ValueError, match=r"\(3, 40, 32\); expected \(3, 32, 32\): resize and crop"):
        CLIPImage(IMAGE)(torch.zeros(1, 3, 40, 32))
