"""Stable Diffusion 1.5 at its real size with random weights, by us and by diffusers: `versus_diffusers.py --size sd15`.

The weights lie in a folder in diffusers' layout (4 GiB, made on the first run), which both sides open. The networks are
compared and timed in one process, in turn; what a fresh process takes to its first step, and its peak memory, in
processes of their own.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from racing import Clock, Race, race

if TYPE_CHECKING:
    from torch import Tensor

    from tintype.families.base import LatentDiffusion

Call = Callable[[], "Tensor"]

PROMPT, NEGATIVE = "a photograph of an astronaut riding a horse", "blurry"
LATENT_SIDES = (32, 64)
TOLERANCE = 1e-4


class Row(NamedTuple):
    """difference: the largest, relative to the largest number of theirs."""

    name: str
    difference: float
    race: Race


def make_folder(folder: Path) -> None:
    """Random weights of the scale that trained ones have, so that numbers stay within bounds."""
    import torch

    from tintype.checkpoints.diffusers_write import save_diffusers_folder
    from tintype.families.base import assemble, make_conditioner
    from tintype.families.stable_diffusion import SD1
    from tintype.models.autoencoder import Autoencoder
    from tintype.models.unet import UNet

    torch.manual_seed(0)
    assert SD1.conditioner is not None
    networks = {"unet": UNet(SD1.unet), "autoencoder": Autoencoder(SD1.autoencoder)}
    conditioner = make_conditioner(SD1.conditioner)
    with torch.no_grad():
        for network in (*networks.values(), conditioner):
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
    model = assemble(SD1, **networks, conditioner=conditioner, source="random", fingerprint=lambda: "0" * 10)
    save_diffusers_folder(folder, model, dtype=torch.float32)


# What a fresh process does


def first_step(side: str, folder: Path) -> dict[str, float]:
    """Seconds from here, before any import, to the first step of a picture of 256 x 256."""
    begin = time.perf_counter()
    if side == "ours":
        import tintype

        model = tintype.load(folder, device="cpu")
        loaded = time.perf_counter()
        request = tintype.Request(prompt=PROMPT, negative_prompt=NEGATIVE, seed=7, steps=2, width=256, height=256)
        next(iter(tintype.steps(model, request)))
    else:
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline.from_pretrained(folder)
        loaded = time.perf_counter()
        asked = {"negative_prompt": NEGATIVE, "num_inference_steps": 2, "height": 256, "width": 256}
        with contextlib.suppress(Enough):
            pipeline(PROMPT, **asked, callback_on_step_end=_stop)
    return {"load": loaded - begin, "first step": time.perf_counter() - begin, "peak MiB": _peak()}


class Enough(Exception):
    """Raised to stop their pipeline after its first step."""


def _stop(*_: object) -> dict[str, object]:
    raise Enough


def whole_picture(side: str, folder: Path) -> dict[str, float]:
    """Peak memory of one picture of 512 x 512 in two steps."""
    if side == "ours":
        import tintype

        request = tintype.Request(prompt=PROMPT, negative_prompt=NEGATIVE, seed=7, steps=2)
        tintype.generate(tintype.load(folder, device="cpu"), request)
    else:
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline.from_pretrained(folder)
        pipeline(PROMPT, negative_prompt=NEGATIVE, num_inference_steps=2)
    return {"peak MiB": _peak()}


def _peak() -> float:
    """MiB that were in memory at most, mapped files included (Linux); `ru_maxrss` would begin with the parent's."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


TASKS: dict[str, Callable[[str, Path], dict[str, float]]] = {"first step": first_step, "picture": whole_picture}


def in_a_process(task: str, side: str, folder: Path, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, task, side, str(folder), str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


# In one process, in turn


def kept(call: Call) -> "Tensor":
    """As `tintype.generate` calls networks."""
    from tintype.common.memory import kept_memory

    with kept_memory():
        return call()


def unets(model: "LatentDiffusion", folder: Path) -> Iterator[tuple[str, Call, Call]]:
    """Forwards of a guided pair, theirs and ours from the same weights."""
    import torch
    from diffusers import UNet2DConditionModel

    from tintype.models.unet import UNet

    unet = model.denoiser.network
    assert isinstance(unet, UNet)
    theirs = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    context, t = torch.randn(2, 77, 768), torch.tensor(500)
    bound = unet.bind(context, None)
    for side in LATENT_SIDES:
        x = torch.randn(2, 4, side, side)
        yield (
            f"U-Net forward, {side} x {side}, batch 2, s",
            lambda x=x: theirs(x, t, encoder_hidden_states=context, return_dict=False)[0],
            lambda x=x: kept(lambda: bound(x, t.float().expand(2))),
        )


def decoders(model: "LatentDiffusion", folder: Path) -> Iterator[tuple[str, Call, Call]]:
    """One latent of 64 x 64 to a picture of 512 x 512."""
    import torch
    from diffusers import AutoencoderKL

    theirs = AutoencoderKL.from_pretrained(folder / "vae").eval()
    z = torch.randn(1, 4, 64, 64)
    yield "decoder, 512 x 512, s", lambda: theirs.decode(z).sample, lambda: kept(lambda: model.autoencoder.decode(z))


def _difference(theirs: Call, ours: Call) -> float:
    expected, got = theirs(), ours()
    return float((got - expected).abs().max() / expected.abs().max())


def main(folder: str | None, *, rounds: int, threads: int, clock: Clock) -> int:
    """All of it as a table; exit code 1 when outputs differ by more than a ten-thousandth."""
    import torch

    import tintype

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(folder or temporary) / "sd15"
        if not path.exists():
            make_folder(path)
        rows: list[Row] = []
        with torch.inference_mode():
            model = tintype.load(path, device="cpu")
            for parts in (unets, decoders):
                for name, *pair in parts(model, path):
                    rows.append(Row(name, _difference(*pair), race(*pair, rounds=rounds, clock=clock)))
        print(f"{'':34}{'difference':>11}{'diffusers':>11}{'tintype':>11}{'ratio':>8}")
        for name, difference, result in rows:
            print(f"{name:34}{difference:>11.1e}{result.theirs:>11.2f}{result.ours:>11.2f}{result.ratio:>8.2f}")
        for task in TASKS:
            for _ in range(2 if task == "first step" else 1):  # the second finds the files in memory
                theirs, ours = (in_a_process(task, side, path, threads) for side in ("theirs", "ours"))
            for name in theirs:
                row = f"{theirs[name]:>22.2f}{ours[name]:>11.2f}{theirs[name] / ours[name]:>8.2f}"
                print(f"{task + ': ' + name:34}{row}")
    return int(any(row.difference > TOLERANCE for row in rows))


if __name__ == "__main__":
    task, side, folder, threads = sys.argv[1:]
    os.environ["OMP_NUM_THREADS"] = threads  # before torch is imported
    print(json.dumps(TASKS[task](side, Path(folder))))
