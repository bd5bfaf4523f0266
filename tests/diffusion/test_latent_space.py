"""Raw latents and back."""

import pytest
import torch

from tintype.diffusion.latent_space import LatentMoments, LatentSpace


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


def test_moments_a_few_at_a_time_are_those_of_all() -> None:
    """Against numpy on samples: a large mean would ruin float32 sums."""
    noise = torch.Generator().manual_seed(0)
    mean = 30 + torch.randn(40, 3, 5, 7, generator=noise) * torch.tensor([0.1, 1.0, 4.0])[:, None, None]
    std = torch.rand(mean.shape, generator=noise)
    moments = LatentMoments()
    for some in zip(mean.split(7), std.split(7), strict=True):
        moments.add(*some)
    exact = mean.double()
    by_channel = ((exact - exact.mean(dim=(0, 2, 3), keepdim=True)).square() + std.double().square()).mean(
        dim=(0, 2, 3)
    )
    each = moments.space(per_channel=True)
    assert each.shift == pytest.approx(exact.mean(dim=(0, 2, 3)).tolist(), rel=1e-9)
    assert each.scale == pytest.approx((by_channel**-0.5).tolist(), rel=1e-7)
    sampled = each.wrap(mean + std * torch.randn(mean.shape, generator=noise))
    assert sampled.std(dim=(0, 2, 3)).tolist() == pytest.approx([1, 1, 1], rel=0.05)
    one = moments.space(per_channel=False)
    overall = (exact - exact.mean()).square().mean() + std.double().square().mean()
    assert (one.shift, one.scale) == ((0.0,), pytest.approx((float(overall) ** -0.5,), rel=1e-7))


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="no latents to measure"):
        LatentMoments().space(per_channel=True)
    moments = LatentMoments()
    moments.add(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="latents do not vary"):
        moments.space(per_channel=True)
