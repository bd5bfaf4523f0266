"""Copies are found however they were made, and what only looks alike to a hash is not taken for one."""

import io

import numpy as np
import pytest
from PIL import Image

from tintype.data.duplicates import HASH, copies, signatures
from tintype.data.samples import Sample
from tintype.data.scenes import SceneConfig, Scenes


def scene(number: int, size: int = 64) -> Image.Image:
    return Image.fromarray(SCENES[number].picture).resize((size, size), Image.Resampling.BICUBIC)


SCENES = Scenes(SceneConfig())


def compressed(image: Image.Image, quality: int) -> Image.Image:
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=quality)
    return Image.open(stored).convert("RGB")


def brighter(image: Image.Image) -> Image.Image:
    return image.point(lambda value: min(255, value + 4))


def sign(images: list[Image.Image]) -> np.ndarray:
    return signatures([Sample(picture=np.asarray(image)) for image in images])


def test_scaled_and_compressed_copies_are_found_and_the_largest_is_kept() -> None:
    images, of = [], []
    for number in range(30):
        whole = scene(number, 96)
        made = [
            whole,
            whole.resize((48, 48)),
            compressed(whole, 50),
            compressed(whole.resize((72, 72)), 80),
            brighter(whole),
        ]
        images += made
        of += [number] * len(made)
    areas = np.array([image.width * image.height for image in images])
    instead = copies(sign(images), np.argsort(-areas, kind="stable"), distance=4)
    of = np.array(of)
    kept = np.flatnonzero(instead < 0)
    assert (of[instead[instead >= 0]] == of[instead >= 0]).all()  # no picture stands in for another scene
    assert set(of[kept].tolist()) == set(range(30))  # nothing is lost
    assert len(kept) <= 33  # of 120 copies all but three at most
    assert (areas[kept] == 96 * 96).sum() >= 30


def test_blank_pictures_and_other_colours_are_no_copies() -> None:
    blank = [Image.new("RGB", (64, 64), colour) for colour in ("black", "white", "red", "grey", "black", "#030303")]
    hashes = sign(blank)[:, :HASH]
    assert (hashes[1:4] == hashes[1]).all()  # why the hash alone is not enough
    instead = copies(sign(blank), np.arange(6), distance=4)
    assert instead.tolist() == [-1, -1, -1, -1, 0, 0]
    red = np.zeros((64, 64, 3), np.uint8)
    red[16:40, 20:50, 0] = 200
    blue = red[..., ::-1].copy()
    blue[..., 2] = blue[..., 2] * 0.6
    assert copies(sign([Image.fromarray(red), Image.fromarray(blue)]), np.arange(2), distance=4).tolist() == [-1, -1]


def brute(signed: np.ndarray, preference: np.ndarray, distance: int) -> np.ndarray:
    """The definition: in the order of preference, whatever is near one that is kept goes."""
    bits = np.unpackbits(signed[:, :HASH], axis=1)
    kept: list[int] = []
    gone = np.zeros(len(signed), bool)
    for number in preference:
        if any((bits[one] != bits[number]).sum() <= distance for one in kept):
            gone[number] = True
        else:
            kept.append(int(number))
    return gone


@pytest.mark.parametrize("distance", [0, 1, 4, 9])
def test_the_search_finds_what_comparing_each_with_each_finds(distance: int) -> None:
    drawn = np.random.default_rng(distance)
    bits = drawn.integers(0, 2, (60, 64), dtype=np.uint8)
    near = np.repeat(bits, 5, axis=0)
    for row in near:
        row[drawn.choice(64, drawn.integers(0, 8), replace=False)] ^= 1
    signed = np.concatenate([np.packbits(near, axis=1), np.full((300, 48), 99, np.uint8)], axis=1)
    preference = drawn.permutation(300)
    instead = copies(signed, preference, distance=distance)
    assert np.array_equal(instead >= 0, brute(signed, preference, distance))
    assert (instead >= 0).any()
    assert (instead[instead[instead >= 0]] < 0).all()


def test_a_distance_that_would_take_anything_for_a_copy_is_refused() -> None:
    with pytest.raises(ValueError, match="duplicates 40: expected 0 to 31 bits of 64"):
        copies(np.zeros((2, 56), np.uint8), np.arange(2), distance=40)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imagehash", None)
    with pytest.raises(ValueError, match=r"need the package ImageHash: pip install --editable '\.\[train\]'"):
        sign([scene(0)])
