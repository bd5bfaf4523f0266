"""What steers each step: a request's prompts, taken apart as their language says, made conditionings."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tintype.conditioning.language import at_call, parts, schedule
from tintype.conditioning.prompt import Framing, PlacedObject, Prompt
from tintype.conditioning.text import Conditioner
from tintype.conditioning.towers import TextTowersConfig
from tintype.diffusion.denoiser import Conditioning, Denoise, repeated
from tintype.diffusion.guidance import Weighted
from tintype.tasks.request import Request

FRAMING = {
    "original_width": "original_size",
    "original_height": "original_size",
    "crop_top": "crop",
    "crop_left": "crop",
    "target_width": "target_size",
    "target_height": "target_size",
    "aesthetic_score": "aesthetic_score",
    "negative_aesthetic_score": "aesthetic_score",
}


@dataclass(frozen=True, slots=True)
class Wording:
    """The prompts of one phase: those that AND joins, each with its weight, and the negative one."""

    conds: tuple[tuple[float, Prompt], ...]
    uncond: Prompt


@dataclass(frozen=True, slots=True)
class Stage:
    """A wording as conditionings, a row a picture. `uncond` is None where guidance does not need it; `away` is what
    it is led away from in turn, where there is such."""

    conds: tuple[Weighted, ...]
    uncond: Conditioning | None
    away: Weighted | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Steering:
    """Stages, and their turns: (the noise level from which down it acts, the number of the stage)."""

    stages: tuple[Stage, ...]
    turns: tuple[tuple[float, int], ...] = ((math.inf, 0),)

    def towards(self, cond: Conditioning) -> "Steering":
        """The same, with this conditioning in place of the prompt's; what is beside the noise stays there, unless it
        says something itself."""

        def of(stage: Stage) -> Stage:
            _, replaced = stage.conds[0]
            concat = replaced.concat if cond.concat is None else cond.concat
            return dataclasses.replace(stage, conds=((1.0, dataclasses.replace(cond, concat=concat)),))

        return dataclasses.replace(self, stages=tuple(map(of, self.stages)))

    def beside(self, concat: Tensor, vector: Tensor | None = None) -> "Steering":
        """The same, with these channels beside the noise, and this vector where one is given. concat: B C h w."""

        def shown(cond: Conditioning) -> Conditioning:
            return dataclasses.replace(cond, concat=concat, vector=cond.vector if vector is None else vector)

        def of(stage: Stage) -> Stage:
            conds = tuple((weight, shown(cond)) for weight, cond in stage.conds)
            return dataclasses.replace(stage, conds=conds, uncond=None if stage.uncond is None else shown(stage.uncond))

        return dataclasses.replace(self, stages=tuple(map(of, self.stages)))


def check(conditioner: object, request: Request) -> None:
    """Raises `ValueError` for what a model of this conditioner's configuration would have to ignore."""
    towers = conditioner.towers if isinstance(conditioner, TextTowersConfig) else ()
    numbers = conditioner.numbers if isinstance(conditioner, TextTowersConfig) else ()
    for name in ("prompt_2", "negative_prompt_2"):
        if getattr(request, name) is not None and len(towers) < 2:
            raise ValueError(f"{name}: expected a model of two text towers, this one has no second; leave it out")
    for name, number in FRAMING.items():
        if getattr(request, name) is not None and number not in numbers:
            raise ValueError(f"{name}: this model was not told the {number} of its pictures; leave it out")


def steer(
    conditioner: Conditioner, request: Request, sigmas: Tensor, count: int, *, objects: tuple[PlacedObject, ...] = ()
) -> Steering:
    """The steering of a resolved request, for `count` pictures along these noise levels. Each prompt is read once;
    `objects` are said with all but the negative one."""
    said = [wording(request, call) for call in range(max(len(sigmas) - 1, 1))]
    if all(one == said[0] for one in said):
        said = said[:1]
    distinct = list(dict.fromkeys(said))
    read: dict[Prompt, Conditioning] = {}

    def rows(prompt: Prompt) -> Conditioning:
        if prompt not in read:
            told = prompt if prompt.negative else dataclasses.replace(prompt, objects=objects)
            read[prompt] = repeated(conditioner([told]), count)
        return read[prompt]

    def stage(one: Wording) -> Stage:
        alone = request.cfg_scale == 1 and math.isclose(sum(weight for weight, _ in one.conds), 1)
        conds = tuple((weight, rows(prompt)) for weight, prompt in one.conds)
        return Stage(conds, None if alone else rows(one.uncond))

    levels = [math.inf, *sigmas[1 : len(said)].tolist()]
    turns = tuple((level, distinct.index(one)) for level, one in zip(levels, said, strict=True))
    return Steering(stages=tuple(stage(one) for one in distinct), turns=turns)


def in_turn(denoises: Sequence[Denoise], turns: Sequence[tuple[float, int]]) -> Denoise:
    """One denoise function of those of the stages: the noise level says whose turn it is, so that a sampler may ask
    for any level at any time."""
    if len(turns) == 1:
        return denoises[turns[0][1]]

    def denoise(x: Tensor, sigma: float) -> Tensor:
        begun = [number for level, number in turns if sigma <= level * (1 + 1e-6)]
        return denoises[begun[-1]](x, sigma)

    return denoise


def wordings(request: Request) -> list[Wording]:
    """All that a resolved request says at one step or another, each once."""
    assert request.steps is not None
    return list(dict.fromkeys(wording(request, call) for call in range(request.steps)))


def wording(request: Request, call: int) -> Wording:
    """What a resolved request says the `call`-th time that the network is asked, from 0."""
    assert request.steps is not None
    literal = request.prompt_style == "plain"

    def now(text: str | None) -> str | None:
        return text if text is None or literal else at_call(schedule(text, request.steps or 1), call)

    sides = [(1.0, request.prompt)] if literal else [(part.weight, part.text) for part in parts(request.prompt)]
    positive = _prompt(request, now(request.prompt_2), negative=False)
    negative = _prompt(request, now(request.negative_prompt_2), negative=True)
    return Wording(
        conds=tuple((weight, dataclasses.replace(positive, text=now(text) or "")) for weight, text in sides),
        uncond=dataclasses.replace(negative, text=now(request.negative_prompt) or ""),
    )


def _prompt(request: Request, text_2: str | None, *, negative: bool) -> Prompt:
    """All but its first text. Scores not asked for are SDXL's refiner's own."""
    assert request.width is not None
    assert request.height is not None
    asked = request.negative_aesthetic_score if negative else request.aesthetic_score
    usual = 2.5 if negative else 6.0
    framing = Framing(
        original_size=(request.original_height or request.height, request.original_width or request.width),
        target_size=(request.target_height or request.height, request.target_width or request.width),
        crop=(request.crop_top or 0, request.crop_left or 0),
        aesthetic_score=usual if asked is None else asked,
    )
    return Prompt(
        text="",
        text_2=text_2,
        style=request.prompt_style,
        clip_skip=request.clip_skip,
        negative=negative,
        framing=framing,
    )
