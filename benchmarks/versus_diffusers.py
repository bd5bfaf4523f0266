"""One prompt to one picture, by us and by diffusers, in one process on the same random weights.

    OMP_NUM_THREADS=1 python benchmarks/versus_diffusers.py --size tiny
    python benchmarks/versus_diffusers.py --size sd15 --threads 2      # the real size, part by part: full_size.py

First both must agree: the same latents to 1e-4 (relative), the same picture to one grey level; else exit code 1 and no
times. Then whole calls are timed in turn, prompt to PIL picture; a ratio is the median of the rounds' ratios.
"""

import argparse
import dataclasses
import gzip
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import diffusers
import full_size
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from racing import Clock, Race, race
from torch import Tensor
from transformers import CLIPTextConfig as TheirTextConfig
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

import tintype
from tintype.common.rng import Noise
from tintype.conditioning.text import TextConditioner, TextConfig
from tintype.conditioning.tokenizer import END, START
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.schedule import DDPMConfig
from tintype.families.base import FamilyConfig, LatentDiffusion, assemble
from tintype.families.diffusers_names import autoencoder_names, clip_text_names, unet_names
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.clip import CLIPTextConfig
from tintype.models.unet import UNet, UNetConfig

LATENT_TOLERANCE, GREY_LEVELS = 1e-4, 1
PROMPT = "a photograph of an astronaut riding a horse"


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Networks of Stable Diffusion 1.x's topology; `side`: pixels of the picture.

    tiny: a tenth of its width, with heads and norm groups of useful sizes; thin: the same with its 8 heads (here of 4
    to 16 channels) and 32 groups (of 1 to 4).
    """

    unet: UNetConfig
    autoencoder: AutoencoderConfig
    clip: CLIPTextConfig
    side: int


TINY = Size(
    unet=UNetConfig(width=32, context_dim=64, num_heads=None, head_dim=16, norm_groups=8),
    autoencoder=AutoencoderConfig(width=16, norm_groups=8),
    clip=CLIPTextConfig(width=64, num_layers=2, num_heads=2),
    side=128,
)
SIZES = {"tiny": TINY, "thin": dataclasses.replace(TINY, unet=UNetConfig(width=32, context_dim=64))}


def diffusers_pipeline(size: Size) -> StableDiffusionPipeline:
    """With DDIM as we do it: trailing steps, the last of them down to the clean latent."""
    unet, autoencoder, clip = size.unet, size.autoencoder, size.clip
    levels = len(unet.mult)
    attends = [depth > 0 for depth in unet.depth]
    pipeline = StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            sample_size=size.side // autoencoder.factor,
            block_out_channels=tuple(unet.width * mult for mult in unet.mult),
            down_block_types=tuple("CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attends),
            up_block_types=tuple("CrossAttnUpBlock2D" if one else "UpBlock2D" for one in attends[::-1]),
            cross_attention_dim=unet.context_dim,
            attention_head_dim=tuple(unet.heads(unet.width * mult)[0] for mult in unet.mult),  # means a number of heads
            norm_num_groups=unet.norm_groups,
        ),
        vae=AutoencoderKL(
            latent_channels=autoencoder.latent_channels,
            block_out_channels=tuple(autoencoder.width * mult for mult in autoencoder.mult),
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=autoencoder.num_blocks,
            norm_num_groups=autoencoder.norm_groups,
        ),
        text_encoder=CLIPTextModel(
            TheirTextConfig(
                vocab_size=clip.vocabulary_size,
                hidden_size=clip.width,
                intermediate_size=4 * clip.width,
                num_hidden_layers=clip.num_layers,
                num_attention_heads=clip.num_heads,
                hidden_act=clip.activation,
                bos_token_id=START,
                eos_token_id=END,
                pad_token_id=END,
            )
        ),
        tokenizer=clip_tokenizer(clip.context_length),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=True,
            timestep_spacing="trailing",
            steps_offset=1,  # without effect here, but the pipeline warns of any other
        ),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def clip_tokenizer(length: int) -> CLIPTokenizer:
    """Theirs, from CLIP's merges: bytes, bytes that end a word, merged pairs and two marks, numbered in this order."""
    packed = (resources.files("tintype.conditioning") / "clip_merges.txt.gz").read_bytes()
    merges = [tuple(line.split(" ")) for line in gzip.decompress(packed).decode().split("\n")]
    signs = list(bytes_to_unicode().values())
    entries = [*signs, *(sign + "</w>" for sign in signs), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def same_model(pipeline: StableDiffusionPipeline, size: Size) -> LatentDiffusion:
    """Ours, with the pipeline's weights."""
    config = FamilyConfig(
        name="benchmark",
        unet=size.unet,
        autoencoder=size.autoencoder,
        conditioner=TextConfig(clip=size.clip),
        schedule=DDPMConfig(),
        prediction="eps",
        space=LatentSpace(),
        size=size.side,
        scheduler="trailing",
    )
    unet, autoencoder, text = UNet(size.unet), Autoencoder(size.autoencoder), TextConditioner(config.conditioner)
    unet.load_state_dict(unet_names(size.unet, projection="conv").to_ours(pipeline.unet.state_dict()))
    autoencoder.load_state_dict(autoencoder_names(size.autoencoder).to_ours(pipeline.vae.state_dict()))
    names = clip_text_names(size.clip, prefix="")
    text.encoder.load_state_dict(names.to_ours(pipeline.text_encoder.state_dict()))
    for network in (unet, autoencoder, text):
        network.eval().requires_grad_(False)
    return assemble(
        config, unet=unet, autoencoder=autoencoder, conditioner=text, source="benchmark", fingerprint=lambda: "0" * 10
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides, ready to answer the same request from the same noise."""

    pipeline: StableDiffusionPipeline
    model: LatentDiffusion
    request: tintype.Request

    def theirs(self, *, steps: int | None = None, output: str = "pil") -> Image.Image | Tensor:
        unet, factor = self.model.config.unet, self.model.config.autoencoder.factor
        side = self.model.config.size
        made = self.pipeline(
            self.request.prompt,
            negative_prompt=self.request.negative_prompt,
            num_inference_steps=steps or self.request.steps,
            guidance_scale=self.request.cfg_scale,
            height=side,
            width=side,
            latents=Noise(self.request.seeds).normal((unet.in_channels, side // factor, side // factor)),
            output_type=output,
        )
        return made.images[0]

    def ours(self) -> Image.Image:
        return tintype.generate(self.model, self.request)[0]

    def our_latents(self, *, steps: int | None = None) -> Tensor:
        request = dataclasses.replace(self.request, steps=steps or self.request.steps)
        return [step.x for step in tintype.steps(self.model, request)][-1][0]


@dataclass(frozen=True, slots=True)
class Agreement:
    latents: float  # largest difference, relative to the largest latent
    grey_levels: int

    @property
    def holds(self) -> bool:
        return self.latents <= LATENT_TOLERANCE and self.grey_levels <= GREY_LEVELS


def agreement(pair: Pair) -> Agreement:
    theirs, ours = pair.theirs(output="latent"), pair.our_latents()
    assert isinstance(theirs, Tensor)
    pictures = [np.asarray(picture, dtype=np.int16) for picture in (pair.theirs(), pair.ours())]
    return Agreement(
        latents=float((ours - theirs).abs().max() / theirs.abs().max()),
        grey_levels=int(np.abs(pictures[0] - pictures[1]).max()),
    )


def forwards(pair: Pair) -> tuple[Callable[[], object], Callable[[], object]]:
    """One forward of the guided pair of halves, theirs and ours, as their loops call them."""
    unet = pair.model.config.unet
    side = pair.model.config.size // pair.model.config.autoencoder.factor
    x, t = torch.randn(2, unet.in_channels, side, side), torch.tensor(500)
    context = torch.randn(2, pair.model.config.conditioner.clip.context_length, unet.context_dim or 0)
    network = pair.model.denoiser.network
    assert isinstance(network, UNet)
    with torch.inference_mode():
        bound = network.bind(context, None)

    @torch.inference_mode()
    def ours() -> Tensor:
        return bound(x, t.float().expand(2))

    @torch.no_grad()
    def theirs() -> Tensor:
        return pair.pipeline.unet(x, t, encoder_hidden_states=context, return_dict=False)[0]

    return theirs, ours


def events(call: Callable[[], object]) -> int:
    """`aten::` events of one call, nested ones included."""
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return sum(event.name.startswith("aten::") for event in profile.events())


class Still:
    """A network that answers at once: what a step costs without one is what its loop costs."""

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer

    def __call__(self, *_: object, **__: object) -> Tensor:
        return self.answer

    def bind(self, context: Tensor | None, vector: Tensor | None) -> "Still":
        return self


def outside(pair: Pair, *, rounds: int, clock: Clock, steps: int = 100) -> Race:
    """A step's seconds outside the network: many steps less one, so that what precedes the loop cancels."""
    unet, side = pair.model.config.unet, pair.model.config.size // pair.model.config.autoencoder.factor
    still = Still(torch.zeros(2, unet.out_channels, side, side))
    model = dataclasses.replace(pair.model, denoiser=dataclasses.replace(pair.model.denoiser, network=still))
    idle = dataclasses.replace(pair, model=model)
    forward = pair.pipeline.unet.forward
    pair.pipeline.unet.forward = lambda *_, **__: (still.answer,)
    try:
        many, one = (
            race(
                lambda count=count: idle.theirs(steps=count, output="latent"),
                lambda count=count: idle.our_latents(steps=count),
                rounds=rounds,
                clock=clock,
            )
            for count in (steps, 1)
        )
    finally:
        pair.pipeline.unet.forward = forward
    theirs, ours = (many.theirs - one.theirs) / (steps - 1), (many.ours - one.ours) / (steps - 1)
    return Race(theirs, ours, theirs / ours)


def table(found: Agreement, rows: dict[str, tuple[Race, float, str]]) -> str:
    lines = [
        f"latents differ by {found.latents:.1e} (relative), pictures by {found.grey_levels} grey levels",
        f"{'':34}{'diffusers':>11}{'tintype':>11}{'ratio':>8}",
    ]
    for name, (row, scale, form) in rows.items():
        lines.append(f"{name:34}{row.theirs * scale:>11{form}}{row.ours * scale:>11{form}}{row.ratio:>8.2f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*SIZES, "sd15"], default="tiny")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, help="default: 7, of sd15 3")
    parser.add_argument("--folder", help="sd15: where its random weights lie, or are to be written (default: for once)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds: steadier on a busy machine")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON instead of a table")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.size == "sd15":
        return full_size.main(options.folder, rounds=options.rounds or 3, threads=options.threads, clock=clock)
    options.rounds = options.rounds or 7
    torch.manual_seed(0)
    pipeline = diffusers_pipeline(SIZES[options.size])
    request = tintype.Request(prompt=PROMPT, negative_prompt="blurry", seed=7, steps=options.steps, cfg_scale=7.5)
    pair = Pair(pipeline, same_model(pipeline, SIZES[options.size]), request)

    found = agreement(pair)
    if not found.holds:
        print(f"outputs disagree: {found}; no times are taken", file=sys.stderr)
        return 1
    theirs, ours = forwards(pair)
    counts = events(theirs), events(ours)
    rows = {
        "prompt to picture, s": (race(pair.theirs, pair.ours, rounds=options.rounds, clock=clock), 1, ".3f"),
        "U-Net forward (batch 2), ms": (race(theirs, ours, rounds=10 * options.rounds, clock=clock), 1000, ".2f"),
        "a step outside the U-Net, ms": (outside(pair, rounds=options.rounds, clock=clock), 1000, ".2f"),
        "aten events in a U-Net forward": (Race(*counts, counts[0] / counts[1]), 1, ".0f"),
    }
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        settings |= {"torch": torch.__version__, "diffusers": diffusers.__version__}
        numbers = {name: dataclasses.asdict(row) for name, (row, _, _) in rows.items()}
        print(json.dumps({**settings, "agreement": dataclasses.asdict(found), **numbers}, indent=1))
    else:
        print(table(found, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
