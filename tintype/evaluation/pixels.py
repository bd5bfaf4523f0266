"""Pictures compared point by point: PSNR and SSIM; and pictures as the bytes that files hold."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SPREAD = 11, 1.5  # points, and standard deviation of the Gaussian (Wang et al. 2004, section III.B)
K1, K2 = 0.01, 0.03


def to_bytes(image: Tensor) -> Tensor:
    """B 3 H W in [-1, 1] (clamped) -> uint8, rounded as pictures are when they are saved."""
    return (image.float().clamp(-1, 1) * 127.5 + 127.5).round().byte()


def from_bytes(image: Tensor) -> Tensor:
    """B 3 H W uint8 -> float32 in [-1, 1]."""
    return image.float() / 127.5 - 1


def mean_squared_error(image: Tensor, reference: Tensor) -> Tensor:
    """B C H W each, in any unit -> B float64, in that unit squared."""
    _check(image, reference)
    return (image.double() - reference.double()).square().mean(dim=(1, 2, 3))


def psnr(image: Tensor, reference: Tensor, *, span: float) -> Tensor:
    """Peak signal-to-noise ratio in dB: B C H W each -> B float64, infinite where pictures are equal.

    span: from the lowest value a picture can have to the highest: 255 for bytes, 2 for [-1, 1].
    """
    return 10 * torch.log10(span**2 / mean_squared_error(image, reference))


def ssim(image: Tensor, reference: Tensor, *, span: float) -> Tensor:
    """Structural similarity (Wang et al. 2004, eq. 13): B C H W each -> B float64, at most 1. `span` as of `psnr`.

    Each channel by itself, borders mirrored, the mean over all: as torchmetrics does. scikit-image leaves the borders
    out, and the paper's own program looks at grey pictures only. Raises `ValueError` for sides below 6, half a window.
    """
    _check(image, reference)
    channels, *sides = image.shape[1:]
    if min(sides) <= WINDOW // 2:
        raise ValueError(f"pictures of {sides[1]} x {sides[0]}; expected {WINDOW // 2 + 1} or more a side, for SSIM")
    x, y = (F.pad(one.double(), (WINDOW // 2,) * 4, mode="reflect") for one in (image, reference))
    line = torch.exp(-0.5 * ((torch.arange(WINDOW, dtype=torch.float64, device=x.device) - WINDOW // 2) / SPREAD) ** 2)
    line = (line / line.sum()).expand(channels, 1, -1)

    def blurred(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, line[:, :, None], groups=channels), line[..., None], groups=channels)

    mean_x, mean_y = blurred(x), blurred(y)
    variance_x, variance_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x.clamp_min(0) + variance_y.clamp_min(0) + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _check(image: Tensor, reference: Tensor) -> None:
    if image.shape != reference.shape or image.ndim != 4:
        raise ValueError(
            f"pictures {tuple(image.shape)} against {tuple(reference.shape)}; expected two equal B x C x H x W"
        )
