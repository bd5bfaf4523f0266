"""Scenes as latents made once: what a latent diffusion run reads instead of pictures."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from tintype.common.files import load_metadata, load_tensors, save_tensors
from tintype.data.scenes import Scenes
from tintype.data.sources import to_tensor
from tintype.models.autoencoder import Autoencoder

CHUNK = 64
LOOKED_AT = 16


def make_latents(path: Path, scenes: Scenes, autoencoder: Autoencoder, count: int, *, key: object) -> None:
    """Encode scenes 0 to count - 1: "mean" and "std" of the raw latents, count C h w float16. `key` is stored.

    The file appears when all are encoded: what was interrupted begins again.
    """
    device = next(autoencoder.parameters()).device
    means: list[Tensor] = []
    stds: list[Tensor] = []
    with torch.inference_mode():
        for first in tqdm(range(0, count, CHUNK), desc="latents", unit="batch", dynamic_ncols=True):
            indices = range(first, min(first + CHUNK, count))
            image = to_tensor([scenes[index].picture for index in indices]).to(device)
            encoded = autoencoder.encode(image)
            means.append(encoded.mean.half().cpu())
            stds.append(encoded.std.half().cpu())
    save_tensors(path, {"mean": torch.cat(means), "std": torch.cat(stds)}, key)


class Latents:
    """{"mean", "std", "ids", "end"}: wrapped latents and captions, endlessly, in another order each time round."""

    def __init__(self, tensors: dict[str, Tensor], *, seed: int) -> None:
        self.tensors = tensors
        self.seed = seed
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        size = len(self.tensors["mean"])
        places = [self._place(position // size, position % size) for position in range(first, first + count)]
        return {name: values[places] for name, values in self.tensors.items()}

    def _place(self, epoch: int, position: int) -> int:
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed + epoch)
            self._order = (epoch, torch.randperm(len(self.tensors["mean"]), generator=generator))
        return int(self._order[1][position])


def appearance(scenes: Scenes) -> str:
    """A digest of the first scenes' pictures and captions: another font, drawing or grammar gives another."""
    digest = hashlib.sha256()
    for index in range(LOOKED_AT):
        scene = scenes[index]
        digest.update(scene.picture.tobytes() + scene.caption.encode())
    return digest.hexdigest()


def load_latents(path: Path, *, key: object) -> dict[str, Tensor] | None:
    """What `make_latents` wrote for the same `key`, or None."""
    return load_tensors(path) if path.exists() and load_metadata(path) == key else None


def channel_statistics(mean: Tensor, std: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel: the mean of the latents and their standard deviation, posterior noise included."""
    centre = mean.float().mean(dim=(0, 2, 3))
    variance = (mean.float() - centre[:, None, None]).square().mean(dim=(0, 2, 3)) + std.float().square().mean(
        dim=(0, 2, 3)
    )
    return tuple(centre.tolist()), tuple(variance.sqrt().tolist())
