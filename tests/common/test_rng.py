import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tintype.common.rng import Noise, generator

RECORDED = [514833240, 861544154, 215166705]
SEEDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5)


@given(SEEDS, st.integers(0, 4))
@settings(max_examples=30)
def test_noise_depends_on_the_seed_alone(seeds: list[int], position: int) -> None:
    position %= len(seeds)
    together, alone = Noise(seeds), Noise([seeds[position]])
    for shape in ((4, 8, 8), (3,), (4, 8, 8)):
        many, one = together.normal(shape), alone.normal(shape)
        assert many.shape == (len(seeds), *shape)
        assert torch.equal(many[position], one[0])


def test_noise_is_standard_normal_and_new_at_each_draw() -> None:
    noise = Noise([7, 8, 9])
    first, second = noise.normal((4, 64, 64)), noise.normal((4, 64, 64))
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert abs(first.mean()) < 0.02
    assert abs(first.std() - 1) < 0.02
    assert torch.equal(Noise([7, 8, 9]).normal((4, 64, 64)), first)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    Noise([1, 2]).normal((5,))
    torch.randn(3, generator=generator(1, "a"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    first = Noise([1, 2]).normal((5,))
    torch.manual_seed(456)
    assert torch.equal(first, Noise([1, 2]).normal((5,)))


def test_a_generator_is_a_pure_function_of_its_key() -> None:
    keys = [
        (0,),
        (1,),
        (0, 0),
        (0, 1),
        (1, 0),
        ("0",),
        (0, "diffusion", 5, 0),
        (0, "diffusion", 0, 5),
        (0, 5, "diffusion"),
    ]
    draws = [torch.randn(16, generator=generator(*key)) for key in keys]
    for key, draw in zip(keys, draws, strict=True):
        assert torch.equal(draw, torch.randn(16, generator=generator(*key)))
    assert len({tuple(draw.tolist()) for draw in draws}) == len(keys)


def test_a_generator_is_the_same_in_every_process_and_release() -> None:
    drawn = torch.randint(10**9, (3,), generator=generator(0, "diffusion", 5, 0))
    assert drawn.tolist() == RECORDED
