"""Numbers as vectors, against diffusers and by hand."""

import math

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding

from tintype.nn.embedding import timestep_embedding


@pytest.mark.parametrize("dim", [2, 32, 320])
def test_equals_diffusers(dim: int) -> None:
    t = torch.tensor([0.0, 1.0, 500.25, 999.0])
    theirs = get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(timestep_embedding(t, dim), theirs, rtol=0, atol=1e-4)  # float32 angles up to 999


def test_cosines_first_then_sines_by_falling_frequency() -> None:
    got = timestep_embedding(torch.tensor([3]), 4, max_period=100.0)
    expected = [math.cos(3), math.cos(0.3), math.sin(3), math.sin(0.3)]
    torch.testing.assert_close(got, torch.tensor([expected]))


@pytest.mark.parametrize("shape", [(), (5,), (2, 6)], ids=str)
@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.float64])
def test_any_shape_and_type_gives_float32(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    t = torch.full(shape, 7).to(dtype)
    embedded = timestep_embedding(t, 8)
    assert embedded.shape == (*shape, 8)
    assert embedded.dtype == torch.float32
    assert torch.equal(embedded, timestep_embedding(torch.full(shape, 7.0), 8))
