"""From prompt to prompt and from seed to seed, picture by picture."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from tintype.diffusion.denoiser import Conditioning
from tintype.families.base import LatentDiffusion
from tintype.generation import adapted, generate
from tintype.tasks.request import LARGEST_SEED, Request
from tintype.tasks.steering import wordings
from tintype.tasks.task import resolve

LARGEST_FRAMES = 10_000


def travel(
    model: LatentDiffusion, request: Request, prompts: Sequence[str], seeds: Sequence[int] = (), *, frames: int
) -> Iterator[Image.Image]:
    """The frames of a way through these prompts, and through the noise of these seeds (none: the request's alone), each
    evenly spread over it.

    Between two prompts each token of their conditionings goes along the arc, between two seeds the noise, as variations
    do. Where a frame is at a prompt it is the picture of it and the seed, with all that pictures carry, bit for bit.
    Deterministic samplers travel smoothly. Raises `ValueError` at the call, before any work.
    """
    if not 1 <= frames <= LARGEST_FRAMES or (frames == 1 and max(len(prompts), len(seeds)) > 1):
        raise ValueError(f"frames {frames}: expected 2 to {LARGEST_FRAMES}, from the first prompt to the last")
    if not prompts:
        raise ValueError("prompts: got none; expected one or more to travel between")
    if frames > 1 and max(len(set(prompts)), len(set(seeds))) == 1:
        raise ValueError("nothing to travel between: got one prompt and one seed; expected two of either, or more")
    for name, left_open in (("task", "txt2img"), ("batch_size", 1), ("variation_strength", 0.0), ("hires_scale", None)):
        if (got := getattr(request, name)) != left_open:
            raise ValueError(f"{name} {got}: travelling sets it itself or has none; leave it out")
    for seed in seeds:
        if not 0 <= seed <= LARGEST_SEED:
            raise ValueError(f"seeds {seed}: expected whole numbers from 0 to {LARGEST_SEED}")
    stops = [resolve(model, dataclasses.replace(request, prompt=prompt)) for prompt in prompts]
    return _frames(model, stops, tuple(seeds) or (stops[0].seed,), _read(adapted(model, request), stops), frames)


def _frames(
    model: LatentDiffusion, stops: Sequence[Request], seeds: Sequence[int], read: Sequence[Conditioning], frames: int
) -> Iterator[Image.Image]:
    for number in range(frames):
        (near, share), (first, apart) = (_place(number, frames, len(some)) for some in (stops, seeds))
        asked = dataclasses.replace(stops[near], seed=seeds[first])
        if apart:
            asked = dataclasses.replace(asked, variation_seed=seeds[first + 1], variation_strength=apart)
        mixed = _mixed(read[near], read[near + 1], share) if share else None
        yield generate(model, asked, cond=mixed)[0]


def _place(number: int, frames: int, stops: int) -> tuple[int, float]:
    """Of a frame on a way of so many stops: the stop before it, and how far it is to the next."""
    stop, rest = divmod(number * (stops - 1), max(frames - 1, 1))
    return stop, rest / max(frames - 1, 1)


def _read(model: LatentDiffusion, stops: Sequence[Request]) -> list[Conditioning]:
    """Of each prompt, all as long as the longest."""
    said = [{one.conds for one in wordings(stop)} for stop in stops]
    parts = [[part for conds in each for part in conds] for each in said]
    for stop, each in zip(stops, parts, strict=True):
        if len(each) != 1 or each[0][0] != 1:
            raise ValueError(f"prompt {stop.prompt!r}: expected one that is read as a whole; no [schedules] or AND")
    with torch.inference_mode():
        rows = model.reads([each[0][1] for each in parts])
    return [rows.map(lambda slot, n=n: slot[n : n + 1]) for n in range(len(stops))]


def _mixed(start: Conditioning, end: Conditioning, share: float) -> Conditioning:
    """Each token goes along the arc, so that it stays as long as tokens are."""
    slots = ((start.context, end.context), (start.vector, end.vector))
    mixed = [None if one is None or other is None else arc(one, other, share) for one, other in slots]
    return Conditioning(context=mixed[0], vector=mixed[1])


def arc(start: Tensor, end: Tensor, share: float) -> Tensor:
    """... D each: from one vector to the other, directions along the arc between them and lengths evenly; straight
    where they have one direction."""
    first, last = (one.norm(dim=-1, keepdim=True) for one in (start, end))
    a, b = start / first.clamp(min=1e-12), end / last.clamp(min=1e-12)
    angle = (a * b).sum(dim=-1, keepdim=True).clamp(-1, 1).acos()
    turned = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin().clamp(min=1e-12)
    return torch.where(angle.sin() > 1e-3, turned * torch.lerp(first, last, share), torch.lerp(start, end, share))
