"""Request -> plan -> steps -> pictures."""

import dataclasses
import itertools
import logging
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tintype.checkpoints.lora import with_lora
from tintype.common.memory import kept_memory
from tintype.common.rng import Noise
from tintype.conditioning.chunks import Reading
from tintype.conditioning.prompt import Prompt
from tintype.diffusion.denoiser import Conditioning, Denoise, Denoiser, repeated
from tintype.diffusion.guidance import guided
from tintype.diffusion.inversion import backwards
from tintype.diffusion.samplers import sampler
from tintype.diffusion.samplers.euler import euler
from tintype.diffusion.step import Step
from tintype.diffusion.tiles import Tiling
from tintype.families.base import LatentDiffusion
from tintype.tasks.infotext import Provenance, stamp
from tintype.tasks.joined import alike, joined
from tintype.tasks.loras import read_lora
from tintype.tasks.pictures import referred
from tintype.tasks.plan import (
    Plan,
    around,
    chosen,
    denoiser_of,
    from_noise,
    guidance_of,
    heard,
    noise_of,
    settled,
    spaced,
)
from tintype.tasks.request import Request
from tintype.tasks.steering import Stage, Steering, in_turn, steer, wordings
from tintype.tasks.task import resolve, task_of
from tintype.tasks.tiling import endless
from tintype.tasks.windows import tiling_of

log = logging.getLogger(__name__)

TAG = re.compile(r"<(?:lora|lyco|hypernet):[^>]*>|embedding:[\w.-]+")  # that others load files for


def adapted(model: LatentDiffusion, request: Request) -> LatentDiffusion:
    """The model with the request's LoRAs; itself where there are none. Raises `ValueError` for files that are none of
    this model's."""
    for file, strength in map(read_lora, request.lora):
        model = with_lora(model, Path(file), strength)
    return model


def drawing(model: LatentDiffusion, request: Request) -> LatentDiffusion:
    """The model that samples a resolved request."""
    return endless(adapted(model, request), request)


def steps(
    model: LatentDiffusion,
    request: Request,
    *,
    start: Tensor | None = None,
    cond: Conditioning | None = None,
    uncond: Conditioning | None = None,
) -> Iterator[Step]:
    """Sample latents step by step: previews, cancelling and time travel are the caller's to make of it.

    Raises `ValueError` for what the model cannot do, at the call, before any work. With `exact` each picture is
    computed alone and the steps are put side by side. `start`: x at the first level (B C h w, as `invert` gives it)
    instead of the seeds' noise. `cond`, `uncond`: steer in place of the prompts, and so also models that read none; one
    row, or one a picture. Without `uncond` the negative prompt is read, where the model reads prompts.
    """
    resolved = resolve(model, request) if cond is None else settled(model, _of_one_pass(request))
    if cond is None and log.isEnabledFor(logging.WARNING):
        for sentence in warnings(model, resolved):
            log.warning(sentence)
    model = drawing(model, resolved)
    own, other = (None if one is None else _rows(one, resolved.batch_size) for one in (cond, uncond))
    if not resolved.exact or resolved.batch_size == 1:
        return _steps(model, resolved, start, own, other)
    alone = resolved.alone()
    starts = [None] * len(alone) if start is None else start.split(1)
    each = zip(alone, starts, _each(own, len(alone)), _each(other, len(alone)), strict=True)
    return _abreast([_steps(model, *one) for one in each])


def _of_one_pass(request: Request) -> Request:
    if request.hires_scale is not None:
        raise ValueError("hires_scale: the second pass reads the request's prompt; expected none where others steer")
    return request


def _each(cond: Conditioning | None, count: int) -> list[Conditioning | None]:
    return [None if cond is None else cond.map(lambda slot, n=n: slot[n : n + 1]) for n in range(count)]


def _steps(
    model: LatentDiffusion,
    request: Request,
    start: Tensor | None,
    cond: Conditioning | None,
    uncond: Conditioning | None,
) -> Iterator[Step]:
    noise = noise_of(model, request)
    with torch.inference_mode():
        if cond is None:
            plan = task_of(request).plan(model, request, noise)
        else:
            plan = from_noise(model, request, noise, _given(model, request, cond, uncond))
    if start is not None:
        if start.shape != plan.x.shape:
            got, expected = (" x ".join(map(str, one.shape)) for one in (start, plan.x))
            raise ValueError(f"start: got {got}; expected {expected}, as the request's pictures are")
        plan = dataclasses.replace(plan, x=start.to(plan.x))
    return _walk(model, request, plan, noise)


def _given(model: LatentDiffusion, request: Request, cond: Conditioning, uncond: Conditioning | None) -> Steering:
    """What a caller made itself; the negative prompt beside it."""
    if uncond is not None or request.cfg_scale == 1:
        return Steering(stages=(Stage(((1.0, cond),), uncond),))
    if cond.concat is not None or not model.reads_prompts:
        raise ValueError(f"cfg_scale {request.cfg_scale:g} guides away from something; give uncond=, or cfg_scale 1")
    return steer(model.reads, around(model, request), spaced(model, request), request.batch_size).towards(cond)


def steps_together(model: LatentDiffusion, requests: Sequence[Request]) -> Iterator[Step] | None:
    """As `steps`, of several resolved requests in one batch, their pictures one after the other; None where they do not
    go together. The pictures differ from those drawn alone as those of a batch do: by one grey level at most."""
    if len(requests) == 1 or not all(alike(requests[0], one) for one in requests[1:]):
        return None
    model = drawing(model, requests[0])
    noises = [noise_of(model, one) for one in requests]
    with torch.inference_mode():
        plan = joined([task_of(one).plan(model, one, noise) for one, noise in zip(requests, noises, strict=True)])
    return None if plan is None else _walk(model, requests[0], plan, Noise.joined(noises))


def steps_from(model: LatentDiffusion, request: Request, before: Step) -> Iterator[Step]:
    """Go on after a step of another walk of the same sampler, spacing and number of steps: from there on the resolved
    request's prompt and guidance hold. Steps are numbered as in that walk. Samplers that remember earlier steps begin
    anew there, and fresh noise is drawn anew: without either, the same request gives the same picture again.

    Raises `ValueError` for a step that is not of such a walk, and for requests of several passes.
    """
    model, noise = drawing(model, request), noise_of(model, request)
    with torch.inference_mode():
        plan = task_of(_of_one_pass(request)).plan(model, request, noise)
    left = plan.sigmas[before.index + 1 :]
    if len(plan.sigmas) != before.count + 1 or abs(float(left[0]) - before.sigma) > 1e-6 * max(before.sigma, 1e-6):
        raise ValueError(f"step {before.index + 1} of {before.count}: expected one of the same sampler and steps")
    if before.x.shape != plan.x.shape:
        got, expected = (" x ".join(map(str, one.shape)) for one in (before.x, plan.x))
        raise ValueError(f"the step's pictures are {got}; expected {expected}, as the request's are")
    return _numbered(_walk(model, request, dataclasses.replace(plan, x=before.x, sigmas=left), noise), before.index + 1)


def _numbered(walk: Iterator[Step], before: int) -> Iterator[Step]:
    for step in walk:
        yield dataclasses.replace(step, index=before + step.index, count=before + step.count)


def rows_of(step: Step, requests: Sequence[Request]) -> list[Step]:
    """The part of each request in a step of `steps_together`."""
    counts = [one.batch_size for one in requests]
    pairs = zip(step.x.split(counts), step.denoised.split(counts), strict=True)
    return [dataclasses.replace(step, x=x, denoised=denoised) for x, denoised in pairs]


def invert(model: LatentDiffusion, wrapped: Tensor, request: Request) -> Tensor:
    """DDIM inversion: x at the first level from which DDIM with the same prompt, steps and scheduler comes back to
    these latents (B C h w, wrapped), nearly; the more steps the nearer. To be given to `steps` as `start`.

    Without a `cfg_scale` there is no guidance: guided steps are far from invertible. Raises `ValueError` as `steps`.
    """
    count, _, height, width = wrapped.shape
    factor = model.config.autoencoder.factor
    scale = 1.0 if request.cfg_scale is None else request.cfg_scale
    size = {"batch_size": count, "height": height * factor, "width": width * factor}
    resolved = resolve(model, dataclasses.replace(request, sampler="DDIMScheduler", eta=None, cfg_scale=scale, **size))
    model = drawing(model, resolved)
    with torch.inference_mode():
        plan = task_of(resolved).plan(model, resolved, noise_of(model, resolved))
        denoiser, rising = backwards(denoiser_of(model, resolved), plan.sigmas)
        denoise = plan.wrap(_guided(denoiser, around(model, resolved), plan))
        x = wrapped.to(plan.x) * (1 + float(rising[0]) ** 2) ** 0.5
        return _last(euler(denoise, x, rising, Noise([]))).x


def _rows(cond: Conditioning, count: int) -> Conditioning:
    found = {len(slot) for slot in (cond.context, cond.vector, cond.concat) if slot is not None}
    if not found:  # of a model that nothing steers
        return cond
    if found not in ({1}, {count}):
        raise ValueError(f"cond has {sorted(found)} rows; expected 1, or {count}, one for each picture")
    return repeated(cond, count) if found == {1} else cond


def _guided(denoiser: Denoiser, request: Request, plan: Plan) -> Denoise:
    guidance = guidance_of(request, plan.sigmas)
    stages = [guided(denoiser, stage.conds, stage.uncond, guidance, stage.away) for stage in plan.steering.stages]
    return in_turn(stages, plan.steering.turns)


def _walk(model: LatentDiffusion, request: Request, plan: Plan, noise: Noise) -> Iterator[Step]:
    with torch.inference_mode():
        denoiser = heard(model, request, plan.sigmas)
        denoise = plan.wrap(_guided(denoiser, around(model, request), plan))
        preset = chosen(model, request)
        eta = preset.eta if request.eta is None else request.eta
        answers = preset.averages == "prediction" and not denoiser.relative  # whose answers are no scaling of x alone
        averaged = denoiser.scaling if answers else None
        walk = sampler(preset.sampler, model.denoiser.schedule, eta=eta, averaged=averaged)
        steps = walk(denoise, plan.x, plan.sigmas, noise) if len(plan.sigmas) > 1 else iter(())
    done: Step | None = None
    with kept_memory():
        while True:  # inference mode is entered anew for each step, so that it never leaks to the caller between two
            with torch.inference_mode():
                step = next(steps, None)
                if step is not None and step.index + 1 == step.count:
                    step = dataclasses.replace(step, x=plan.end(step.x, step.sigma))
            if step is None:
                break
            done = step
            yield step
    if plan.then is None or done is None:
        return
    with torch.inference_mode():
        further = plan.then(latents(model, request, done))
    yield from _numbered(_walk(model, request, further, noise), done.index + 1)


def _abreast(walks: Sequence[Iterator[Step]]) -> Iterator[Step]:
    """Walks of single pictures as one; a picture that has arrived waits for those that take longer, and so does one
    that would go on at another size."""
    last: list[Step] = []
    for sized in zip(*(itertools.groupby(walk, lambda step: step.x.shape) for walk in walks), strict=True):
        for each in itertools.zip_longest(*(some for _, some in sized)):
            last = [step or last[number] for number, step in enumerate(each)]
            yield dataclasses.replace(
                max(last, key=lambda step: step.index),
                count=max(step.count for step in last),
                x=torch.cat([step.x for step in last]),
                denoised=torch.cat([step.denoised for step in last]),
            )


def latents(model: LatentDiffusion, request: Request, step: Step) -> Tensor:
    """What is decoded after the last step of a resolved request: B C h w, wrapped."""
    return chosen(model, request).ended(step.x, step.sigma)


def decode(
    model: LatentDiffusion, wrapped: Tensor, *, exact: bool = False, tiling: Tiling | None = None
) -> list[Image.Image]:
    """Wrapped latents B C h w -> B RGB pictures; `exact` decodes one by one, `tiling` also each tile alone."""
    groups = wrapped.split(1) if exact or tiling else (wrapped,)
    pictures: list[Image.Image] = []
    with kept_memory(), torch.inference_mode():
        for group in groups:
            latent = model.space.unwrap(group).to(model.autoencoder.post_quant_conv.weight.dtype)
            if tiling is None:
                image = model.autoencoder.decode(latent).float()
            else:
                image = tiling.blended(latent, model.autoencoder.decode, factor=model.config.autoencoder.factor)
            if not image.isfinite().all():
                raise FloatingPointError(
                    "the picture is not numbers: the weights are damaged, or overflow in half precision"
                )
            levels = image.clamp(-1, 1).mul_(127.5).add_(127.5).round_().byte().permute(0, 2, 3, 1)  # B H W 3
            pictures += [Image.fromarray(one) for one in levels.cpu().numpy()]
    return pictures


def generate(
    model: LatentDiffusion,
    request: Request,
    *,
    cond: Conditioning | None = None,
    uncond: Conditioning | None = None,
) -> list[Image.Image]:
    """The finished pictures, each with `.info["parameters"]`. `cond`, `uncond`: as of `steps`; such pictures carry no
    request, since none would repeat them."""
    resolved = resolve(model, request) if cond is None else settled(model, _of_one_pass(request))
    with kept_memory():
        walk = steps(model, resolved, cond=cond, uncond=uncond)
        if cond is None:
            return finish(model, resolved, last(walk))
        return decode(endless(model, resolved), latents(model, resolved, _last(walk)), exact=resolved.exact)


def generate_each(model: LatentDiffusion, prompts: Sequence[str | Prompt], request: Request) -> list[Image.Image]:
    """One picture for each prompt, made together; their seeds follow one another from the request's."""
    resolved = resolve(model, dataclasses.replace(_of_one_pass(request), batch_size=len(prompts)))
    model = drawing(model, resolved)
    noise = noise_of(model, resolved)
    with torch.inference_mode():
        plan = task_of(resolved).plan(model, resolved, noise)
        plan = dataclasses.replace(plan, steering=plan.steering.towards(model.reads(prompts)))
    return decode(model, latents(model, resolved, _last(_walk(model, resolved, plan, noise))))


def last(walk: Iterator[Step]) -> Step | None:
    """The last step of all, or None: a picture of strength 0 takes none."""
    found = deque(walk, maxlen=1)
    return found.pop() if found else None


def _last(walk: Iterator[Step]) -> Step:
    found = last(walk)
    assert found is not None  # who asks has steps to do
    return found


def finish(model: LatentDiffusion, request: Request, step: Step | None) -> list[Image.Image]:
    """The pictures of a resolved request's last step (None where there was none to do), decoded and stamped."""
    drawn, tiling = None if step is None else latents(model, request, step), tiling_of(model, request)
    decoded = [] if drawn is None else decode(endless(model, request), drawn, exact=request.exact, tiling=tiling)
    name, told = Path(model.source).name, referred(request)
    return [
        stamp(picture, Provenance(request=told, position=position, model=name, digest=model.digest))
        for position, picture in enumerate(task_of(request).finish(model, request, decoded))
    ]


def unknown_words(model: LatentDiffusion, request: Request) -> list[str]:
    """Words of the resolved request's prompts that the model never saw, each once."""
    found = (reading for readings in _readings(model, request).values() for reading in readings)
    return list(dict.fromkeys(word for reading in found for word in reading.unknown))


def warnings(model: LatentDiffusion, request: Request) -> list[str]:
    """What the model will not take from the resolved request's prompts: words it never saw, words beyond its
    length."""
    sentences: list[str] = []
    for name in ("prompt", "negative_prompt"):
        if tag := TAG.search(getattr(request, name)):
            sentences.append(f"{name}: {tag[0]} is read as words and loads nothing; of a LoRA give the file: --lora")
    for name, readings in _readings(model, request).items():
        unknown = dict.fromkeys(word for reading in readings for word in reading.unknown)
        if unknown:
            sentences.append(f"{name}: the model never saw {', '.join(map(repr, unknown))}; left out")
        cut = {f"one chunk of {one.room} tokens; left out from {one.cut[0]!r} on" for one in readings if one.cut}
        sentences += [f"{name}: longer than {one}" for one in sorted(cut)]
    if request.negative_prompt and model.config.unet.guidance_dim is not None:
        sentences.append("negative_prompt: the model guides itself and is asked once a step; left out")
    return sentences


def _readings(model: LatentDiffusion, request: Request) -> dict[str, list[Reading]]:
    """How each tower reads what each prompt says at one step or another; nothing of a model that reads none."""
    if not model.reads_prompts:
        return {}
    said = wordings(request)
    prompts = {
        "prompt": [prompt for one in said for _, prompt in one.conds],
        "negative_prompt": [one.uncond for one in said],
    }
    return {
        name: [reading for prompt in dict.fromkeys(each) for reading in model.reads.readings(prompt)]
        for name, each in prompts.items()
    }
