"""Which downsampling factor is best? Trains and measures all of `recipes/compression_study`, and draws the plots.

    python benchmarks/compression_study.py train --out runs/study                  # an hour and a half on two CPU cores
    python benchmarks/compression_study.py train --out runs/study --factors 8 2    # or shared out to processes
    python benchmarks/compression_study.py measure --out runs/study                # stages; diffusion over training
    python benchmarks/compression_study.py speed --out runs/study                  # samples a second; a quiet machine
    python benchmarks/compression_study.py plot --out runs/study                   # docs/compression*

Each goes on where it was stopped. In place of FID and rFID stand Fréchet distances of features of the embedded judge, a
classifier of emoji (the first stages' perceptual loss uses another one), and beside them that of the embedded
autoencoder's latents, since such a judge does not see whether a whole is composed as it should be.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tintype.checkpoints import load
from tintype.checkpoints.native import load_network
from tintype.common.config import to_json
from tintype.common.files import load_tensors, whole_file
from tintype.common.rng import Noise
from tintype.data.scenes import SceneConfig, Scenes
from tintype.diffusion.denoiser import Conditioning, Denoiser
from tintype.diffusion.samplers.dpmpp import dpmpp_2m
from tintype.diffusion.scaling import SCALINGS
from tintype.diffusion.schedule import make_schedule
from tintype.diffusion.spacing import trailing
from tintype.evaluation.extractors import JudgeFeatures
from tintype.evaluation.frechet import FrechetStatistics, Gaussian, frechet_distance
from tintype.evaluation.pixels import from_bytes, psnr, to_bytes
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.models.unet import UNet
from tintype.recipes.base import run
from tintype.recipes.compression_study import (
    DESIGNS,
    FACTORS,
    CompressionStudy,
    Factor,
    compression_study,
    first_stage,
    read_space,
)
from tintype.recipes.scene_classifier import scene_classifier
from tintype.recipes.sheets import sheet, to_picture
from tintype.training.state import checkpoints

HELD_OUT = 20_000_000  # index of the first scene that is measured with; training never gets there
REFERENCE, RECONSTRUCTED, DRAWN = 8192, 1024, 500  # scenes and pictures
STEPS = 12  # of DPM-Solver++(2M)
BATCH = 50

Measured = dict[str, dict[str, float]]  # what was found, by what was measured


def features_file(out: Path) -> Path:
    return out / "features" / "classifier.safetensors"


def first_stage_file(out: Path, factor: Factor) -> Path | None:
    """None for factor 1: pixels are their own latents."""
    return None if factor == 1 else out / f"first-stage-{factor}" / "autoencoder.safetensors"


def recipe_of(out: Path, factor: Factor) -> CompressionStudy:
    file = first_stage_file(out, factor)
    return compression_study(factor, autoencoder=None if file is None else str(file))


def train(out: Path, factors: Iterable[Factor]) -> None:
    for factor in factors:
        file = first_stage_file(out, factor)
        if file is not None and not file.exists():
            if not features_file(out).exists():
                run(scene_classifier(), features_file(out).parent)
            run(first_stage(factor, features=str(features_file(out))), file.parent)
        run(recipe_of(out, factor), out / f"diffusion-{factor}")


# What is measured


def measure(out: Path, factors: Iterable[Factor]) -> None:
    """Into `measured-FACTOR.json`, one entry at a time, so that it can be stopped and shared out. What is drawn is kept
    beside the checkpoints."""
    eyes = Eyes(JudgeFeatures(), load("default", device="cpu").autoencoder)
    reference = eyes.gaussians(scenes(REFERENCE, first=HELD_OUT + RECONSTRUCTED))
    real = eyes.distances(scenes(DRAWN, first=HELD_OUT), reference)
    for factor in factors:
        path = measured_file(out, factor)
        found: Measured = json.loads(path.read_text()) if path.exists() else {"real pictures": real}
        stage = decoder(out, factor)
        entries = {} if stage is None else {f"first stage {factor}": None}
        entries |= {f"diffusion {factor} {int(one.name[5:])}": one for one in checkpoints(out / f"diffusion-{factor}")}
        for name, checkpoint in entries.items():
            if name in found:
                continue
            if checkpoint is None:
                assert stage is not None
                found[name] = reconstruction(eyes, stage, out / f"reconstructed-{factor}.png")
            else:
                kept = checkpoint.with_suffix(".npy")
                if not kept.exists():
                    drawn = torch.cat(list(draw(recipe_of(out, factor), stage, checkpoint, DRAWN)))
                    contact_sheet(drawn[:32]).save(checkpoint.with_suffix(".png"))
                    with whole_file(kept) as target, target.open("wb") as file:
                        np.save(file, drawn.numpy())
                found[name] = eyes.distances(torch.from_numpy(np.load(kept)).split(BATCH), reference)
            print(name, found[name], flush=True)
            with whole_file(path) as target:
                target.write_text(json.dumps(found, indent=1))


def measured_file(out: Path, factor: Factor) -> Path:
    return out / f"measured-{factor}.json"


def scenes(count: int, *, first: int) -> Iterator[Tensor]:
    """Pictures that no run trained with, B 3 H W uint8."""
    drawn = Scenes(SceneConfig())
    for start in range(first, first + count, BATCH):
        pictures = [drawn[index].picture for index in range(start, min(start + BATCH, first + count))]
        yield torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class Eyes:
    """What pictures are looked at with: the embedded judge ("judge": is the detail that of emoji?) and the embedded
    model's autoencoder ("latents": 8 x 8 x 16 numbers, is the whole composed as scenes are?)."""

    judge: JudgeFeatures
    autoencoder: Autoencoder

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> dict[str, Tensor]:
        encoded = self.autoencoder.encode(from_bytes(pictures)).mean
        return {"judge": self.judge(pictures).pooled, "latents": encoded.flatten(1)}

    def gaussians(self, pictures: Iterable[Tensor]) -> dict[str, Gaussian]:
        running: dict[str, FrechetStatistics] = {}
        for some in pictures:
            for name, features in self(some).items():
                running.setdefault(name, FrechetStatistics(features.shape[1])).update(features)
        return {name: one.gaussian(name) for name, one in running.items()}

    def distances(self, pictures: Iterable[Tensor], reference: Mapping[str, Gaussian]) -> dict[str, float]:
        found = self.gaussians(pictures)
        return {name: round(frechet_distance(found[name], reference[name]), 4) for name in reference}


def decoder(out: Path, factor: Factor) -> Autoencoder | None:
    file = first_stage_file(out, factor)
    return None if file is None else load_network(file, "autoencoder", AutoencoderConfig, Autoencoder)


@torch.inference_mode()
def reconstruction(eyes: Eyes, stage: Autoencoder, picture: Path) -> dict[str, float]:
    """PSNR: the mean over pictures; the judge's distance: between the same pictures before and after."""
    given = list(scenes(RECONSTRUCTED, first=HELD_OUT))
    back = [to_bytes(stage.decode(stage.encode(from_bytes(some)).mean)) for some in given]
    contact_sheet(torch.cat((given[0][:8], back[0][:8], given[0][8:16], back[0][8:16]))).save(picture)
    ratio = torch.cat([psnr(one, other, span=255) for one, other in zip(back, given, strict=True)]).mean()
    return {"judge": eyes.distances(back, eyes.gaussians(given))["judge"], "psnr": round(float(ratio), 3)}


@torch.inference_mode()
def draw(recipe: CompressionStudy, stage: Autoencoder | None, checkpoint: Path, count: int) -> Iterator[Tensor]:
    """Pictures of a checkpoint's averaged weights, B 3 H W uint8; the same seeds for every factor and step."""
    weights = load_tensors(checkpoint / "diffusion.ema.safetensors")
    network = UNet(recipe.unet).eval()
    network.load_state_dict({name.removeprefix("unet."): value for name, value in weights.items()})
    space = read_space(checkpoint.parent)
    denoiser = Denoiser(network, make_schedule(recipe.schedule), SCALINGS[recipe.prediction])
    sigmas = trailing(denoiser.schedule, STEPS)
    shape = (recipe.unet.in_channels, *(recipe.scenes.size // recipe.factor,) * 2)
    for first in tqdm(range(0, count, BATCH), desc=checkpoint.name, leave=False):
        noise = Noise(range(HELD_OUT + first, HELD_OUT + min(first + BATCH, count)))
        x = noise.normal(shape) * (1 + sigmas[0] ** 2).sqrt().float()
        denoise = denoiser.bind(Conditioning())
        *_, last = dpmpp_2m(denoise, x, sigmas, noise.normal)
        raw = space.unwrap(last.x)
        yield to_bytes(raw if stage is None else stage.decode(raw))


def contact_sheet(pictures: Tensor, *, columns: int = 8, scale: int = 2) -> Image.Image:
    return sheet([to_picture(one) for one in from_bytes(pictures)], columns=columns, scale=scale)


# Speed


def speed(out: Path, factors: Iterable[Factor]) -> None:
    """Into `speed.json`: samples a second in training, and drawn with the same sampler and decoded; medians."""
    found: dict[str, dict[str, float]] = {}
    for factor in factors:
        recipe, stage = recipe_of(out, factor), decoder(out, factor)
        checkpoint = checkpoints(out / f"diffusion-{factor}")[-1]
        begun = time.perf_counter()
        drawn = sum(len(some) for some in draw(recipe, stage, checkpoint, BATCH))
        found[str(factor)] = {
            "train_per_s": training_speed(recipe),
            "drawn_per_s": drawn / (time.perf_counter() - begun),
        }
        print(factor, found[str(factor)], flush=True)
    with whole_file(out / "speed.json") as target:
        target.write_text(json.dumps({"threads": torch.get_num_threads()} | found, indent=1))


def training_speed(recipe: CompressionStudy, *, steps: int = 12) -> float:
    """Of the network's step alone: forward, backward, AdamW."""
    network = UNet(recipe.unet)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    size = recipe.train.batch_size
    side = recipe.scenes.size // recipe.factor
    x, t = torch.randn(size, recipe.unet.in_channels, side, side), torch.rand(size) * 999
    times: list[float] = []
    for _ in range(steps):
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        network(x, t).square().mean().backward()
        optimizer.step()
        times.append(time.perf_counter() - begun)
    return size / statistics.median(times[2:])


# What is shown


def plot(out: Path, docs: Path) -> None:
    """The raw numbers, the plots and 16 pictures of each factor (a row each) into `docs`; the table to stdout."""
    measured: Measured = {}
    for factor in FACTORS:
        measured |= json.loads(measured_file(out, factor).read_text())
    speeds = json.loads((out / "speed.json").read_text())
    study = {
        "extractor": JudgeFeatures().name,
        "measured": measured,
        "speed": speeds,
        "designs": {str(f): to_json(DESIGNS[f]) for f in FACTORS},
    }
    with whole_file(docs / "compression.json") as target:
        target.write_text(json.dumps(study, indent=1) + "\n")
    with whole_file(docs / "compression.png") as target:
        plots(measured, speeds, target)
    last = [np.load(checkpoints(out / f"diffusion-{factor}")[-1].with_suffix(".npy"))[:16] for factor in FACTORS]
    with whole_file(docs / "compression-pictures.png") as target:
        contact_sheet(torch.from_numpy(np.concatenate(last)), columns=16, scale=1).save(target, format="PNG")
    print(table(measured, speeds))


def curve(measured: Measured, factor: Factor, figure: str) -> tuple[list[float], list[float]]:
    """Share of the training done, and the figure there."""
    steps = {
        int(name.split()[2]): entry[figure]
        for name, entry in measured.items()
        if name.startswith(f"diffusion {factor} ")
    }
    return [step / DESIGNS[factor].steps for step in sorted(steps)], [steps[step] for step in sorted(steps)]


def table(measured: Measured, speeds: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        "| f | first stage: judge | PSNR, dB | diffusion: judge at 1/5 | 3/5 | the end | latents at 1/5 | 3/5 "
        "| the end | trained, samples/s | drawn, pictures/s |",
        "|" + "---|" * 11,
    ]
    for factor in FACTORS:
        stage = measured.get(f"first stage {factor}")
        rebuilt = "0 | ∞" if stage is None else f"{stage['judge']:.2f} | {stage['psnr']:.1f}"
        detail, whole = (curve(measured, factor, figure)[1] for figure in ("judge", "latents"))
        shown = " | ".join([f"{detail[at]:.2f}" for at in (0, 2, 4)] + [f"{whole[at]:.1f}" for at in (0, 2, 4)])
        pace = speeds[str(factor)]
        rows.append(f"| {factor} | {rebuilt} | {shown} | {pace['train_per_s']:.0f} | {pace['drawn_per_s']:.1f} |")
    real = measured["real pictures"]
    rows.append(f"| other scenes | | | | | {real['judge']:.2f} | | | {real['latents']:.1f} | | |")
    return "\n".join(rows)


def plots(measured: Measured, speeds: Mapping[str, Mapping[str, float]], path: Path) -> None:
    import matplotlib.pyplot as plt  # only where plots are drawn
    from matplotlib.axes import Axes

    figure, ((first, second), (third, fourth)) = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    shades = plt.get_cmap("viridis")(np.linspace(0.0, 0.85, len(FACTORS)))

    def training(axes: Axes, name: str, title: str) -> None:
        for factor, shade in zip(FACTORS, shades, strict=True):
            share, found = curve(measured, factor, name)
            axes.plot([100 * one for one in share], found, color=shade, marker="o", markersize=3, label=f"f = {factor}")
        axes.axhline(measured["real pictures"][name], color="grey", linestyle=":", linewidth=1, label="other scenes")
        axes.set(xlabel="training compute, % of 60 TFLOP", ylabel="Fréchet distance", title=title, yscale="log")
        axes.legend(frameon=False, fontsize="small", ncols=2)

    training(first, "judge", "By the judge's features: detail")
    training(second, "latents", "By 8 x 8 latents: the whole")
    stages = [factor for factor in FACTORS if factor > 1]
    names = [str(f) for f in stages]
    third.plot(names, [measured[f"first stage {f}"]["judge"] for f in stages], color="tab:red", marker="o")
    third.set(xlabel="f", ylabel="Fréchet distance (judge)", title="First stages: lost detail", yscale="log")
    third.yaxis.label.set_color("tab:red")
    beside = third.twinx()
    beside.plot(names, [measured[f"first stage {f}"]["psnr"] for f in stages], color="tab:blue", marker="s")
    beside.set_ylabel("PSNR, dB", color="tab:blue")
    names = [str(f) for f in FACTORS]
    fourth.plot(names, [speeds[n]["train_per_s"] for n in names], marker="o", label="trained")
    fourth.plot(names, [speeds[n]["drawn_per_s"] for n in names], marker="s", label=f"drawn ({STEPS} steps), decoded")
    fourth.set(xlabel="f", ylabel="samples a second", title=f"Speed, {speeds['threads']} threads", yscale="log")
    fourth.legend(frameon=False)
    for axes in (first, second, third, fourth):
        axes.spines[["top"]].set_visible(False)
    figure.savefig(path, format="png", dpi=100)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["train", "measure", "speed", "plot"])
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of the study")
    parser.add_argument("--factors", type=int, nargs="+", choices=FACTORS, default=list(FACTORS))
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where `plot` writes")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.what == "plot":
        plot(arguments.out, arguments.docs)
    else:
        {"train": train, "measure": measure, "speed": speed}[arguments.what](arguments.out, arguments.factors)
    return 0


if __name__ == "__main__":
    sys.exit(main())
