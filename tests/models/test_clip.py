"""CLIP's text tower against transformers on small random weights."""

import dataclasses

import pytest
import torch
from network_oracles import difference, randomize, their_clip_text
from torch import Tensor

from tintype.families.diffusers_names import clip_text_names
from tintype.families.stable_diffusion import CLIP_L
from tintype.models.clip import CLIPText, CLIPTextConfig

TOLERANCE = 1e-5

SMALL = CLIPTextConfig(vocabulary_size=60, context_length=16, width=32, num_layers=3, num_heads=4)
EVERY = {
    "quick_gelu": SMALL,
    "gelu": dataclasses.replace(SMALL, activation="gelu"),
    "projection": dataclasses.replace(SMALL, activation="gelu", projection_dim=20, num_layers=1),
}
every = pytest.mark.parametrize("config", EVERY.values(), ids=EVERY)
END = SMALL.vocabulary_size - 1


def texts(length: int, ends: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Ids that end at different places and go on with end-of-text, and those places."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(END, (len(ends), length), generator=generator)
    for row, end in zip(ids, ends, strict=True):
        row[end:] = END
    return ids, torch.tensor(ends)


def test_parameter_count_is_the_published_one() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in CLIPText(CLIP_L).parameters()) == 123_060_480


@pytest.mark.parametrize(("length", "ends"), [(16, (1, 9, 15)), (5, (4, 1)), (1, (0,))], ids=str)
@every
@torch.inference_mode()
def test_equals_transformers(config: CLIPTextConfig, length: int, ends: tuple[int, ...]) -> None:
    theirs = randomize(their_clip_text(config))
    ours = CLIPText(config).eval()
    prefix = "text_model." if config.projection_dim else ""
    ours.load_state_dict(clip_text_names(config, prefix=prefix).to_ours(theirs.state_dict()))
    ids, end = texts(length, ends)
    got, expected = ours(ids, end), theirs(ids, output_hidden_states=True)
    assert difference(got.last, expected.last_hidden_state) <= TOLERANCE
    assert (
        difference(got.pooled, expected.text_embeds if config.projection_dim else expected.pooler_output) <= TOLERANCE
    )
    assert len(got.hidden) == len(expected.hidden_states) == config.num_layers + 1
    for one, other in zip(got.hidden, expected.hidden_states, strict=True):
        assert difference(one, other) <= TOLERANCE


@torch.inference_mode()
def test_what_follows_a_word_does_not_change_it() -> None:
    text = randomize(CLIPText(SMALL))
    ids, end = texts(16, (7, 7))
    ids[1], ids[1, 8:] = ids[0], 5
    one, other = text(ids, end).last
    torch.testing.assert_close(one[:8], other[:8])
    assert difference(one[8:], other[8:]) > 0.1
