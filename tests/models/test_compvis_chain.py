"""From a file to latents and picture as CompVis makes them: its networks, small and with random weights, are saved as
its training saves them; what opens the file samples as its own DDIM, guidance, conditioners and first stages do."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from compvis_oracle import CompVisAutoencoder, compvis_token_transformer, compvis_unet
from ldm.models.diffusion.ddim import DDIMSampler
from ldm.modules.diffusionmodules.util import make_beta_schedule
from ldm.modules.encoders.modules import ClassEmbedder, SpatialRescaler
from network_oracles import difference, randomize
from torch import Tensor, nn

from tintype.checkpoints.single_file import load_single_file
from tintype.common.files import save_tensors
from tintype.common.rng import Noise
from tintype.conditioning.bert import BertConfig
from tintype.conditioning.class_label import ClassConditioner, ClassConfig
from tintype.conditioning.layout import Box, LayoutConditioner, LayoutConfig, Region, layout_ids
from tintype.conditioning.spatial import SpatialConditioner, SpatialConfig
from tintype.diffusion.denoiser import Conditioning
from tintype.diffusion.guidance import Guidance, guided
from tintype.diffusion.names import preset
from tintype.diffusion.samplers import SAMPLERS
from tintype.diffusion.schedule import DDPMConfig
from tintype.families import latent_diffusion as zoo
from tintype.families.base import FamilyConfig, LatentDiffusion

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # CompVis's use of numpy

STEPS = 10
BATCH = 2


def small(config: FamilyConfig) -> FamilyConfig:
    """Of the same kind, heads and levels."""
    autoencoder = dataclasses.replace(config.autoencoder, width=32, num_blocks=1)
    if autoencoder.codebook_size:
        autoencoder = dataclasses.replace(autoencoder, codebook_size=40)
    conditioner = config.conditioner
    match conditioner:
        case BertConfig() | LayoutConfig():
            words = min(conditioner.encoder.vocabulary_size, 8192)  # layouts need theirs
            encoder = dataclasses.replace(conditioner.encoder, width=24, num_layers=2, vocabulary_size=words)
            conditioner = dataclasses.replace(conditioner, encoder=encoder)
        case ClassConfig():
            null = None if conditioner.null_class is None else 20
            conditioner = dataclasses.replace(conditioner, width=24, num_classes=21, null_class=null)
        case _:
            pass
    blocks = 2 if config.unet.resample_in_blocks else 1  # where shapes tell how many there are
    unet = dataclasses.replace(config.unet, width=32, num_blocks=blocks, context_dim=config.unet.context_dim and 24)
    return dataclasses.replace(config, unet=unet, autoencoder=autoencoder, conditioner=conditioner)


@dataclasses.dataclass
class Theirs:
    """CompVis's side. `encode` gives (conditioning, unconditional or None) as their scripts make them."""

    unet: nn.Module
    first_stage: CompVisAutoencoder
    cond_stage: nn.Module
    encode: Callable[[], tuple[Tensor, Tensor | None]]


def their_side(config: FamilyConfig) -> Theirs:
    first_stage = CompVisAutoencoder(config.autoencoder)
    stage, encode = conditioned(config, first_stage)
    theirs = Theirs(compvis_unet(config.unet), first_stage, stage, encode)
    for seed, network in enumerate((theirs.unet, first_stage, *([] if stage is first_stage else [stage]))):
        randomize(network, seed)
    return theirs


def conditioned(config: FamilyConfig, first_stage: CompVisAutoencoder) -> tuple[nn.Module, Callable]:
    match config.conditioner:
        case BertConfig(encoder=encoder):
            transformer = compvis_token_transformer(encoder)
            stage = nn.Module()
            stage.transformer = transformer
            return stage, lambda: tuple(transformer(one, return_embeddings=True) for one in (WORDS, NO_WORDS))
        case LayoutConfig(encoder=encoder):
            stage = nn.Module()
            stage.transformer = compvis_token_transformer(encoder)
            ids = torch.tensor([layout_ids(boxes, config.conditioner) for boxes in LAYOUTS])
            return stage, lambda: (stage.transformer(ids, return_embeddings=True), None)
        case ClassConfig(num_classes=count, width=width, null_class=null):
            stage = ClassEmbedder(width, n_classes=count, key="class")
            none = torch.full((BATCH,), null or 0)
            return stage, lambda: tuple(stage({"class": one}) for one in (torch.tensor(CLASSES), none))
        case SpatialConfig(num_classes=count):
            stage = SpatialRescaler(n_stages=2, in_channels=count, out_channels=3)
            return stage, lambda: (stage(torch.eye(count)[class_map(config)].permute(0, 3, 1, 2)), None)
        case _:
            # inpainting_big's cond_stage is the first stage itself ("__is_first_stage__"), and its file has it twice
            stage = first_stage if config.name == "ldm-inpainting" else nn.Module()
            return stage, lambda: (pictures(config), None)


WORDS = torch.tensor([[101, *range(2000, 2075 - row), 102, *[0] * row] for row in range(BATCH)])
NO_WORDS = torch.tensor([[101, 102] + [0] * 75] * BATCH)
HALF = Region(left=0.1, top=0.2, width=0.5, height=0.6)
LAYOUTS = [[Box(label=3, region=HALF)], [Box(label=5, region=HALF, group=True), Box(label=1, region=Region())]]
CLASSES = [7, 19]


def side(config: FamilyConfig) -> int:
    """Of the latent: 1 at the coarsest level."""
    return 2 ** (len(config.unet.mult) - 1)


def class_map(config: FamilyConfig) -> Tensor:
    pixels = 4 * side(config)
    return torch.arange(BATCH * pixels * pixels).view(BATCH, pixels, pixels) // 7 % 182


def pictures(config: FamilyConfig) -> Tensor | None:
    """What inpainting and super resolution put beside the latent."""
    channels = config.unet.in_channels - config.autoencoder.latent_channels
    if not channels:
        return None
    return torch.randn(BATCH, channels, side(config), side(config), generator=torch.Generator().manual_seed(5))


def save(path: Path, theirs: Theirs, *, scale: float | None) -> None:
    parts = {
        "model.diffusion_model.": theirs.unet,
        "first_stage_model.": theirs.first_stage,
        "cond_stage_model.": theirs.cond_stage,
    }
    tensors = {
        prefix + name: tensor.clone() for prefix, part in parts.items() for name, tensor in part.state_dict().items()
    }
    tensors |= {"betas": torch.zeros(1000), "model_ema.decay": torch.tensor(0.9999)}
    save_tensors(path, tensors | ({} if scale is None else {"scale_factor": torch.tensor(scale)}))


def their_latents(theirs: Theirs, config: FamilyConfig, x: Tensor) -> Tensor:
    """Ten steps of `scripts/txt2img.py` and its like."""
    assert isinstance(config.schedule, DDPMConfig)
    betas = make_beta_schedule("linear", 1000, linear_start=config.schedule.start, linear_end=config.schedule.end)
    alphas = torch.tensor(1.0 - betas).cumprod(0)
    cond, uncond = theirs.encode()

    def apply_model(x: Tensor, t: Tensor, c: Tensor | None) -> Tensor:
        return theirs.unet(x, t, context=c) if config.unet.context_dim else theirs.unet(with_pictures(x, c), t)

    sampler = DDIMSampler(
        SimpleNamespace(
            num_timesteps=1000,
            betas=torch.tensor(betas),
            alphas_cumprod=alphas,
            alphas_cumprod_prev=torch.cat((torch.ones(1), alphas[:-1])),
            device="cpu",
            apply_model=apply_model,
        )
    )
    sampler.register_buffer = lambda name, value: setattr(sampler, name, value)  # theirs moves all to CUDA
    scale = config.cfg_scale if uncond is not None else 1.0
    settings = {"unconditional_guidance_scale": scale, "unconditional_conditioning": uncond, "verbose": False}
    return sampler.sample(STEPS, BATCH, x.shape[1:], cond, x_T=x, **settings)[0]


def with_pictures(x: Tensor, c: Tensor | None) -> Tensor:
    return x if c is None else torch.cat((x, c), dim=1)


def our_conditioning(model: LatentDiffusion) -> tuple[Conditioning, Conditioning | None]:
    match model.conditioner:
        case ClassConditioner():
            null = model.conditioner.config.null_class
            # without a null class their sampler can only be given some class to guide away from
            return model.conditioner(CLASSES), model.conditioner([0] * BATCH if null is None else [null] * BATCH)
        case LayoutConditioner():
            return model.conditioner(LAYOUTS), None
        case SpatialConditioner():
            return model.conditioner(class_map(model.config)), None
        case None:
            return Conditioning(concat=pictures(model.config)), None
        case reads:
            return reads.encode(WORDS), reads.encode(NO_WORDS)


@pytest.mark.parametrize("config", [family.config for family in zoo.FAMILIES], ids=lambda config: config.name)
@torch.inference_mode()
def test_a_file_is_sampled_as_there(config: FamilyConfig, tmp_path: Path) -> None:
    config = small(config)
    theirs = their_side(config)
    scale = 1.25 if config.name == "ldm-churches" else None
    save(tmp_path / "model.safetensors", theirs, scale=scale)
    model = load_single_file(tmp_path / "model.safetensors")
    assert dataclasses.replace(model.config, space=config.space) == config
    assert model.space.scale == (scale or config.space.scale[0],)

    ddim = preset("ddim", model.config.conventions)
    schedule = model.denoiser.schedule
    sigmas = ddim.levels(schedule, "leading", STEPS)
    x = torch.randn(BATCH, config.unet.out_channels, side(config), side(config))
    cond, uncond = our_conditioning(model)
    denoiser = dataclasses.replace(model.denoiser, schedule=ddim.told(schedule, "leading", sigmas))
    denoise = guided(denoiser, [(1.0, cond)], uncond, Guidance(scale=config.cfg_scale))
    first = ddim.first(schedule, float(sigmas[0]))
    *_, last = SAMPLERS["ddim"](denoise, x * first, sigmas, Noise([1, 2], device="cpu"))
    latents = ddim.ended(last.x, last.sigma)
    expected = their_latents(theirs, config, x)
    assert difference(latents, expected) <= 1e-4

    picture = model.autoencoder.decode(model.space.unwrap(expected))
    assert difference(picture, theirs.first_stage.decode(expected / model.space.scale[0])) <= 1e-4
