"""transformers' own CLIP tokenizer over the shipped merges, and the towers of Stable Diffusion, small and random."""

import gzip
from functools import cache
from importlib import resources

import torch
from diffusers import SchedulerMixin, StableDiffusionXLPipeline, UNet2DConditionModel
from network_oracles import their_clip_text
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tintype.families.diffusers_names import clip_text_names
from tintype.models.clip import CLIPText, CLIPTextConfig


def shipped_merges() -> list[tuple[str, str]]:
    packed = (resources.files("tintype.conditioning") / "clip_merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")
    return [(line.split(" ")[0], line.split(" ")[1]) for line in lines]


def byte_signs() -> list[str]:
    """GPT-2's `bytes_to_unicode`, in the order of its definition."""
    signs = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    extra = 0
    numbers = list(signs)
    for byte in range(256):
        if byte not in signs:
            numbers.append(256 + extra)
            extra += 1
    return [chr(number) for number in numbers]


@cache
def their_tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """With the vocabulary put together as CLIP's `simple_tokenizer.py` does."""
    entries = byte_signs()
    entries += [entry + "</w>" for entry in entries]
    entries += ["".join(pair) for pair in shipped_merges()]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    assert len(vocabulary) == 49_408
    return CLIPTokenizer(vocab=vocabulary, merges=shipped_merges(), pad_token=pad, model_max_length=77)


def their_tower(config: CLIPTextConfig, seed: int) -> CLIPTextModel | CLIPTextModelWithProjection:
    """Over CLIP's whole vocabulary."""
    torch.manual_seed(seed)
    network = their_clip_text(config).eval()
    with torch.no_grad():  # norms begin as the identity, which would hide whether one is applied
        for name, parameter in network.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def give(ours: CLIPText, theirs: CLIPTextModel | CLIPTextModelWithProjection) -> None:
    """Their weights to our tower."""
    prefix = "text_model." if ours.config.projection_dim else ""
    ours.load_state_dict(clip_text_names(ours.config, prefix=prefix).to_ours(theirs.state_dict()))
    ours.eval()


def their_xl_pipeline(
    towers: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    unet: UNet2DConditionModel,
    scheduler: SchedulerMixin | None = None,
) -> StableDiffusionXLPipeline:
    """Without an autoencoder; an empty negative prompt is zeros."""
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=towers[0],
        text_encoder_2=towers[1],
        tokenizer=their_tokenizer(),
        tokenizer_2=their_tokenizer("!"),
        unet=unet,
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
