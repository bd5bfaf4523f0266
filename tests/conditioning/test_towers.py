"""SDXL's text conditioning against diffusers' own pipelines on small random towers."""

import dataclasses

import pytest
import torch
from clip_oracles import give, their_tokenizer, their_tower, their_xl_pipeline
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.models.embeddings import Timesteps
from torch import Tensor

from tintype.conditioning.prompt import Framing, Prompt
from tintype.conditioning.text import TextConfig
from tintype.conditioning.towers import TextTowers, TextTowersConfig
from tintype.models.clip import CLIPTextConfig

L = CLIPTextConfig(width=16, num_layers=3, num_heads=2)
G = CLIPTextConfig(width=24, num_layers=4, num_heads=2, activation="gelu", projection_dim=20)
TOWER_L = TextConfig(clip=L, layer=1, final_norm=False)
TOWER_G = TextConfig(clip=G, layer=1, final_norm=False, pad="zero", pooled=True)
BASE = TextTowersConfig(towers=(TOWER_L, TOWER_G), zeros_for_empty=True)
REFINER = TextTowersConfig(towers=(TOWER_G,), numbers=("original_size", "crop", "aesthetic_score"))
SIZES = {"original_size": (480, 640), "target_size": (768, 1024)}
TEXTS = ("a red apple, on (a) table", "zyzzyva")

Pipeline = StableDiffusionXLPipeline | StableDiffusionXLImg2ImgPipeline


def their_unet(vector_dim: int) -> UNet2DConditionModel:
    """Only its configuration is read, which says how many numbers belong there."""
    return UNet2DConditionModel(
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=vector_dim,
    )


def base() -> tuple[TextTowers, StableDiffusionXLPipeline]:
    first, second = their_tower(L, 1), their_tower(G, 2)
    ours = TextTowers(BASE)
    for conditioner, theirs in zip(ours.conditioners, (first, second), strict=True):
        give(conditioner.encoder, theirs)
    pipeline = their_xl_pipeline((first, second), their_unet(20 + 6 * 256))
    return ours, pipeline


def refiner() -> tuple[TextTowers, StableDiffusionXLImg2ImgPipeline]:
    theirs = their_tower(G, 2)
    ours = TextTowers(REFINER)
    give(ours.conditioners[0].encoder, theirs)
    pipeline = StableDiffusionXLImg2ImgPipeline(
        vae=None,
        text_encoder=None,
        text_encoder_2=theirs,
        tokenizer=None,
        tokenizer_2=their_tokenizer("!"),
        unet=their_unet(20 + 5 * 256),
        scheduler=None,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    return ours, pipeline


def said(pipeline: Pipeline, **arguments: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Context and pooled text of the prompt, then of the negative prompt."""
    with torch.no_grad():
        cond, uncond, pooled, negative = pipeline.encode_prompt(device="cpu", num_images_per_prompt=1, **arguments)
    return cond, pooled, uncond, negative


def check(ours: TextTowers, prompt: Prompt, context: Tensor, vector: Tensor) -> None:
    with torch.no_grad():
        cond = ours([prompt])
    torch.testing.assert_close(cond.context, context, rtol=0, atol=1e-5)
    torch.testing.assert_close(cond.vector, vector, rtol=0, atol=1e-5)


def vector(pooled: Tensor, ids: Tensor) -> Tensor:
    """As diffusers' U-Net joins both."""
    numbers = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)(ids.flatten())
    return torch.cat((pooled, numbers.reshape(1, -1)), dim=-1)


@pytest.mark.parametrize("text_2", [None, "a blue bird in a very tall tree"])
@pytest.mark.parametrize("clip_skip", [None, 1])
def test_base_equals_diffusers(text_2: str | None, clip_skip: int | None) -> None:
    ours, pipeline = base()
    framing = Framing(**SIZES, crop=(32, 8))
    ids = pipeline._get_add_time_ids(SIZES["original_size"], (32, 8), SIZES["target_size"], torch.float32, 20)
    asked = {"prompt": TEXTS[0], "prompt_2": text_2, "negative_prompt": "ugly", "negative_prompt_2": "bad"}
    cond, pooled, uncond, negative = said(pipeline, **asked, clip_skip=clip_skip)
    skip = 1 if clip_skip is None else clip_skip + 2  # theirs counts from the penultimate layer, A1111's from the last
    check(
        ours,
        Prompt(text=TEXTS[0], text_2=text_2, clip_skip=skip, framing=framing),
        cond,
        vector(pooled, ids),
    )
    prompt = Prompt(text="ugly", text_2="bad", negative=True, framing=framing)
    check(ours, prompt, uncond, vector(negative, ids))


def test_an_absent_negative_prompt_is_zeros_in_the_base_model() -> None:
    ours, pipeline = base()
    _, _, uncond, negative = said(pipeline, prompt=TEXTS[0])
    assert not uncond.any()
    numbers = pipeline._get_add_time_ids((1024, 1024), (0, 0), (1024, 1024), torch.float32, 20)
    check(ours, Prompt(text="", negative=True), uncond, vector(negative, numbers))
    check(ours, Prompt(text="", text_2="", negative=True), uncond, vector(negative, numbers))
    with torch.no_grad():
        for prompt in (Prompt(text=""), Prompt(text="", text_2="bad", negative=True)):
            context = ours([prompt]).context
            assert context is not None
            assert context.any()
        mixed = ours([Prompt(text="", negative=True), TEXTS[0]])
        alone = ours([TEXTS[0]])
    assert mixed.context is not None
    assert alone.context is not None
    assert not mixed.context[0].any()
    torch.testing.assert_close(mixed.context[1:], alone.context, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("negative", "score"), [("ugly", 2.5), ("", 2.5), (None, 2.5)])
def test_refiner_equals_diffusers(negative: str | None, score: float) -> None:
    ours, pipeline = refiner()
    cond, pooled, uncond, uncond_pooled = said(pipeline, prompt=TEXTS[1], negative_prompt=negative)
    sizes = (SIZES["original_size"], (4, 2), SIZES["target_size"])
    ids, negative_ids = pipeline._get_add_time_ids(
        *sizes, 6.0, score, sizes[0], sizes[1], sizes[2], torch.float32, text_encoder_projection_dim=20
    )
    framing = Framing(**SIZES, crop=(4, 2))
    check(ours, Prompt(text=TEXTS[1], framing=framing), cond, vector(pooled, ids))
    framing = dataclasses.replace(framing, aesthetic_score=score)
    prompt = Prompt(text=negative or "", negative=True, framing=framing)
    check(ours, prompt, uncond, vector(uncond_pooled, negative_ids))


def test_the_vector_begins_with_the_last_tower_s_text() -> None:
    with pytest.raises(ValueError, match="the last with pooled=True"):
        TextTowersConfig(towers=(TOWER_G, TOWER_L))
    with pytest.raises(ValueError, match="one or more"):
        TextTowersConfig(towers=())


def test_empty_is_the_empty_negative_prompt() -> None:
    ours, _ = base()
    with torch.no_grad():
        empty, asked = ours.empty(2), ours([Prompt(text="", negative=True)])
    assert empty.context is not None
    assert empty.vector is not None
    assert asked.vector is not None
    assert empty.context.shape == (2, 77, 40)
    assert not empty.context.any()
    assert torch.equal(empty.vector[1:], asked.vector)


def test_towers_of_texts_of_different_lengths_are_as_long_as_the_longest() -> None:
    ours, _ = base()
    first, second = ours.conditioners
    with torch.no_grad():
        got = ours([Prompt(text="(red:1.3) BREAK apple", text_2="bird", style="a1111")])
        one = first([Prompt(text="(red:1.3) BREAK apple", style="a1111")])
        words, nothing = second(["bird"]), second([""])
    assert got.context is not None
    assert one.context is not None
    assert words.context is not None
    assert nothing.context is not None
    two = torch.cat((words.context, nothing.context), dim=1)
    torch.testing.assert_close(got.context, torch.cat((one.context, two), dim=2))
    assert got.vector is not None
    assert words.vector is not None
    torch.testing.assert_close(got.vector[:, :20], words.vector)
