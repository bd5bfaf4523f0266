"""From a request to the latents that are decoded: SDXL's prompts and numbers against diffusers' whole pipeline."""

from collections import deque

import pytest
import torch
from clip_oracles import give, their_tower, their_xl_pipeline
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

import tintype
from tintype.common.rng import Noise
from tintype.conditioning.text import TextConfig
from tintype.conditioning.towers import TextTowers, TextTowersConfig
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.schedule import DDPMConfig
from tintype.families.base import FamilyConfig, LatentDiffusion, assemble
from tintype.families.diffusers_names import unet_names
from tintype.generation import latents
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.clip import CLIPTextConfig
from tintype.models.unet import UNet, UNetConfig
from tintype.tasks.task import resolve

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' and numpy's

L = CLIPTextConfig(width=16, num_layers=3, num_heads=2)
G = CLIPTextConfig(width=24, num_layers=4, num_heads=2, activation="gelu", projection_dim=20)
TOWERS = (
    TextConfig(clip=L, layer=1, final_norm=False),
    TextConfig(clip=G, layer=1, final_norm=False, pad="zero", pooled=True),
)
CONFIG = FamilyConfig(
    name="sdxl",
    unet=UNetConfig(
        width=16,
        mult=(1, 2),
        num_blocks=1,
        depth=(0, 1),
        context_dim=40,
        num_heads=2,
        vector_dim=20 + 6 * 256,
        norm_groups=4,
    ),
    autoencoder=AutoencoderConfig(width=4, norm_groups=2),
    conditioner=TextTowersConfig(towers=TOWERS, zeros_for_empty=True),
    schedule=DDPMConfig(),
    prediction="eps",
    space=LatentSpace(scale=(0.13025,)),
    size=64,
    conventions="diffusers",
)


@pytest.fixture(scope="module")
def both() -> tuple[LatentDiffusion, StableDiffusionXLPipeline]:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=40,
        attention_head_dim=2,
        use_linear_projection=True,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=20 + 6 * 256,
    ).eval()
    own = UNet(CONFIG.unet)
    own.load_state_dict(unet_names(CONFIG.unet).to_ours(unet.state_dict()))
    first, second = their_tower(L, 1), their_tower(G, 2)
    towers = TextTowers(TextTowersConfig(towers=TOWERS, zeros_for_empty=True))
    for conditioner, theirs in zip(towers.conditioners, (first, second), strict=True):
        give(conditioner.encoder, theirs)
    scheduler = EulerDiscreteScheduler(
        1000, 0.00085, 0.012, "scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    pipeline = their_xl_pipeline((first, second), unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    model = assemble(
        CONFIG,
        unet=own.eval(),
        autoencoder=Autoencoder(CONFIG.autoencoder).eval(),
        conditioner=towers.eval(),
        source="tiny",
        fingerprint=lambda: "0" * 10,
    )
    return model, pipeline


def ours(model: LatentDiffusion, **asked: object) -> Tensor:
    request = resolve(
        model,
        tintype.Request(seed=3, steps=5, cfg_scale=5.0, sampler="EulerDiscreteScheduler", scheduler="leading", **asked),
    )
    return latents(model, request, deque(tintype.steps(model, request), maxlen=1).pop())


def theirs(pipeline: StableDiffusionXLPipeline, **asked: object) -> Tensor:
    start = Noise([3]).normal((4, asked["height"] // 8, asked["width"] // 8))
    with torch.no_grad():
        return pipeline(
            num_inference_steps=5, guidance_scale=5.0, latents=start, output_type="latent", return_dict=False, **asked
        )[0]


PROMPT = "a red apple, on (a) table"


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ({}, {"negative_prompt": None}),
        ({"negative_prompt": "ugly"}, {"negative_prompt": "ugly"}),
        (
            {"prompt_2": "a bird", "negative_prompt": "ugly", "negative_prompt_2": "bad"},
            {"prompt_2": "a bird", "negative_prompt": "ugly", "negative_prompt_2": "bad"},
        ),
        (
            {"original_width": 640, "original_height": 480, "crop_top": 8, "target_width": 512, "target_height": 256},
            {"original_size": (480, 640), "crops_coords_top_left": (8, 0), "target_size": (256, 512)},
        ),
        ({"clip_skip": 3}, {"clip_skip": 1}),
    ],
    ids=["plain", "negative", "second", "numbers", "clip_skip"],
)
def test_a_request_gives_the_pipeline_s_latents(
    both: tuple[LatentDiffusion, StableDiffusionXLPipeline], asked: dict[str, object], there: dict[str, object]
) -> None:
    model, pipeline = both
    size = {"width": 64, "height": 48}
    got = ours(model, prompt=PROMPT, prompt_style="plain", **size, **asked)
    expected = theirs(pipeline, prompt=PROMPT, **size, **there)
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()
    if asked:
        usual = ours(model, prompt=PROMPT, prompt_style="plain", **size)
        assert (got - usual).abs().max() > 1e-3 * expected.abs().max()


def test_weights_and_long_prompts_of_two_towers(both: tuple[LatentDiffusion, StableDiffusionXLPipeline]) -> None:
    """The prompt has two chunks, the negative one none: they run apart, and what is literal there is a weight here."""
    model, _ = both
    size = {"width": 64, "height": 48}
    long = "a red apple " * 30
    pictures = [ours(model, prompt=text, **size) for text in (long, long + "(bird:1.5)", long + "bird")]
    assert all(torch.isfinite(one).all() for one in pictures)
    assert not torch.equal(pictures[1], pictures[2])
    assert not torch.equal(pictures[0], ours(model, prompt=long, prompt_style="plain", **size))
