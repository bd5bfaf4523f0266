"""What the tests at real size run in processes of their own, so that each one's memory can be told:

python real_size.py write FILE              Stable Diffusion 1.5 of random weights, in LDM's layout (4.3 GB)
python real_size.py load FILE               {"seconds", "peak"} of opening it
python real_size.py ours FILE OUT STEPS     latents and picture, and {"peak"}
python real_size.py theirs FILE OUT STEPS   diffusers' of the same file
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

SIDE, SEED, SCALE, PROMPT = 512, 3, 3.0, "A picture of a puppy"


def write(path: Path) -> None:
    from safetensors.torch import save_file

    from tintype.checkpoints.fill import state
    from tintype.checkpoints.single_file import made
    from tintype.families.single_file import names
    from tintype.families.stable_diffusion import FAMILIES

    family = FAMILIES[0]
    networks = {name: one for name, one in made(family.config)._asdict().items() if one is not None}
    generator = torch.Generator().manual_seed(0)
    ours = {name: _random(name, tuple(one.shape), generator) for name, one in state(networks).items()}
    theirs = names(family.config, family).to_theirs(ours)
    save_file({name: one.contiguous() for name, one in theirs.items()}, path)


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Activations keep the size of their inputs."""
    tensor = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return tensor.mul_(tensor[0].numel() ** -0.5)
    return tensor.mul_(0.2).add_(1 if "norm" in name and name.endswith("weight") else 0)


def load(path: Path) -> None:
    import tintype

    begun = time.perf_counter()
    tintype.load(path, device="cpu")
    print(json.dumps({"seconds": time.perf_counter() - begun, "peak": _peak()}))


def ours(path: Path, out: Path, steps: int) -> None:
    import numpy as np

    import tintype
    from tintype.generation import decode, latents
    from tintype.tasks.task import resolve

    model = tintype.load(path, device="cpu")
    request = tintype.Request(
        prompt=PROMPT, seed=SEED, steps=steps, cfg_scale=SCALE, sampler="DDIMScheduler", width=SIDE, height=SIDE
    )
    request = resolve(model, request)
    *_, last = tintype.steps(model, request)
    found = latents(model, request, last)
    torch.save({"latents": found, "picture": torch.from_numpy(np.array(decode(model, found)[0]))}, out)
    print(json.dumps({"peak": _peak()}))


@torch.inference_mode()
def theirs(path: Path, out: Path, steps: int) -> None:
    import numpy as np
    from clip_oracles import their_tokenizer
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from family_oracles import BETAS, SD, SETTINGS, STABLE
    from network_oracles import their_autoencoder, their_clip_text, their_unet

    from tintype.common.rng import Noise

    config = SD["sd1"].config
    with torch.device("meta"):
        parts = {
            "vae": their_autoencoder(config.autoencoder),
            "unet": their_unet(config.unet, linear=False),
            "text_encoder": their_clip_text(config.conditioner.clip),
        }
    folder = out.with_suffix("")
    absent = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    scheduler, tokenizer = DDIMScheduler(**SETTINGS, **BETAS, **STABLE), their_tokenizer()
    empty = StableDiffusionPipeline(**parts, scheduler=scheduler, tokenizer=tokenizer, **absent)
    empty.save_config(folder)
    parts["vae"].save_config(folder / "vae")
    parts["unet"].save_config(folder / "unet")
    parts["text_encoder"].config.save_pretrained(folder / "text_encoder")
    scheduler.save_pretrained(folder / "scheduler")
    tokenizer.save_pretrained(folder / "tokenizer")
    made = StableDiffusionPipeline.from_single_file(path, config=str(folder), local_files_only=True, **absent)
    settings = {"num_inference_steps": steps, "guidance_scale": SCALE, "height": SIDE, "width": SIDE}
    start = Noise([SEED]).normal((4, SIDE // 8, SIDE // 8))
    found = made(PROMPT, latents=start, output_type="latent", **settings).images
    image = made.vae.decode(found / made.vae.config.scaling_factor).sample
    picture = made.image_processor.postprocess(image)[0]
    torch.save({"latents": found, "picture": torch.from_numpy(np.array(picture))}, out)
    print(json.dumps({"peak": _peak()}))


def _peak() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    what, file, *more = sys.argv[1:]
    if what == "write":
        write(Path(file))
    elif what == "load":
        load(Path(file))
    else:
        {"ours": ours, "theirs": theirs}[what](Path(file), Path(more[0]), int(more[1]))
