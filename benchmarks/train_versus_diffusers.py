"""One training step of text to image, by us and as diffusers' `train_text_to_image.py` takes it, on equal weights.

    OMP_NUM_THREADS=1 python benchmarks/train_versus_diffusers.py --size tiny
    python benchmarks/train_versus_diffusers.py --size sd15 --device cuda --batch 32 --compile

Theirs is the body of that script's loop: pictures through the VAE, captions through CLIP, noise, U-Net, squared error,
backward, clipping, AdamW, average of weights; in bfloat16 on a GPU, as `accelerate` does it. Ours is `train` itself,
stopped after each step: with the pictures encoded on the fly, and with stored latents. Both read the same data from
memory. First both must have equal losses over several steps (relative 1e-4, in float32, the same noise and times); else
exit code 1 and no times. Then steps are timed in turn, each side in a process of its own; a ratio is the median of the
rounds' ratios.
"""

import argparse
import dataclasses
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import diffusers
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import EMAModel
from racing import Race, race
from torch import Tensor
from versus_diffusers import SIZES, Size, diffusers_pipeline, same_model

from tintype.common.rng import generator
from tintype.diffusion.scaling import eps
from tintype.diffusion.schedule import DDPM, DDPMConfig
from tintype.families.base import LatentDiffusion
from tintype.models.autoencoder import AutoencoderConfig, Posterior
from tintype.models.clip import CLIPTextConfig
from tintype.models.unet import UNet, UNetConfig
from tintype.objectives.conditions import Frozen, TextCondition
from tintype.objectives.denoising import DenoisingObjective
from tintype.training.loop import Report, TrainConfig, train

PROVEN_STEPS, TOLERANCE = 4, 1e-4
CAPTIONS = ("a photograph of an astronaut riding a horse", "a red apple", "two cats asleep on a sofa", "a bridge")
SD15 = Size(unet=UNetConfig(), autoencoder=AutoencoderConfig(), clip=CLIPTextConfig(), side=512)
Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Draws:
    """What is random in a step: noise of the posterior, steps, noise."""

    posterior: Tensor
    steps: Tensor
    noise: Tensor


class Theirs:
    """The state of their script, and the body of its loop."""

    def __init__(self, pipeline: StableDiffusionPipeline, *, device: str, low: bool) -> None:
        self.device, self.low = device, low
        dtype = torch.bfloat16 if low else torch.float32
        self.vae = pipeline.vae.to(device, dtype).requires_grad_(False)
        self.text_encoder = pipeline.text_encoder.to(device, dtype).requires_grad_(False)
        self.unet = pipeline.unet.to(device).train().requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), lr=1e-4, weight_decay=1e-2)
        self.average = EMAModel(self.unet.parameters())
        self.average.to(device)
        self.scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)

    def step(self, batch: Batch, draws: Draws | None = None) -> float:
        posterior = self.vae.encode(batch["image"].to(self.device, self.vae.dtype)).latent_dist
        latents = (posterior.sample() if draws is None else posterior.mean + posterior.std * draws.posterior) * 0.18215
        noise = torch.randn_like(latents) if draws is None else draws.noise
        count = len(latents)
        steps = torch.randint(0, 1000, (count,), device=self.device) if draws is None else draws.steps
        noisy = self.scheduler.add_noise(latents, noise, steps)
        context = self.text_encoder(batch["ids"].to(self.device))[0]
        with torch.autocast("cuda", torch.bfloat16) if self.low else nullcontext():
            answer = self.unet(noisy, steps, context).sample
        loss = F.mse_loss(answer.float(), noise.float(), reduction="mean")
        told = loss.repeat(count).mean().item()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.unet.parameters())
        return told


class Kept:
    """A training source: the same batch each time."""

    def __init__(self, tensors: Batch) -> None:
        self.tensors = tensors

    def batch(self, first: int, count: int) -> Batch:
        return self.tensors


class Stopped(Exception):
    """Ends a run that is no longer needed."""


class Ours:
    """`train` in a thread of its own, which goes on for one step when asked to."""

    def __init__(self, objective: DenoisingObjective, batch: Batch, config: TrainConfig) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._loss, self._end = torch.zeros(()), False
        self._error: BaseException | None = None
        threads = torch.get_num_threads()

        def run() -> None:
            torch.set_num_threads(threads)
            self._go.acquire()
            try:
                with tempfile.TemporaryDirectory() as out:
                    train(objective, Kept(batch), config, Path(out), hooks=[self._hook])
            except Stopped:
                return
            except BaseException as error:
                self._error = error
                self._done.release()

        threading.Thread(target=run, daemon=True).start()

    def _hook(self, report: Report) -> None:
        self._loss = report.metrics["loss"]
        self._done.release()
        self._go.acquire()
        if self._end:
            raise Stopped

    def step(self) -> Tensor:
        self._go.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._loss

    def end(self) -> None:
        self._end = True
        self._go.release()


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What both train on, and how."""

    size: Size
    batch: int
    device: str
    compile: bool
    threads: int
    cpu_time: bool

    def clock(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.process_time() if self.cpu_time else time.perf_counter()

    def data(self) -> tuple[Batch, StableDiffusionPipeline, LatentDiffusion]:
        """Pictures and captions; both sides' networks, of equal random weights."""
        torch.manual_seed(0)
        pipeline = diffusers_pipeline(self.size)
        model = same_model(pipeline, self.size)
        captions = [CAPTIONS[number % len(CAPTIONS)] for number in range(self.batch)]
        tokens = model.reads.tokens(captions)
        image = torch.rand(self.batch, 3, self.size.side, self.size.side) * 2 - 1
        return {"image": image, "ids": tokens.ids, "end": tokens.end}, pipeline, model

    def stored(self, batch: Batch, model: LatentDiffusion) -> Batch:
        """The same with latents instead of pictures."""
        with torch.inference_mode():
            encoded = [model.autoencoder.encode(one.to(model.device)) for one in batch["image"].split(4)]
        assert all(isinstance(one, Posterior) for one in encoded)
        mean, std = (torch.cat([getattr(one, name).cpu() for one in encoded]) for name in ("mean", "std"))
        return {"mean": mean, "std": std, "ids": batch["ids"], "end": batch["end"]}

    def ours(self, batch: Batch, model: LatentDiffusion, *, precision: str) -> Ours:
        unet = model.denoiser.network
        assert isinstance(unet, UNet)
        text = Frozen(TextCondition(model.reads, dropout=0.0), device=self.device)
        objective = DenoisingObjective(
            unet.requires_grad_(True),
            [text],
            schedule=DDPM(DDPMConfig()),
            scaling=eps,
            space=model.space,
            first_stage=model.autoencoder.to(self.device) if "image" in batch else None,
        )
        config = TrainConfig(
            steps=10**9,
            batch_size=self.batch,
            learning_rate=1e-4,
            warmup=0,
            hold=1.0,
            betas=(0.9, 0.999),
            precision=precision,
            device=self.device,
            compile=self.compile and precision == "bf16",
            save_every=10**9,
            ema_decay=0.9999,
        )
        return Ours(objective, batch, config)


def our_draws(step: int, shape: torch.Size, device: str) -> Draws:
    """What `DenoisingObjective` draws in a step of `train`."""
    noise, schedule = generator(0, "diffusion", step, 0), DDPM(DDPMConfig())
    posterior = torch.randn(shape, generator=noise)
    steps = torch.searchsorted(schedule.sigmas, schedule.draw(shape[0], noise))
    return Draws(posterior.to(device), steps.to(device), torch.randn(shape, generator=noise).to(device))


def difference(task: Task) -> float:
    """The largest, relative, of both sides' losses over some steps from equal weights, each updating its own."""
    batch, pipeline, model = task.data()
    latent = task.stored(batch, model)
    ours = task.ours(batch, model, precision="fp32")
    theirs = Theirs(pipeline, device=task.device, low=False)
    found = []
    for step in range(PROVEN_STEPS):
        expected = theirs.step(batch, our_draws(step, latent["mean"].shape, task.device))
        found.append(abs(float(ours.step()) / expected - 1))
    ours.end()
    return max(found)


class Apart:
    """One side in a process of its own, where nothing but its own settings (how freed memory is kept, say) holds. It
    steps when asked to, and tells what that took."""

    def __init__(self, task: Task, kind: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._asked, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(task, kind, theirs), daemon=True)
        self._process.start()
        self.seconds = 0.0

    def step(self) -> None:
        self._asked.send(True)
        self.seconds += self._asked.recv()

    def end(self) -> None:
        self._asked.send(False)
        self._process.join()


def serve(task: Task, kind: str, asked: Connection) -> None:
    torch.set_num_threads(task.threads)
    batch, pipeline, model = task.data()
    low = task.device != "cpu"
    if kind == "theirs":
        theirs = Theirs(pipeline, device=task.device, low=low)
        step: Callable[[], object] = lambda: theirs.step(batch)  # noqa: E731
    else:
        data = task.stored(batch, model) if kind == "stored" else batch
        step = task.ours(data, model, precision="bf16" if low else "fp32").step
    for _ in range(2 + 2 * task.compile):
        step()
    while asked.recv():
        begin = task.clock()
        step()
        asked.send(task.clock() - begin)


def timed(task: Task, *, rounds: int) -> dict[str, Race]:
    found: dict[str, Race] = {}
    for name, kind in (("pictures encoded on the fly", "on the fly"), ("stored latents", "stored")):
        theirs, ours = Apart(task, "theirs"), Apart(task, kind)
        found[name] = race(theirs.step, ours.step, rounds=rounds, clock=lambda: theirs.seconds + ours.seconds)  # noqa: B023
        theirs.end()
        ours.end()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*SIZES, "sd15"], default="tiny")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="ours: train.compile (theirs has none)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds: steadier on a busy machine")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = Task(
        size=SD15 if options.size == "sd15" else SIZES[options.size],
        batch=options.batch,
        device=options.device,
        compile=options.compile,
        threads=options.threads,
        cpu_time=options.cpu_time,
    )
    apart = difference(dataclasses.replace(task, compile=False))
    if not apart <= TOLERANCE:
        print(f"losses differ by {apart:.1e} (relative) over {PROVEN_STEPS} steps; no times are taken", file=sys.stderr)
        return 1
    races = timed(task, rounds=options.rounds)
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        settings |= {"torch": torch.__version__, "diffusers": diffusers.__version__, "loss_difference": apart}
        print(json.dumps(settings | {name: dataclasses.asdict(one) for name, one in races.items()}, indent=1))
        return 0
    print(f"losses differ by {apart:.1e} (relative) over {PROVEN_STEPS} steps of {task.batch} samples")
    print(f"{'a step, ms':30}{'diffusers':>11}{'tintype':>11}{'ratio':>8}")
    for name, one in races.items():
        print(f"{name:30}{one.theirs * 1000:>11.1f}{one.ours * 1000:>11.1f}{one.ratio:>8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
