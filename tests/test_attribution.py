"""Heat maps of words: shares of attention, worked out again by hand, and where things stand in a picture."""

import dataclasses

import pytest
import torch

import tintype
from tintype.attribution import heat
from tintype.diffusion.step import Step
from tintype.families.base import LatentDiffusion
from tintype.generation import decode, finish, last, steps, steps_from
from tintype.models.unet import UNet
from tintype.nn.attention import Attention, KeysValues, TransformerBlock
from tintype.tasks.request import Request
from tintype.tasks.task import resolve


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tintype.load("default")


def walked(model: LatentDiffusion, request: Request) -> list[Step]:
    return list(steps(model, request))


def test_words_are_heard_where_they_stand(model: LatentDiffusion) -> None:
    request = resolve(model, Request(prompt="a frog to the left of a panda on a mint background", seed=3, steps=10))
    taken = walked(model, request)
    frog, panda = 0.0, 0.0
    for step in taken[1:6]:
        found = heat(model, request, step.x, step.sigma)
        assert found.maps.shape == (len(found.words), 8, 8)
        assert found.words[:2] == ("a", "frog")
        assert float(found.maps.min()) >= 0
        assert float(found.maps.sum(dim=0).max()) <= 1 + 1e-5
        left, right = (found.maps[found.words.index(word)] for word in ("frog", "panda"))
        frog += float(left[:, :4].sum() - left[:, 4:].sum())
        panda += float(right[:, 4:].sum() - right[:, :4].sum())
    assert frog > 0
    assert panda > 0


def test_maps_are_the_mean_of_all_heads_and_layers(model: LatentDiffusion) -> None:
    """Worked out again from what each layer reads, head by head and place by place."""
    request = resolve(model, Request(prompt="a red apple", seed=3, steps=4))
    step = walked(model, request)[1]
    network = model.denoiser.network
    assert isinstance(network, UNet)
    layers = [one.attn2 for one in network.modules() if isinstance(one, TransformerBlock)]
    grids: list[torch.Tensor] = []

    def reckon(layer: Attention, inputs: tuple[torch.Tensor, KeysValues], out: torch.Tensor) -> None:
        queries, keys = layer.to_q(inputs[0])[0], inputs[1].k[0]
        size = queries.shape[1] // layer.num_heads
        heads = [
            torch.softmax(queries[:, head * size : (head + 1) * size] @ keys[head].T / size**0.5, dim=1)
            for head in range(layer.num_heads)
        ]
        side = int(len(queries) ** 0.5)
        grid = torch.stack(heads).mean(dim=0).T.reshape(1, -1, side, side)
        grids.append(torch.nn.functional.interpolate(grid, (8, 8), mode="bilinear")[0])

    handles = [layer.register_forward_hook(reckon) for layer in layers]
    found = heat(model, request, step.x, step.sigma)
    for handle in handles:
        handle.remove()
    assert len(grids) == len(layers) > 1
    assert found.words == ("a", "red", "apple")
    torch.testing.assert_close(found.maps, torch.stack(grids).mean(dim=0)[1:4])  # after the start of text
    assert not any(layer._forward_pre_hooks for layer in layers)


def test_boxes_are_heard_by_name(model: LatentDiffusion) -> None:
    request = resolve(
        model, Request(task="layout2img", boxes=("pizza:0,0,0.5,0.5", "frog:0.5,0.5,1,1"), seed=1, steps=10)
    )
    step = walked(model, request)[2]
    found = heat(model, request, step.x, step.sigma)
    assert found.words == ("pizza", "frog")
    assert found.maps[0, :4, :4].mean() > found.maps[0, 4:, 4:].mean()
    assert found.maps[1, 4:, 4:].mean() > found.maps[1, :4, :4].mean()


def test_models_without_text_hear_nothing(model: LatentDiffusion) -> None:
    deaf = dataclasses.replace(model, conditioner=None)
    with pytest.raises(ValueError, match="reads no prompts"):
        heat(deaf, Request(steps=4), torch.zeros(1, 16, 8, 8), 1.0)


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_going_on_with_the_same_request_is_the_same_picture(model: LatentDiffusion, sampler: str) -> None:
    request = resolve(model, Request(prompt="a red apple", seed=3, steps=8, sampler=sampler))
    taken = walked(model, request)
    again = list(steps_from(model, request, taken[3]))
    assert [(one.index, one.count) for one in again] == [(number, 8) for number in range(4, 8)]
    assert torch.equal(again[-1].x, taken[-1].x)
    [expected], [found] = (finish(model, request, one[-1]) for one in (taken, again))
    assert expected.tobytes() == found.tobytes()


def test_another_prompt_holds_from_there_on(model: LatentDiffusion) -> None:
    request = resolve(model, Request(prompt="a red apple on a sky blue background", seed=3, steps=8))
    taken = walked(model, request)
    other = dataclasses.replace(request, prompt="a frog on a sky blue background")
    pictures = [decode(model, taken[-1].x)[0]]
    for place in (1, 6):
        branch = last(steps_from(model, other, taken[place]))
        assert branch is not None
        pictures.append(decode(model, branch.x)[0])
    whole, early, late = (torch.tensor(list(one.tobytes())).float() for one in pictures)
    assert (early - whole).abs().mean() > 3 * (late - whole).abs().mean() > 0


def test_steps_of_other_walks_are_refused(model: LatentDiffusion) -> None:
    request = resolve(model, Request(prompt="a red apple", seed=3, steps=8))
    step = walked(model, request)[3]
    with pytest.raises(ValueError, match="step 4 of 8: expected one of the same sampler and steps"):
        steps_from(model, dataclasses.replace(request, steps=9), step)
    with pytest.raises(ValueError, match="the step's pictures are 1 x 16 x 8 x 8; expected 2 x 16 x 8 x 8"):
        steps_from(model, dataclasses.replace(request, batch_size=2), step)
    with pytest.raises(ValueError, match="hires_scale"):
        steps_from(model, dataclasses.replace(request, hires_scale=2.0), step)
