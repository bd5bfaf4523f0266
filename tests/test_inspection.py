"""A deep look at a prompt, against transformers on the same weights; with CLIP's own weights, where they are given,
the numbers of the published walk-through."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig as TheirTextConfig
from transformers import CLIPTextModel
from transformers.masking_utils import create_causal_mask

import tintype
from tintype.checkpoints.tensors import open_tensors
from tintype.conditioning.text import TextConditioner, TextConfig
from tintype.families.base import LatentDiffusion
from tintype.families.diffusers_names import clip_text_names
from tintype.models.clip import CLIPTextConfig

PUPPY = "A picture of a puppy"
CLIP_L = "TINTYPE_CLIP_L"


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default")


def with_tower(model: LatentDiffusion, config: TextConfig) -> LatentDiffusion:
    return dataclasses.replace(model, conditioner=TextConditioner(config).eval())


def test_everything_equals_transformers(model: LatentDiffusion) -> None:
    torch.manual_seed(0)
    settings = TheirTextConfig(
        vocab_size=49_408,
        hidden_size=16,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        eos_token_id=49_407,
        attn_implementation="eager",
    )
    theirs = CLIPTextModel(settings).eval()
    config = CLIPTextConfig(width=16, num_layers=3, num_heads=2)
    other = with_tower(model, TextConfig(clip=config, layer=1))
    other.towers[0].encoder.load_state_dict(clip_text_names(config, prefix="").to_ours(theirs.state_dict()))
    look = tintype.inspect(other, PUPPY)

    ids = torch.tensor([[49406, 320, 1674, 539, 320, 6829] + [49407] * 71])
    assert look.ids.tolist() == ids[0].tolist()
    assert look.tokens[:8] == (
        "<|startoftext|>", "a</w>", "picture</w>", "of</w>", "a</w>", "puppy</w>", "<|endoftext|>", ""
    )  # fmt: skip
    assert len(look.tokens) == 77
    assert look.end.tolist() == [6]
    with torch.no_grad():
        words = theirs.embeddings.token_embedding(ids)
        places = theirs.embeddings.position_embedding(theirs.embeddings.position_ids)
        out = theirs(ids, output_hidden_states=True)
        mask = create_causal_mask(settings, words, None, None, allow_is_causal_skip=False)
        normed = theirs.final_layer_norm(out.hidden_states[-2])
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(look.token_embeddings, words[0], **close)
    torch.testing.assert_close(look.position_embeddings, places[0], **close)
    torch.testing.assert_close(look.embeddings, out.hidden_states[0][0], **close)
    torch.testing.assert_close(look.embeddings, look.token_embeddings + look.position_embeddings, **close)
    assert len(look.hidden) == len(out.hidden_states) == 4
    for mine, one in zip(look.hidden, out.hidden_states, strict=True):
        torch.testing.assert_close(mine, one[0], **close)
    torch.testing.assert_close(look.last, out.last_hidden_state[0], **close)
    torch.testing.assert_close(look.pooled, out.pooler_output[0], **close)
    torch.testing.assert_close(look.context, normed[0], **close)
    lowest = torch.finfo(mask.dtype).min  # theirs has the least number where ours has -inf
    assert torch.equal(look.causal_mask.clamp(min=lowest), mask[0, 0])
    assert look.causal_mask[3].tolist() == [0.0] * 4 + [-torch.inf] * 73


def test_what_was_not_read_is_said(model: LatentDiffusion) -> None:
    look = tintype.inspect(model, "a zyx frog " + "red " * 30)
    assert look.reading.unknown == ("zyx",)
    assert look.reading.cut == ("red", "red")
    assert len(look.tokens) == 32
    assert torch.equal(look.context, model.towers[0](["a frog " + "red " * 28]).context[0])


def test_a_tower_that_is_not_there_is_named(model: LatentDiffusion) -> None:
    with pytest.raises(ValueError, match="tower 1: tintype has 1 CLIP text towers, from 0"):
        tintype.inspect(model, "a", tower=1)


def test_two_words_mixed_draw_a_picture(model: LatentDiffusion) -> None:
    """The example of docs/tour.md."""
    panda, frog = (tintype.inspect(model, f"a {word} on a white background") for word in ("panda", "frog"))
    asked = tintype.Request(seed=7, steps=6)

    def drawn(share: float) -> np.ndarray:
        mixed = torch.lerp(panda.token_embeddings, frog.token_embeddings, share)[None]
        cond = model.towers[0].encode_embeddings(mixed, panda.end)
        return np.asarray(tintype.generate(model, asked, cond=cond)[0]).astype(int)

    for share, word in ((0.0, "panda"), (1.0, "frog")):
        said = dataclasses.replace(asked, prompt=f"a {word} on a white background")
        assert (drawn(share) == np.asarray(tintype.generate(model, said)[0])).all()
    between = drawn(0.5)
    assert np.abs(between - drawn(0.0)).max() > 50
    assert np.abs(between - drawn(1.0)).max() > 50
    assert (between[:4, :4] > 200).all()  # the background is still white


@pytest.mark.slow
def test_the_published_walk_through(model: LatentDiffusion) -> None:
    """OpenAI's CLIP ViT-L/14, as in Stable Diffusion 1.x."""
    given = os.environ.get(CLIP_L)
    if not given:
        pytest.skip(f"needs CLIP-L's weights: set {CLIP_L} to a model.safetensors of its text tower, or its folder")
    path = Path(given)
    file = open_tensors(path / "model.safetensors" if path.is_dir() else path)
    prefix = "text_model." if any(name.startswith("text_model.") for name in file.shapes) else ""
    beside = ("vision_model.", "visual_projection", "text_projection", "logit_scale")
    names = [name for name in file.shapes if not name.startswith(beside) and not name.endswith("position_ids")]
    config = CLIPTextConfig()
    other = with_tower(model, TextConfig(clip=config))
    weights = {name: file.read(name).float() for name in names}
    other.towers[0].encoder.load_state_dict(clip_text_names(config, prefix=prefix).to_ours(weights))
    last = tintype.inspect(other, PUPPY).last
    expected = torch.tensor([[-0.3884, 0.0229, -0.0522], [0.0290, -1.3258, 0.3085]])
    torch.testing.assert_close(last[:2, :3], expected, rtol=0, atol=2e-4)
