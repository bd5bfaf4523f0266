"""How near pictures are to those that they are to repeat: PSNR, SSIM, LPIPS, and of reconstructions rFID."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tintype.common.config import Json
from tintype.data.samples import Sample
from tintype.evaluation.extractors import INCEPTION, Extractor
from tintype.evaluation.frechet import FrechetStatistics, frechet_distance, too_few
from tintype.evaluation.pictures import pixels_of
from tintype.evaluation.pixels import from_bytes, mean_squared_error, psnr, ssim, to_bytes
from tintype.models.autoencoder import Autoencoder

SPAN = 255  # pictures are compared as the bytes that files hold
WORST = 8
SUMMED: tuple[str, ...] = ("pictures", "identical", "error", "psnr", "ssim", "lpips")

# (position of the first, pictures B 3 H W uint8) -> what they are compared with, likewise
Other = Callable[[int, Tensor], Tensor]


def round_trip(autoencoder: Autoencoder, device: torch.device) -> Other:
    """Encoded, the mean of what the encoder tells decoded, and rounded as saved pictures are."""

    @torch.inference_mode()
    def other(first: int, image: Tensor) -> Tensor:
        latent = autoencoder.encode(from_bytes(image.to(device))).mean
        return to_bytes(autoencoder.decode(latent)).cpu()

    return other


class PairSums:
    """Sums of figures of pairs, and the places of the worst: a `streaming.Sums`.

    lpips: (a, b in [-1, 1]) -> B. extractor: for the Fréchet distance between all of one side and all of the other.
    """

    def __init__(
        self,
        other: Other,
        *,
        lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
        extractor: Extractor | None = None,
    ) -> None:
        self.other, self.lpips, self.extractor = other, lpips, extractor
        self.sums: dict[str, float] = dict.fromkeys(SUMMED, 0.0)
        self.worst = torch.zeros(0, 2, dtype=torch.float64)  # squared error and position, worst first
        self.sides = [] if extractor is None else [FrechetStatistics(extractor.dim) for _ in range(2)]

    @torch.inference_mode()
    def update(self, first: int, samples: Sequence[Sample]) -> None:
        image = pixels_of(samples)
        made = self.other(first, image)
        errors, ratios = mean_squared_error(made, image), psnr(made, image, span=SPAN)
        sums = {
            "pictures": len(image),
            "identical": int((errors == 0).sum()),
            "error": errors.sum(),
            "psnr": ratios[errors > 0].sum(),
            "ssim": ssim(made, image, span=SPAN).sum(),
            "lpips": 0.0 if self.lpips is None else self.lpips(from_bytes(made), from_bytes(image)).double().sum(),
        }
        for name, value in sums.items():
            self.sums[name] += float(value)
        places = torch.arange(first, first + len(image), dtype=torch.float64)
        worst = torch.cat([self.worst, torch.stack([errors, places], dim=1)])
        self.worst = worst[worst[:, 0].argsort(descending=True, stable=True)[:WORST]]
        if self.extractor is not None:
            for side, pixels in zip(self.sides, (made, image), strict=True):
                side.update(self.extractor(pixels).pooled)

    def tensors(self) -> dict[str, Tensor]:
        found = {"sums": torch.tensor(list(self.sums.values()), dtype=torch.float64), "worst": self.worst}
        for number, side in enumerate(self.sides):
            count = torch.tensor(side.count)
            found |= {f"{number}.count": count, f"{number}.mean": side.mean, f"{number}.scatter": side.scatter}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.sums = dict(zip(self.sums, tensors["sums"].tolist(), strict=True))
        self.worst = tensors["worst"]
        for number, side in enumerate(self.sides):
            side.count = int(tensors[f"{number}.count"])
            side.mean, side.scatter = tensors[f"{number}.mean"], tensors[f"{number}.scatter"]

    def figures(self) -> tuple[dict[str, Json], tuple[str, ...]]:
        """Plain JSON values, and warnings. `psnr` is the mean over pictures that differ at all (equal ones have none),
        None where there are no such; `psnr_of_mean_error` is over all."""
        count, identical = self.sums["pictures"], self.sums["identical"]
        error = torch.tensor(self.sums["error"] / count, dtype=torch.float64)
        found: dict[str, Json] = {
            "psnr": self.sums["psnr"] / (count - identical) if identical < count else None,
            "psnr_of_mean_error": float(10 * torch.log10(SPAN**2 / error)) if identical < count else None,
            "identical": int(identical),
            "ssim": self.sums["ssim"] / count,
        }
        warnings: list[str] = []
        if self.lpips is not None:
            found["lpips"] = self.sums["lpips"] / count
        if self.extractor is not None:
            name = "rfid" if self.extractor.name.startswith(INCEPTION) else "reconstruction_frechet_distance"
            made, kept = (side.gaussian(self.extractor.name) for side in self.sides)
            found[name] = frechet_distance(made, kept)
            warnings += [f"{name}: {few}"] if (few := too_few(made)) else []
        return found, tuple(warnings)

    @property
    def worst_places(self) -> list[int]:
        """Positions of the pictures with the largest errors, worst first."""
        return [int(place) for place in self.worst[:, 1]]
