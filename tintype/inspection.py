"""A deep look: everything that happens to a prompt inside a text tower."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tintype.conditioning.chunks import Reading
from tintype.conditioning.tokenizer import END, START, entry
from tintype.families.base import LatentDiffusion


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """One prompt in one text tower of L places, width D. All tensors are copies, on the model's device.

    reading: the prompt's tokens, the words that the model never saw and those that did not fit.
    tokens: what CLIP's vocabulary has at each place, with the frame: start, the words, end; "" where padding stands.
    ids: L int64, as this tower counts them (a small model renumbers its own).
    end: 1, the place of the first end-of-text, where the pooled output is read.
    token_embeddings, position_embeddings, embeddings: L D, the last their sum, which is what the first layer gets.
    causal_mask: L L, what is added to the attention scores: row i is 0 up to place i, -inf after it.
    hidden: `embeddings`, then the output of each layer, L D each.
    last: L D, the last of them after the final norm.
    pooled: D, or the width of the projection where the tower has one: `last` at `end`, projected.
    context: L D, what the U-Net is given of this tower: the family's layer, normed where the family norms it.
    """

    reading: Reading
    tokens: tuple[str, ...]
    ids: Tensor
    end: Tensor
    token_embeddings: Tensor
    position_embeddings: Tensor
    embeddings: Tensor
    causal_mask: Tensor
    hidden: tuple[Tensor, ...]
    last: Tensor
    pooled: Tensor
    context: Tensor


def inspect(model: LatentDiffusion, prompt: str, *, tower: int = 0) -> Inspection:
    """Read a prompt literally (no weights or schedules), one chunk of it, and keep all that is computed on the way.

    To steer a picture by embeddings of one's own, change `token_embeddings` and give them, with `end`, to
    `model.towers[0].encode_embeddings`, and its conditioning to `generate` as `cond`. Raises `ValueError` for a model
    without CLIP towers, and for a tower that it does not have.
    """
    if not 0 <= tower < len(model.towers):
        raise ValueError(f"tower {tower}: {model.config.name} has {len(model.towers)} CLIP text towers, from 0")
    conditioner = model.towers[tower]
    encoder = conditioner.encoder
    with torch.no_grad():
        ids, end = (one.to(model.device) for one in conditioner.tokens([prompt]))
        embedded = encoder.token_embedding(ids)
        out = encoder.transform(embedded, end)
        context = conditioner.encode_embeddings(embedded, end).context
    assert context is not None
    reading = conditioner.read(prompt)
    length = ids.shape[1]
    framed = [entry(one) for one in (START, *reading.ids, END)]
    return Inspection(
        reading=reading,
        tokens=(*framed, *[""] * (length - len(framed))),
        ids=ids[0],
        end=end,
        token_embeddings=embedded[0],
        position_embeddings=encoder.position_embedding.weight.detach()[:length].clone(),
        embeddings=out.hidden[0][0],
        causal_mask=torch.full((length, length), -torch.inf, device=ids.device).triu(1),
        hidden=tuple(one[0] for one in out.hidden),
        last=out.last[0],
        pooled=out.pooled[0],
        context=context[0],
    )
