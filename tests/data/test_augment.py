import numpy as np
import pytest
import torch

from tintype.conditioning.layout import Box, Region
from tintype.data.augment import (
    any_caption,
    center_crop,
    cropped,
    flips,
    mirrored,
    random_crop,
    random_resized_crop,
)
from tintype.data.samples import Batches, Sample, images, masks

HEIGHT, WIDTH = 24, 40


def drawn(index: int = 0) -> Sample:
    """A picture with one rectangle of colour, its mask, and its box, which must always agree."""
    generator = np.random.default_rng(index)
    left, top = int(generator.integers(WIDTH - 8)), int(generator.integers(HEIGHT - 8))
    width, height = int(generator.integers(3, 9)), int(generator.integers(3, 9))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + height, left : left + width] = 1
    region = Region(left=left / WIDTH, top=top / HEIGHT, width=width / WIDTH, height=height / HEIGHT)
    return Sample(picture=np.repeat(mask[..., None], 3, 2) * 200, mask=mask, boxes=(Box(label=4, region=region),))


def box_of(mask: np.ndarray) -> tuple[float, ...] | None:
    """The box that the pixels themselves tell."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    height, width = mask.shape
    size = ((columns[-1] + 1 - columns[0]) / width, (rows[-1] + 1 - rows[0]) / height)
    return (columns[0] / width, rows[0] / height, *size)


def agrees(sample: Sample) -> None:
    assert np.array_equal(sample.picture[..., 0] > 0, sample.mask > 0)
    told = [(box.region.left, box.region.top, box.region.width, box.region.height) for box in sample.boxes]
    seen = box_of(sample.mask)
    assert len(told) == (seen is not None)
    if told:
        assert told[0] == pytest.approx(seen, abs=1e-9)


@pytest.mark.parametrize("index", range(8))
def test_picture_mask_and_boxes_go_together(index):
    sample = drawn(index)
    agrees(sample)
    mirror = mirrored(sample)
    agrees(mirror)
    assert np.array_equal(mirror.picture, sample.picture[:, ::-1])
    again = mirrored(mirror)
    assert np.array_equal(again.picture, sample.picture)
    assert again.boxes[0].region.left == pytest.approx(sample.boxes[0].region.left, abs=1e-12)
    for seed in range(6):
        agrees(random_crop(15)(sample, torch.Generator().manual_seed(seed)))
    agrees(center_crop(12)(sample, torch.Generator()))


def test_a_crop_is_that_part_of_the_picture():
    sample = drawn()
    part = cropped(sample, left=3, top=5, width=20, height=10)
    assert np.array_equal(part.picture, sample.picture[5:15, 3:23])
    middle = center_crop(10)(sample, torch.Generator())
    assert np.array_equal(middle.picture, sample.picture[7:17, 15:25])


def test_random_crops_reach_every_place():
    picture = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, 2)
    sample, noise = Sample(picture=picture), torch.Generator().manual_seed(0)
    corners = [int(random_crop(2)(sample, noise).picture[0, 0, 0]) for _ in range(900)]
    counts = [corners.count(4 * row + column) for row in range(3) for column in range(3)]
    assert sum(counts) == 900
    assert min(counts) > 70  # 100 expected, standard deviation 9.4


def test_flips_mirror_about_half_of_the_samples():
    class Drawn:
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return drawn(index)

    batch = Batches(Drawn(), [images, masks], seed=1, augment=[flips()]).batch(0, 700)
    assert torch.equal(batch["image"][:, 0] > -1, batch["mask"] > 0)  # both or neither
    plain = [torch.from_numpy(drawn(index).mask).long() for index in range(5)]
    turned = sum(not any(torch.equal(mask, one) for one in plain) for mask in batch["mask"])
    assert 0.43 < turned / 700 < 0.57


def test_what_is_drawn_for_a_sample_does_not_depend_on_its_batch():
    class Drawn:
        def __len__(self):
            return 9

        def __getitem__(self, index):
            return drawn(index)

    source = Batches(Drawn(), [images], seed=2, augment=[random_crop(8), flips()])
    whole = source.batch(0, 20)["image"]
    assert torch.equal(whole[13:], source.batch(13, 7)["image"])


def test_one_of_several_captions():
    sample = Sample(caption="a", other_captions=("b", "c"))
    noise = torch.Generator().manual_seed(0)
    said = [any_caption(sample, noise).caption for _ in range(300)]
    assert {one: said.count(one) > 75 for one in "abc"} == dict.fromkeys("abc", True)
    assert any_caption(Sample(caption="a"), noise).caption == "a"


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: mirrored(Sample(mean=torch.zeros(1, 2, 2))), "latent cannot be mirrored"),
        (lambda: flips(1.5), "flips 1.5: expected a share from 0 to 1"),
        (
            lambda: random_crop(30)(drawn(), torch.Generator()),
            "crop of 30x30 from a picture of 40x24; expected 1 to 24",
        ),
        (lambda: cropped(drawn(), left=30, top=0, width=20, height=5), "expected it to lie within"),
        (lambda: center_crop(3)(Sample(), torch.Generator()), "without a picture cannot be cropped"),
    ],
)
def test_what_cannot_be_done_is_named(attempt, words):
    with pytest.raises(ValueError, match=words):
        attempt()


def test_a_resized_crop_is_a_part_of_the_shape_asked_for():
    """In a picture that tells at each pixel where it is, the corners tell what was cut."""
    across, down = np.meshgrid(np.arange(80), np.arange(60))
    sample = Sample(picture=np.stack((across * 3, down * 3, across), 2).astype(np.uint8))
    augment = random_resized_crop(32, smallest=0.3)
    shares, ratios, corners = [], [], set()
    for seed in range(60):
        picture = augment(sample, torch.Generator().manual_seed(seed)).picture.astype(float)
        assert picture.shape == (32, 32, 3)
        width = (picture[16, 24, 0] - picture[16, 8, 0]) / 3 * 2
        height = (picture[24, 16, 1] - picture[8, 16, 1]) / 3 * 2
        shares.append(width * height / 4800)
        ratios.append(width / height)
        corners.add((round(picture[0, 0, 0]), round(picture[0, 0, 1])))
    assert 0.27 < min(shares) < 0.45
    assert 0.8 < max(shares) < 1.05
    assert 0.7 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.4
    assert len(corners) > 30
    wide = augment(Sample(picture=np.zeros((8, 90, 3), np.uint8)), torch.Generator().manual_seed(0))
    assert wide.picture.shape == (32, 32, 3)
    with pytest.raises(ValueError, match=r"smallest 0: expected a share of the area"):
        random_resized_crop(32, smallest=0)
