"""What a task decides: where sampling starts, what steers it, what constrains it. Never the loop."""

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tintype.common.config import nearest
from tintype.common.rng import Noise
from tintype.conditioning.prompt import PlacedObject
from tintype.conditioning.towers import TextTowersConfig
from tintype.diffusion.denoiser import Conditioning, Denoise, Denoiser
from tintype.diffusion.guidance import Guidance
from tintype.diffusion.names import A1111_XL, canonical, preset, spacing
from tintype.diffusion.preset import Preset
from tintype.diffusion.samplers import SAMPLERS, paces_itself, takes
from tintype.diffusion.tiles import Tiled
from tintype.families.base import Further, LatentDiffusion
from tintype.models.unet import UNet
from tintype.tasks.further import all_new
from tintype.tasks.request import Request
from tintype.tasks.sides import check_multiple
from tintype.tasks.steering import Stage, Steering, check, steer
from tintype.tasks.tiling import multiple
from tintype.tasks.windows import in_windows, seen, tiling_of, with_stride

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """x: B C h w at sigmas[0]; `steering` says what guides which step; `wrap` turns the guided denoise function into
    the constrained one; `end` makes of x at the last level what the constraint says it is. `then`: the plan that goes
    on from this one's latents (B C h w, wrapped), if there is one."""

    x: Tensor
    sigmas: Tensor
    steering: Steering
    wrap: Callable[[Denoise], Denoise]
    end: Callable[[Tensor, float], Tensor] = lambda x, sigma: x
    then: "Callable[[Tensor], Plan] | None" = None


def unchanged(denoise: Denoise) -> Denoise:
    """The constraint of tasks that have none."""
    return denoise


def settled(model: LatentDiffusion, request: Request) -> Request:
    """The request with nothing left open that every task has. Raises `ValueError` for what this model cannot do."""
    config = model.config
    check(config.conditioner, request)
    name, scheduler = _named(model, request)
    scale = config.cfg_scale if request.cfg_scale is None else request.cfg_scale
    if scale < 1 and config.conventions == "diffusers":
        log.warning("cfg_scale %g: no guidance with this model, as in diffusers; taken as 1", scale)
        scale = 1.0
    resolved = dataclasses.replace(
        request.with_seed(),
        steps=request.steps or config.steps,
        cfg_scale=scale,
        width=request.width or config.size,
        height=request.height or config.size,
        sampler=name,
        scheduler=scheduler,
    )
    walked = chosen(model, resolved).sampler
    if paces_itself(walked):
        resolved = dataclasses.replace(resolved, exact=True)
    if resolved.eta is not None and not takes(walked, "eta"):
        takers = [one for one in SAMPLERS if takes(one, "eta")]
        raise ValueError(f"sampler {resolved.sampler} takes no eta; expected {nearest('', takers)} with it")
    if resolved.pag_scale and not config.unet.middle_depth:
        raise ValueError(f"pag_scale {resolved.pag_scale:g}: this model has no attention to perturb; leave it out")
    for side in ("width", "height"):
        name = f"tiling: {side}" if resolved.tiling else side
        check_multiple(name, getattr(resolved, side), multiple(model, resolved))
    spaced(model, resolved)  # refuses more steps than the schedule has
    return with_stride(resolved, config.autoencoder.factor)


def _named(model: LatentDiffusion, request: Request) -> tuple[str, str]:
    """The sampler's canonical name, and the spacing: the one asked for, said with the sampler, the model's or the
    sampler's own."""
    config = model.config
    name, said = canonical(config.sampler if request.sampler is None else request.sampler)
    automatic = request.scheduler is None or request.scheduler.casefold() == "automatic"  # A1111's word for none
    asked = None if automatic or request.scheduler is None else spacing(request.scheduler)
    if isinstance(config.conditioner, TextTowersConfig):
        said, asked = (A1111_XL.get(one or "", one) for one in (said, asked))
    if asked is not None and said is not None and asked != said:
        raise ValueError(f"sampler {request.sampler!r} and scheduler {request.scheduler!r}: two spacings; name one")
    own = preset(name, config.conventions)
    if request.sampler is None or (config.conventions == "plain" and not own.firm):
        usual = (config.scheduler, own.scheduler)
    else:  # the model's default spacing is its default sampler's, and no other's
        walked = None if own.firm else config.spacing
        usual = (config.levels if own.flagged else None, walked, own.scheduler, config.scheduler)
    return name, next(one for one in (asked, said, *usual, "leading") if one is not None)


def chosen(model: LatentDiffusion, request: Request) -> Preset:
    """What the sampler's name of a resolved request means with this model."""
    assert request.sampler is not None
    means = preset(request.sampler, model.config.conventions)
    return means if means.within is None else dataclasses.replace(means, within=model.config.spacing or means.within)


def heard(model: LatentDiffusion, request: Request, sigmas: Tensor) -> Denoiser:
    """The model's denoiser for a resolved request, its network told the times that the sampler's name calls for."""
    assert request.scheduler is not None
    schedule = chosen(model, request).told(model.denoiser.schedule, request.scheduler, sigmas)
    return dataclasses.replace(denoiser_of(model, request), schedule=schedule)


def denoiser_of(model: LatentDiffusion, request: Request) -> Denoiser:
    """The model's denoiser; a network that is told the guidance scale has the resolved request's, one that is to work
    in tiles does."""
    network = model.denoiser.network
    if _guides_itself(model):
        assert isinstance(network, UNet)
        assert request.cfg_scale is not None
        network = network.at_guidance(request.cfg_scale)
    if (tiling := tiling_of(model, request)) is not None:
        network = Tiled(network, tiling)
    return dataclasses.replace(model.denoiser, network=network)


def around(model: LatentDiffusion, request: Request) -> Request:
    """The resolved request as guidance around the network hears it: one that guides itself gets no second pass."""
    return dataclasses.replace(request, cfg_scale=1.0) if _guides_itself(model) else request


def _guides_itself(model: LatentDiffusion) -> bool:
    return model.config.unet.guidance_dim is not None


def guidance_of(request: Request, sigmas: Tensor) -> Guidance:
    """The guidance a resolved request asks for; its share of the steps as noise levels of these."""
    assert request.cfg_scale is not None
    levels: list[float] = sigmas.tolist()
    count = len(levels) - 1
    first, after = (math.ceil(share * count - 1e-9) for share in (request.cfg_start, request.cfg_end))
    return Guidance(
        scale=request.cfg_scale,
        pag_scale=request.pag_scale,
        rescale=request.cfg_rescale,
        threshold=request.threshold,
        start=levels[first] if first else math.inf,
        end=levels[after] if after < count else 0.0,
    )


def spaced(model: LatentDiffusion, request: Request) -> Tensor:
    """The noise levels of a resolved request."""
    assert request.scheduler is not None
    assert request.steps is not None
    return chosen(model, request).levels(model.denoiser.schedule, request.scheduler, request.steps)


def noise_of(model: LatentDiffusion, request: Request) -> Noise:
    """The noise of a resolved request's pictures."""
    others, share = request.variation_seeds, request.variation_strength
    return Noise(request.seeds, device=model.device, others=others, share=share)


def pure_noise(model: LatentDiffusion, request: Request, noise: Noise, sigma: float) -> Tensor:
    """Where a picture from nothing starts: as large as noise, or signal and noise together, were in training."""
    assert request.width is not None
    assert request.height is not None
    factor = model.config.autoencoder.factor
    shape = (model.config.unet.out_channels, request.height // factor, request.width // factor)
    size = chosen(model, request).first(model.denoiser.schedule, sigma)
    return noise.first(shape).to(memory_format=torch.channels_last) * size


def prompted(
    model: LatentDiffusion, request: Request, noise: Noise, objects: tuple[PlacedObject, ...] = ()
) -> Steering:
    """What the prompts of a resolved request say, a row a picture; a model that nothing steers takes none. `objects`:
    what is there beside it, for a model that reads objects."""
    if model.conditioner is None and model.config.unet.context_dim is None:
        if request.prompt or request.negative_prompt:
            raise ValueError(f"prompt {request.prompt!r}: {model.config.name} reads none; expected an empty one")
        return Steering(stages=(Stage(((1.0, Conditioning()),), None),))
    sigmas = done(request, spaced(model, request))
    return steer(model.reads, around(model, request), sigmas, len(noise.seeds), objects=objects)


def refuse_unless_shown(model: LatentDiffusion, request: Request, what: Further, example: str) -> None:
    """Raises `ValueError` for a model that is not shown this beside the noise."""
    if model.config.further != (what,):
        raise ValueError(
            f"{model.config.name} is not shown a {what} beside the noise; {request.task} expects a model that is: "
            f"{example}"
        )


def from_noise(model: LatentDiffusion, request: Request, noise: Noise, steering: Steering) -> Plan:
    """A picture from nothing, whatever steers it, in windows where the request has such."""
    sigmas = spaced(model, request)
    return Plan(
        x=pure_noise(model, request, noise, float(sigmas[0])),
        sigmas=sigmas,
        steering=all_new(model, seen(request), steering, len(noise.seeds)),
        wrap=unchanged if request.window is None else in_windows(request, model.config.autoencoder.factor),
    )


def from_latent(model: LatentDiffusion, request: Request, noise: Noise, latent: Tensor, steering: Steering) -> Plan:
    """A picture from another, whatever steers it. latent: B C h w, wrapped. At strength 1 it starts as one from
    nothing does (diffusers leaves a trace of the picture in the noise)."""
    sigmas = done(request, spaced(model, request))
    if request.strength == 1:
        return from_noise(model, request, noise, steering)
    drawn = noise.first(latent.shape[1:]).to(latent)
    steering = all_new(model, request, steering, len(noise.seeds))
    return Plan(x=latent + float(sigmas[0]) * drawn, sigmas=sigmas, steering=steering, wrap=unchanged)


def keeping(model: LatentDiffusion, request: Request, begun: Plan, known: Tensor, cells: Tensor) -> Plan:
    """A plan held to what is known of the picture: there the estimate of x0 is that, whatever the network says, and so
    the path leads to it from what its noise makes of it at the first level. Programs that end above zero decode what
    is known without the noise that is left there.

    known: B C h w, wrapped; cells: 1 1 h w, 1 where all is new, 0 where all is known.
    """
    sigma = float(begun.sigmas[0])
    x = begun.x
    if request.strength == 1:
        drawn = x / chosen(model, request).first(model.denoiser.schedule, sigma)
        x = torch.lerp(known + sigma * drawn, x, cells)

    def held(denoise: Denoise) -> Denoise:
        return lambda x, sigma: torch.lerp(known, denoise(x, sigma), cells)

    def ended(x: Tensor, sigma: float) -> Tensor:
        return torch.where(cells > 0, x, known * (1 + sigma**2) ** 0.5)

    return dataclasses.replace(begun, x=x, wrap=held, end=ended)


def done(request: Request, sigmas: Tensor) -> Tensor:
    """Of the noise levels those that a strength leaves: the last int(steps * strength) steps, as in diffusers. None of
    the steps: the last level alone."""
    count = len(sigmas) - 1
    return sigmas[count - int(count * (1.0 if request.strength is None else request.strength)) :]
