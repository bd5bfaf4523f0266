"""Objects beside a text: what is told reaches the context, and nothing else changes."""

import dataclasses

import pytest
import torch

from tintype.common.config import from_json, to_json
from tintype.conditioning.objects import Objects, ObjectsConfig, ObjectsEncoder, placeless, without
from tintype.conditioning.prompt import Prompt
from tintype.conditioning.text import TextConditioner, TextConfig, word_ids
from tintype.models.clip import CLIPTextConfig

WORDS = ("a", "frog", "red")
OBJECTS = ObjectsConfig(num_classes=5, width=16, count=3, frequencies=2)
BOX = (0.0, 0.25, 0.5, 1.0)


def conditioner(objects: ObjectsConfig | None = OBJECTS) -> TextConditioner:
    torch.manual_seed(3)
    clip = CLIPTextConfig(
        vocabulary_size=len(word_ids(WORDS)), context_length=8, width=16, num_layers=1, num_heads=2, activation="gelu"
    )
    network = TextConditioner(TextConfig(clip=clip, words=WORDS, pooled=True, objects=objects))
    if network.objects is not None:  # as training makes it: untrained, places say nothing
        torch.nn.init.normal_(network.objects.place[-1].weight)
    return network


def context(network: TextConditioner, *objects: object) -> torch.Tensor:
    found = network([Prompt(text="a frog", objects=objects)]).context
    assert found is not None
    return found


def test_objects_follow_the_text_and_leave_it_as_it_is() -> None:
    network = conditioner()
    said, empty = context(network, (2, BOX)), context(network)
    assert said.shape == empty.shape == (1, 8 + 3, 16)
    assert torch.equal(said[:, :8], conditioner(None)([Prompt(text="a frog")]).context)
    assert torch.equal(said[:, :8], empty[:, :8])
    changed = (said != empty).any(dim=-1)[0]
    assert changed.tolist() == [False] * 8 + [True, False, False]


@pytest.mark.parametrize("other", [(3, BOX), (2, (0.0, 0.25, 0.5, 0.75)), (2, None)], ids=["class", "box", "anywhere"])
def test_class_and_every_side_of_the_box_are_heard(other: object) -> None:
    network = conditioner()
    assert (context(network, (2, BOX)) - context(network, other)).abs().max() > 1e-3


def test_objects_begin_as_the_words_for_them() -> None:
    network = conditioner()
    assert network.objects is not None
    torch.nn.init.normal_(network.encoder.norm.weight)
    network.name_objects(["frog", "red", "a red frog", "a frog", "frog red"])
    texts = network(["frog", "a red frog", ""]).context
    assert texts is not None
    found = context(network, (0, None), (2, None))[0, 8:]
    assert torch.allclose(found[0], texts[0, 1], atol=1e-4)
    assert torch.allclose(found[2], texts[2, 1], atol=1e-4)  # no object: the end of an empty text
    assert not torch.allclose(found[1], texts[1, 1:4].mean(dim=0), atol=1e-2)  # a mean is taken before the norm
    assert torch.corrcoef(torch.stack((found[1], texts[1, 1:4].mean(dim=0))))[0, 1] > 0.9


def test_rows_are_read_from_tokens_as_from_prompts() -> None:
    """What training encodes is what sampling does."""
    network = conditioner()
    places = torch.full((1, 3, 4), -1.0)
    places[0, 0] = torch.tensor(BOX)
    objects = Objects(torch.tensor([[2, 4, 5]]), places)
    trained = network.encode(network.tokens(["a frog"]), objects=objects).context
    assert torch.equal(trained, context(network, (2, BOX), (4, None)))


def test_what_is_left_out_is_as_if_never_said() -> None:
    encoder = ObjectsEncoder(OBJECTS)
    told = encoder.rows([((2, BOX), (1, None)), ((3, BOX),)])
    rows = torch.tensor([True, False])
    assert [one[0].tolist() for one in without(told, rows, OBJECTS)] == [one[0].tolist() for one in encoder.rows([()])]
    nowhere = placeless(told, rows)
    assert nowhere.labels.tolist() == told.labels.tolist()
    assert torch.equal(encoder(nowhere)[0], encoder(encoder.rows([((2, None), (1, None))]))[0])
    assert torch.equal(encoder(nowhere)[1], encoder(told)[1])


def test_what_cannot_be_read_is_refused() -> None:
    network = conditioner()
    with pytest.raises(ValueError, match="4 boxes: this model reads 3 at most"):
        context(network, *[(1, BOX)] * 4)
    with pytest.raises(ValueError, match="class 5: this model has the classes 0 to 4"):
        context(network, (5, BOX))
    with pytest.raises(ValueError, match="reads no objects"):
        context(conditioner(None), (1, BOX))


def test_a_configuration_without_objects_is_written_as_before() -> None:
    plain = conditioner(None).config
    assert "objects" not in to_json(plain)
    told = dataclasses.replace(plain, objects=OBJECTS)
    assert from_json(TextConfig, to_json(told)) == told
