import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tintype.conditioning.layout import Box, Region
from tintype.conditioning.prompt import Framing
from tintype.data.buckets import Bucketed, BucketOrder, bucket_sizes, fit, fitted, nearest_buckets, order_of
from tintype.data.samples import Batches, Sample, images, labels

# The sizes SDXL was trained in (Podell et al. 2023, appendix I), height below width
SDXL = {
    (512, 2048), (512, 1984), (512, 1920), (512, 1856), (576, 1792), (576, 1728), (576, 1664), (640, 1600), (640, 1536),
    (704, 1472), (704, 1408), (704, 1344), (768, 1344), (768, 1280), (832, 1216), (832, 1152), (896, 1152), (896, 1088),
    (960, 1088), (960, 1024), (1024, 1024),
}  # fmt: skip


def test_sizes_are_among_those_of_sdxl_and_for_each_side_the_largest():
    found = bucket_sizes(1024**2, max_aspect=4.0)
    landscape = {size for size in found if size[0] <= size[1]}
    assert {size[::-1] for size in found} == set(found)
    assert landscape <= SDXL
    for height, width in SDXL - landscape:
        assert any(h >= height and w >= width for h, w in landscape)  # within one that we have


@given(st.integers(1, 40), st.sampled_from([8, 16, 64]), st.floats(1, 5))
@settings(max_examples=60, deadline=None)
def test_no_size_is_too_large_too_long_or_could_grow(side: int, multiple: int, max_aspect: float):
    area = (side * multiple) ** 2
    found = bucket_sizes(area, multiple=multiple, max_aspect=max_aspect)
    assert (side * multiple,) * 2 in found
    assert len(set(found)) == len(found)
    for height, width in found:
        assert height % multiple == width % multiple == 0
        assert height * width <= area < (height + multiple) * (width + multiple)
        assert max(height, width) <= max_aspect * min(height, width)
    aspects = [width / height for height, width in found]
    assert aspects == sorted(aspects)


def test_a_picture_goes_to_the_nearest_ratio():
    buckets = bucket_sizes(512**2)
    sizes = np.random.default_rng(0).integers(100, 4000, (500, 2)).astype(np.int32)
    for (height, width), chosen in zip(sizes.tolist(), nearest_buckets(sizes, buckets).tolist(), strict=True):
        far = [abs(math.log(width / height * h / w)) for h, w in buckets]
        assert far[chosen] == pytest.approx(min(far), abs=1e-8)
    assert buckets[nearest_buckets(np.array([[9, 9]], dtype=np.int32), buckets)[0]] == (512, 512)
    assert nearest_buckets(np.array([[50, 50]], dtype=np.int32), [(8, 8), (64, 64), (16, 16)]).tolist() == [
        1
    ]  # largest


@given(*[st.integers(1, 3000)] * 2, *[st.integers(1, 40)] * 2, *[st.floats(0, 1)] * 2)
@settings(max_examples=200, deadline=None)
def test_a_fit_covers_its_size_and_no_more(height: int, width: int, h: int, w: int, down: float, across: float):
    way = fit((height, width), (8 * h, 8 * w), place=(down, across))
    slack = [have - want for have, want in zip(way.scaled, way.size, strict=True)]
    assert min(slack) == 0
    assert all(0 <= cut <= more for cut, more in zip(way.crop, slack, strict=True))
    scale = max(8 * h / height, 8 * w / width)
    assert way.scaled == pytest.approx((height * scale, width * scale), abs=0.51)


def test_a_picture_is_cut_with_its_mask_and_its_boxes():
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[10:20, 45:70] = 200
    boxes = tuple(
        Box(label=number, region=Region(left=left, top=0.25, width=width, height=0.25))
        for number, (left, width) in enumerate([(0.45, 0.25), (0.0, 0.4), (0.0, 0.2)])
    )
    sample = Sample(picture=picture, mask=picture[..., 0] // 200, boxes=boxes, caption="a bar")
    cut = fitted(sample, (20, 20))  # halved to 20 x 50, of which columns 15 to 34 are kept
    assert cut.picture is not None
    assert cut.mask is not None
    assert cut.framing == Framing(original_size=(40, 100), crop=(0, 15), target_size=(20, 20))
    bar = np.zeros((20, 20), np.uint8)
    bar[5:10, 8:20] = 1
    assert (cut.mask == bar).mean() > 0.97  # nearest pixels: its left edge lies between two
    assert (cut.picture[..., 0] > 100).astype(np.uint8)[:, 9:].tolist() == bar[:, 9:].tolist()
    assert [box.label for box in cut.boxes] == [0, 1]  # the last one was cut off
    region = cut.boxes[0].region
    assert (region.left, region.top, region.width, region.height) == pytest.approx((0.375, 0.25, 0.625, 0.25))
    assert cut.boxes[1].region.width == pytest.approx(0.25)
    assert cut.caption == "a bar"
    right = fitted(sample, (20, 20), place=(0.5, 1.0))
    assert right.framing is not None
    assert right.framing.crop == (0, 30)


def test_classes_of_a_mask_are_not_mixed_when_it_is_resized():
    picture = np.zeros((50, 90, 3), np.uint8)
    mask = np.random.default_rng(0).choice(np.array([3, 250], np.uint8), (50, 90))
    cut = fitted(Sample(picture=picture, mask=mask), (32, 32))
    assert cut.mask is not None
    assert set(np.unique(cut.mask).tolist()) == {3, 250}


def test_a_picture_of_its_size_keeps_its_pixels_and_where_it_came_from():
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    told = Framing(original_size=(640, 960), target_size=(16, 24))
    cut = fitted(Sample(picture=picture, framing=told), (16, 16))
    assert cut.picture is not None
    assert np.array_equal(cut.picture, picture[:, 4:20])
    assert cut.framing == Framing(original_size=(640, 960), crop=(0, 4), target_size=(16, 16))
    with pytest.raises(ValueError, match="a sample without a picture"):
        fitted(Sample(), (8, 8))


class Shapes:
    """Pictures of several shapes, all of the colour of their number, which is their label."""

    def __init__(self, sizes):
        self.sizes = np.array(sizes, dtype=np.int32)

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        return Sample(picture=np.full((*self.sizes[index].tolist(), 3), index, np.uint8), label=index)


SHAPES = Shapes([(30, 30)] * 11 + [(20, 40)] * 7 + [(41, 20)] * 2)
BUCKETS = ((32, 16), (24, 24), (16, 32))


def test_every_batch_has_one_size_and_is_a_function_of_its_position():
    samples = Bucketed(SHAPES, BUCKETS)
    source = Batches(samples, [images, labels], seed=3, order=BucketOrder(samples.sizes, batch_size=4, seed=3))
    seen = set()
    for number in range(12):
        batch = source.batch(4 * number, 4)
        shape = tuple(batch["image"].shape[2:])
        assert {tuple(samples.sizes[one].tolist()) for one in batch["label"].tolist()} == {shape}
        seen.add(shape)
    assert seen == set(BUCKETS)
    whole = BucketOrder(samples.sizes, batch_size=4, seed=3)
    known = [whole(4 * number, 4) for number in range(40)]
    for number in (31, 2, 17, 0, 39):
        order = BucketOrder(samples.sizes, batch_size=4, seed=3)
        assert order(4 * number, 4) == known[number]
        assert order(4 * number + 2, 2) == known[number][2:]
    assert known[:20] != known[20:]
    other = BucketOrder(samples.sizes, batch_size=4, seed=4)
    assert [other(4 * number, 4) for number in range(40)] != known


@given(st.lists(st.integers(1, 25), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_sample_is_seen_once_a_round_and_none_is_lost(counts: list[int], batch_size: int, seed: int):
    """After n rounds each was seen n times, but for fewer than a batch of each size, once more."""
    bucket = np.repeat(np.arange(len(counts)), counts)
    order = BucketOrder(np.stack([bucket, bucket], 1).astype(np.int32) + 8, batch_size=batch_size, seed=seed)
    seen: Counter[int] = Counter()
    begun = 0
    for rounds in range(1, 5):
        until = sum(-(-rounds * count // batch_size) for count in counts)
        for number in range(begun, until):
            members = order(number * batch_size, batch_size)
            assert len({int(bucket[one]) for one in members}) == 1
            seen.update(members)
        begun = until
        for which, count in enumerate(counts):
            times = [seen[int(one)] for one in np.flatnonzero(bucket == which)]
            shown = -(-rounds * count // batch_size) * batch_size
            assert sum(times) == shown
            assert min(times) >= rounds
            assert max(times) - min(times) <= 1


def test_each_round_deals_and_mixes_anew():
    sizes = np.repeat(np.array([[8, 8], [8, 16]], np.int32), 16, axis=0)
    order = BucketOrder(sizes, batch_size=4, seed=0)
    rounds = [[order(4 * number, 4) for number in range(8 * turn, 8 * turn + 8)] for turn in range(6)]
    assert len({frozenset(map(tuple, batches)) for batches in rounds}) == 6  # other samples together
    assert len({tuple(batch[0] < 16 for batch in batches) for batches in rounds}) > 3  # the sizes in another order


def test_reading_across_a_batch_is_refused():
    order = BucketOrder(SHAPES.sizes, batch_size=4, seed=0)
    with pytest.raises(ValueError, match=r"samples 2 to 5 of batches of 4: .*expected a part of one batch"):
        order(2, 4)


def test_samples_of_one_size_are_shuffled_as_without_buckets():
    same = Shapes([(8, 8)] * 9)
    plain = Batches(same, [labels], seed=2)
    ordered = Batches(same, [labels], seed=2, order=order_of(same.sizes, batch_size=4, seed=2))
    assert torch.equal(plain.batch(3, 20)["label"], ordered.batch(3, 20)["label"])  # across batches and rounds
    assert isinstance(order_of(SHAPES.sizes, batch_size=4, seed=2), BucketOrder)
