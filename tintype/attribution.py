"""Which part of a picture listens to which word: the cross-attention of the U-Net (DAAM, Tang et al. 2022)."""

import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tintype.conditioning.chunks import Token
from tintype.families.base import LatentDiffusion
from tintype.models.unet import UNet
from tintype.nn.attention import Attention, KeysValues, TransformerBlock
from tintype.nn.twins import twin
from tintype.tasks.plan import heard, noise_of
from tintype.tasks.request import Request
from tintype.tasks.steering import wordings
from tintype.tasks.task import task_of


@dataclass(frozen=True, slots=True)
class Heat:
    """`maps`: N h w, which share of the attention of each cell of the latent goes to each of `words`; what is left goes
    to tokens that are no words. Means over heads and layers."""

    words: tuple[str, ...]
    maps: Tensor


def heat(model: LatentDiffusion, request: Request, x: Tensor, sigma: float) -> Heat:
    """What the network listens to at x (1 C h w) of this noise level, told the resolved request's prompt at that step;
    of prompts joined by AND the first. A word that stands there several times is told several times; the names of boxes
    come last.

    Raises `ValueError` for a model that no text steers.
    """
    assert isinstance(model.denoiser.network, UNet)
    network = twin(model.denoiser.network)  # to listen to: others may draw with the model at this moment
    model, reader = replace(model, denoiser=replace(model.denoiser, network=network)), model.reads
    with torch.inference_mode():
        plan = task_of(request).plan(model, request, noise_of(model, request))
        stage = [number for level, number in plan.steering.turns if sigma <= level * (1 + 1e-6)][-1]
        cond = plan.steering.stages[stage].conds[0][1].map(lambda slot: slot[:1])
        with _listening(network, (x.shape[-2], x.shape[-1])) as maps:
            heard(model, request, plan.sigmas)(x, sigma, cond)
    attention = torch.stack(maps).mean(dim=0)[0]  # L h w
    reading = reader.readings(wordings(request)[stage].conds[0][1])[0]
    places = list(_places(reading.chunks, reading.room + 2))
    beyond = len(reading.chunks) * (reading.room + 2)
    named = [box.partition(":")[0] for box in request.boxes[: len(attention) - beyond]]
    places += [(name, [beyond + number]) for number, name in enumerate(named)]
    maps_of = [attention[where].sum(dim=0) for _, where in places]
    empty = attention.new_zeros(0, *attention.shape[1:])
    return Heat(tuple(word for word, _ in places), torch.stack(maps_of) if maps_of else empty)


def _places(chunks: Sequence[Sequence[Token]], length: int) -> Iterator[tuple[str, list[int]]]:
    """Each word and where its tokens are in the context. Tokens of one word follow one another."""
    for number, chunk in enumerate(chunks):
        numbered = enumerate(chunk, start=number * length + 1)  # after the start of text
        for word, some in itertools.groupby(numbered, lambda one: one[1].word):
            yield word, [place for place, _ in some]


@contextmanager
def _listening(network: UNet, size: tuple[int, int]) -> Generator[list[Tensor]]:
    """Collects B L h w of each layer that reads the context, at the latent's size."""
    maps: list[Tensor] = []

    def keep(layer: Attention, inputs: tuple[Tensor, object]) -> None:
        x, context = inputs
        assert isinstance(context, KeysValues)
        maps.append(_shares(layer, x, context, size))

    blocks = [one for one in network.modules() if isinstance(one, TransformerBlock)]
    handles = [one.attn2.register_forward_pre_hook(keep) for one in blocks]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _shares(layer: Attention, x: Tensor, context: KeysValues, size: tuple[int, int]) -> Tensor:
    """x: B HW D -> B L h w: the attention that `layer` pays, its heads' mean."""
    q = layer.to_q(x).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)  # B heads HW head_dim
    shares = (q @ context.k.transpose(-1, -2) * q.shape[-1] ** -0.5).float().softmax(dim=-1).mean(dim=1)  # B HW L
    scale = (x.shape[1] / (size[0] * size[1])) ** 0.5  # of a layer between the levels of the network
    height = round(size[0] * scale)
    grid = shares.transpose(1, 2).unflatten(-1, (height, -1))
    return F.interpolate(grid, size, mode="bilinear")
