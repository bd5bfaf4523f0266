"""PSNR and SSIM are torchmetrics', picture by picture."""

import numpy as np
import pytest
import torch
from fidelity_oracle import peak_signal_noise_ratio, structural_similarity_index_measure
from PIL import Image
from torch import Tensor

from tintype.evaluation.pixels import from_bytes, psnr, ssim, to_bytes


def pictures(*, count: int = 3, height: int = 23, width: int = 17) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)
    noise = torch.randint(-30, 30, image.shape, generator=generator)
    return image, (image + noise).clamp(0, 255).byte()


def test_psnr_is_that_of_torchmetrics() -> None:
    image, other = pictures()
    each = [
        peak_signal_noise_ratio(a.double(), b.double(), data_range=255.0) for a, b in zip(other, image, strict=True)
    ]
    torch.testing.assert_close(psnr(other, image, span=255), torch.stack(each), rtol=1e-6, atol=0)  # its log is float32
    torch.testing.assert_close(psnr(from_bytes(other), from_bytes(image), span=2), psnr(other, image, span=255))
    assert psnr(image, image, span=255).isinf().all()


def test_psnr_of_a_known_error() -> None:
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert float(psnr(image + 51, image, span=255)) == pytest.approx(20 * np.log10(5), rel=1e-12)


def test_ssim_is_that_of_torchmetrics() -> None:
    image, other = pictures()
    expected = structural_similarity_index_measure(other.double(), image.double(), data_range=255.0, reduction="none")
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(ssim(other, image, span=255), expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(ssim(image, image, span=255), torch.ones(3).double())


def test_pictures_that_cannot_be_compared_are_refused() -> None:
    image, _ = pictures()
    with pytest.raises(ValueError, match="expected two equal"):
        psnr(image, image[..., 1:], span=255)
    with pytest.raises(ValueError, match="pictures of 17 x 5; expected 6 or more"):
        ssim(image[..., :5, :], image[..., :5, :], span=255)


def test_bytes_are_what_a_saved_picture_holds() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(to_bytes(from_bytes(levels)), levels)
    assert to_bytes(torch.tensor([-7.0, 7.0]).reshape(1, 1, 1, 2)).flatten().tolist() == [0, 255]
    assert np.array_equal(np.asarray(Image.fromarray(levels[0].permute(1, 2, 0).numpy())), levels[0].permute(1, 2, 0))
