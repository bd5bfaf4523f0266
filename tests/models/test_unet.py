"""The U-Net against diffusers on small random weights, and what it promises besides."""

import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPAGPipeline
from network_oracles import difference, randomize, their_plain_unet, their_unet
from torch import Tensor, nn

from tintype.common.rng import Noise
from tintype.diffusion.denoiser import Conditioning, Denoiser
from tintype.diffusion.guidance import Guidance, guided
from tintype.diffusion.names import DIFFUSERS
from tintype.diffusion.samplers import SAMPLERS
from tintype.diffusion.scaling import SCALINGS
from tintype.diffusion.schedule import DDPM, DDPMConfig
from tintype.families.diffusers_names import unet_names
from tintype.families.stable_diffusion import SD1_UNET, SD2_UNET, SDXL_UNET
from tintype.models.unet import UNet, UNetConfig
from tintype.nn.embedding import timestep_embedding

TOLERANCE = 1e-5
TIME_ID_DIM = 8

SMALL = UNetConfig(width=16, mult=(1, 2, 4), depth=(1, 1, 0), context_dim=24, num_heads=4, norm_groups=8)
SD2_LIKE = dataclasses.replace(SMALL, num_heads=None, head_dim=8)
SDXL_LIKE = dataclasses.replace(SD2_LIKE, depth=(0, 1, 2), middle_depth=2, vector_dim=20 + 6 * TIME_ID_DIM)
UPSCALER_LIKE = dataclasses.replace(SMALL, in_channels=7, num_classes=10, self_attention=(False, True, True))
PLAIN = UNetConfig(
    in_channels=3,
    out_channels=3,
    width=16,
    mult=(1, 2, 3),
    depth=(0, 1, 1),
    context_dim=None,
    num_heads=None,
    head_dim=8,
    norm_groups=8,
)
CHURCHES_LIKE = dataclasses.replace(PLAIN, scale_shift=True, resample_in_blocks=True)


def inputs(config: UNetConfig, size: tuple[int, int] = (16, 8)) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, t, context for a batch of two, in as many words as fit no power of two."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, config.in_channels, *size, generator=generator)
    context = torch.randn(2, 7, config.context_dim, generator=generator) if config.context_dim else None
    return x, torch.tensor([3, 731]), context


def vector_of(config: UNetConfig) -> Tensor | None:
    generator = torch.Generator().manual_seed(2)
    if config.num_classes is not None:
        return torch.tensor([0, config.num_classes - 1])
    return None if config.vector_dim is None else torch.randn(2, config.vector_dim, generator=generator)


def ours_like(theirs: nn.Module, config: UNetConfig, **spelling: str) -> UNet:
    unet = UNet(config).eval()
    unet.load_state_dict(unet_names(config, **spelling).to_ours(theirs.state_dict()))
    return unet


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (SD1_UNET, 859_520_964),
        (dataclasses.replace(SD1_UNET, in_channels=9), 859_535_364),
        (SD2_UNET, 865_910_724),
        (SDXL_UNET, 2_567_463_684),
    ],
    ids=["sd1", "sd1-inpainting", "sd2", "sdxl"],
)
def test_parameter_count_is_the_published_one(config: UNetConfig, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in UNet(config).parameters()) == count


@pytest.mark.parametrize("size", [(16, 8), (12, 10), (7, 5)], ids=str)
@pytest.mark.parametrize(
    ("config", "linear"),
    [
        (SMALL, False),
        (SD2_LIKE, True),
        (dataclasses.replace(SMALL, num_blocks=1, mult=(1, 2), depth=(0, 2), middle_depth=2), True),
    ],
    ids=["sd1", "sd2", "two levels"],
)
@torch.inference_mode()
def test_equals_diffusers_at_even_and_odd_sizes(config: UNetConfig, linear: bool, size: tuple[int, int]) -> None:
    theirs = randomize(their_unet(config, linear=linear))
    x, t, context = inputs(config, size)
    got = ours_like(theirs, config, projection="linear" if linear else "conv")(x, t, context)
    assert difference(got, theirs(x, t, context).sample) <= TOLERANCE


@torch.inference_mode()
def test_equals_diffusers_with_pooled_text_and_sizes() -> None:
    theirs = randomize(their_unet(SDXL_LIKE, time_id_dim=TIME_ID_DIM))
    x, t, context = inputs(SDXL_LIKE, (12, 10))
    pooled, time_ids = torch.randn(2, 20), torch.tensor([[1024, 768, 0, 4, 512, 512], [64, 64, 8, 0, 64, 32]])
    added = {"text_embeds": pooled, "time_ids": time_ids}
    vector = torch.cat((pooled, timestep_embedding(time_ids, TIME_ID_DIM).flatten(1)), dim=1)
    expected = theirs(x, t, context, added_cond_kwargs=added).sample
    assert difference(ours_like(theirs, SDXL_LIKE)(x, t, context, vector), expected) <= TOLERANCE


@torch.inference_mode()
def test_equals_diffusers_with_a_projected_class_embedding() -> None:
    config = dataclasses.replace(SD2_LIKE, vector_dim=20)  # SD 2.1 unCLIP
    theirs = randomize(their_unet(config, vector="class_embedding"))
    (x, t, context), vector = inputs(config), vector_of(config)
    got = ours_like(theirs, config, vector="class_embedding")(x, t, context, vector)
    assert difference(got, theirs(x, t, context, class_labels=vector).sample) <= TOLERANCE


@torch.inference_mode()
def test_equals_diffusers_with_classes_and_no_self_attention() -> None:
    theirs = randomize(their_unet(UPSCALER_LIKE))
    (x, t, context), labels = inputs(UPSCALER_LIKE), vector_of(UPSCALER_LIKE)
    got = ours_like(theirs, UPSCALER_LIKE)(x, t, context, labels)
    assert difference(got, theirs(x, t, context, class_labels=labels).sample) <= TOLERANCE


@pytest.mark.parametrize(
    "config",
    [
        PLAIN,
        dataclasses.replace(PLAIN, num_classes=5, middle_depth=0),
        dataclasses.replace(PLAIN, scale_shift=True),
        CHURCHES_LIKE,
        dataclasses.replace(CHURCHES_LIKE, depth=(1, 0, 1)),
    ],
    ids=["plain", "class, bare middle", "scale and shift", "resampling blocks", "attention first and last"],
)
@torch.inference_mode()
def test_equals_diffusers_without_context(config: UNetConfig) -> None:
    theirs = randomize(their_plain_unet(config))
    (x, t, _), labels = inputs(config), vector_of(config)
    expected = theirs(x, t, class_labels=labels).sample
    assert difference(ours_like(theirs, config)(x, t, None, labels), expected) <= TOLERANCE


EVERY = {
    "sd1": SMALL,
    "sd2": SD2_LIKE,
    "sdxl": SDXL_LIKE,
    "upscaler": UPSCALER_LIKE,
    "plain": PLAIN,
    "churches": CHURCHES_LIKE,
}
every = pytest.mark.parametrize("config", EVERY.values(), ids=EVERY)


@every
@torch.inference_mode()
def test_bound_to_a_prompt_it_is_the_same_function(config: UNetConfig) -> None:
    unet = randomize(UNet(config))
    (x, t, context), vector = inputs(config), vector_of(config)
    bound = unet.bind(context, vector)
    for times in (t, t // 2):
        assert difference(bound(x, times), unet(x, times, context, vector)) <= 1e-6


@every
@torch.inference_mode()
def test_pictures_stay_channels_last(config: UNetConfig) -> None:
    unet = randomize(UNet(config))
    moved: list[str] = []

    def watch(name: str, module: nn.Module) -> None:
        def note(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            if not all(one.is_contiguous(memory_format=torch.channels_last) for one in (given[0], out)):
                moved.append(name)

        module.register_forward_hook(note)

    for name, module in unet.named_modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            watch(name, module)
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last), name
    (x, t, context), vector = inputs(config), vector_of(config)
    out = unet(x, t, context, vector)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not moved


@pytest.mark.parametrize("config", [SMALL, PLAIN], ids=["context", "plain"])
def test_no_layer_rearranges_memory(config: UNetConfig) -> None:
    unet = randomize(UNet(config))
    x, t, context = inputs(config, (32, 32))  # over few pixels a convolution does, on purpose
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        bound = unet.bind(context, None)
        with torch.profiler.profile() as profile:
            bound(x, t)
    assert not {event.name for event in profile.events()} & {"aten::clone", "aten::contiguous"}


def test_a_small_network_at_rest_answers_zero() -> None:
    unet = UNet(SMALL)
    x, t, context = inputs(SMALL)
    assert torch.equal(unet(x, t, context), unet.conv_out.bias[:, None, None].expand_as(x))


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (SMALL, {}, "no context; this U-Net expects a context of width 24"),
        (PLAIN, {"context": torch.zeros(2, 7, 24)}, "a context of width 24; this U-Net expects no context"),
        (SMALL, {"context": torch.zeros(2, 7, 20)}, "a context of width 20; this U-Net expects a context of width 24"),
        (SMALL, {"context": torch.zeros(2, 7, 24), "vector": torch.zeros(2, 4)}, "a vector .*expects no vector"),
        (SDXL_LIKE, {"context": torch.zeros(2, 7, 24)}, "no vector .*expects a vector"),
    ],
    ids=["no context", "needless context", "context of another width", "needless vector", "no vector"],
)
def test_conditioning_of_another_network_is_refused(config: UNetConfig, given: dict[str, Tensor], message: str) -> None:
    unet = UNet(config)
    x, t, _ = inputs(config)
    with pytest.raises(ValueError, match=message):
        unet(x, t, **given)
    with pytest.raises(ValueError, match=message):
        unet.bind(given.get("context"), given.get("vector"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": (1, 1)}, "one entry per level"),
        ({"self_attention": (True,)}, "one entry per level"),
        ({"head_dim": 8}, "exactly one"),
        ({"num_heads": None}, "exactly one"),
        ({"vector_dim": 8, "num_classes": 3}, "not both"),
    ],
    ids=str,
)
def test_contradicting_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_channels_that_do_not_divide_into_heads_are_refused() -> None:
    for heads in ({"num_heads": 3}, {"num_heads": None, "head_dim": 24}, {"num_heads": None, "head_dim": 512}):
        with pytest.raises(ValueError, match="do not divide into heads"):
            UNet(dataclasses.replace(SMALL, **heads))


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_perturbed_attention_guidance_equals_diffusers_pipeline(scale: float) -> None:
    """The whole pipeline with `pag_applied_layers` "mid": which rows it perturbs, and what it makes of them."""
    theirs = randomize(their_unet(SMALL, linear=False))
    theirs.register_to_config(sample_size=8)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False,
        set_alpha_to_one=False,
    )  # fmt: skip
    pipeline = StableDiffusionPAGPipeline(
        None, None, None, theirs, scheduler, None, None, requires_safety_checker=False, pag_applied_layers="mid"
    )
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(4)
    context, empty = (torch.randn(2, 5, SMALL.context_dim or 0, generator=generator) for _ in range(2))
    first = torch.randn(2, SMALL.in_channels, 8, 8, generator=generator)
    expected = pipeline(
        prompt_embeds=context, negative_prompt_embeds=empty, latents=first, num_inference_steps=3, guidance_scale=scale,
        pag_scale=3.0, output_type="latent",
    ).images  # fmt: skip

    schedule = DDPM(DDPMConfig())
    denoiser = Denoiser(ours_like(theirs, SMALL, projection="conv"), schedule, SCALINGS["eps"])
    cond, uncond = Conditioning(context=context), Conditioning(context=empty)
    with torch.inference_mode():
        preset = DIFFUSERS["DDIMScheduler"]
        sigmas = preset.levels(schedule, "leading", 3)
        denoise = guided(denoiser, [(1.0, cond)], uncond, Guidance(scale=scale, pag_scale=3.0))
        plain = guided(denoiser, [(1.0, cond)], uncond, Guidance(scale=scale))
        start = first * preset.first(schedule, float(sigmas[0]))
        *_, step = SAMPLERS["ddim"](denoise, start, sigmas, Noise([0]))
        *_, without = SAMPLERS["ddim"](plain, start, sigmas, Noise([0]))
    assert difference(preset.ended(step.x, step.sigma), expected) <= 1e-4
    assert difference(preset.ended(without.x, without.sigma), expected) > 0.01


def test_no_attention_in_the_middle_cannot_be_perturbed() -> None:
    bare = UNet(dataclasses.replace(SMALL, middle_depth=0))
    with pytest.raises(ValueError, match="no self-attention in its middle to perturb"):
        bare.bind_perturbed(torch.zeros(1, 5, SMALL.context_dim or 0), None)


def test_what_is_perturbed_is_a_copy() -> None:
    unet = randomize(UNet(SMALL))
    x, t, context = inputs(SMALL, (8, 8))
    with torch.inference_mode():
        before = unet.bind(context, None)(x, t)
        perturbed = unet.bind_perturbed(context, None)(x, t)
        assert torch.equal(unet.bind(context, None)(x, t), before)
    assert difference(perturbed, before) > 1e-3
