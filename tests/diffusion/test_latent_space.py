"""Raw latents and back."""

import pytest
import torch

from tintype.diffusion.latent_space import LatentSpace


@pytest.mark.parametrize(
    "space", [LatentSpace(), LatentSpace(scale=(2.0, 0.5, 1.0), shift=(0.3, -1.0, 0.0))], ids=["one number", "channels"]
)
def test_unwrap_is_the_inverse_of_wrap(space: LatentSpace) -> None:
    z = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(space.unwrap(space.wrap(z)), z)


def test_wrap_shifts_then_scales_each_channel() -> None:
    wrapped = LatentSpace(scale=(2.0, 0.5), shift=(1.0, -1.0)).wrap(torch.full((1, 2, 1, 1), 3.0))
    assert wrapped.flatten().tolist() == [4.0, 2.0]


def test_the_default_is_stable_diffusions() -> None:
    assert LatentSpace().wrap(torch.ones(1, 4, 1, 1))[0, 0, 0, 0].item() == pytest.approx(0.18215)


@pytest.mark.parametrize("entries", [{"scale": (1.0, 0.0)}, {"scale": (float("inf"),)}, {"shift": (float("nan"),)}])
def test_a_space_that_cannot_be_unwrapped_is_refused(entries: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="expected finite numbers, no scale of 0"):
        LatentSpace(**entries)
