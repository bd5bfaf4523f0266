"""Pictures of every kind, and what is no picture."""

import contextlib
import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from sources import encoded, picture

from tintype.data.pictures import FORMATS, STORED, Limits, Refused, encode, read_classes, read_picture


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(read_picture(content).image)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (head, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("MPO", "AVIF")])
def test_every_format_is_read(kind: str) -> None:
    image = picture(1, width=40, height=24)
    content = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    found = read_picture(content)
    assert found.kind == kind
    assert found.image.mode == "RGB"
    close = {"JPEG": 60, "GIF": 60}.get(kind, 0)  # lossy, 256 colours
    assert np.abs(pixels(content).astype(int) - np.asarray(image)).mean() <= close / 4


def test_every_orientation_comes_out_upright() -> None:
    upright = picture(2, width=32, height=20)
    undone = {  # how a camera held that way stores it (EXIF 2.3, orientation)
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for orientation, how in undone.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = upright if how is None else upright.transpose(how)
        content = encoded(stored, "PNG", exif=exif)
        assert np.array_equal(pixels(content), np.asarray(upright)), orientation
        Limits(min_size=20).check(*stored.size)


def test_colours_of_other_kinds_are_converted_the_same_way_always() -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    for shift in (0, 255):
        content = encoded(Image.fromarray(grey * 256 + shift), "PNG")  # 16 bits: the high byte
        assert np.array_equal(pixels(content), np.repeat(grey.astype(np.uint8)[..., None], 3, 2))
    assert np.array_equal(pixels(encoded(picture(mode="L"))), np.asarray(picture(mode="L").convert("RGB")))
    palette = picture().quantize(8)
    assert np.array_equal(pixels(encoded(palette)), np.asarray(palette.convert("RGB")))
    bits = picture(mode="1")
    assert set(np.unique(pixels(encoded(bits)))) <= {0, 255}
    cmyk = Image.merge("CMYK", [Image.new("L", (8, 8), value) for value in (255, 0, 0, 0)])
    assert np.abs(pixels(encoded(cmyk, "JPEG", quality=100)).astype(int) - (0, 255, 255)).max() <= 2


def test_transparent_pixels_show_white() -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    clear.putpixel((0, 0), (10, 20, 30, 255))
    clear.putpixel((1, 0), (0, 0, 0, 128))
    found = pixels(encoded(clear))
    assert found[0, 0].tolist() == [10, 20, 30]
    assert found[0, 1].tolist() == [127, 127, 127]
    assert (found[1:] == 255).all()
    one_colour = PngImagePlugin.PngInfo()
    named = Image.new("RGB", (2, 2), (1, 2, 3))
    assert (pixels(encoded(named, pnginfo=one_colour, transparency=(1, 2, 3))) == 255).all()
    indexed = Image.new("P", (2, 2), 1)
    indexed.putpalette([0, 0, 0, 50, 60, 70])
    assert (pixels(encoded(indexed, transparency=1)) == 255).all()


def test_of_an_animation_the_first_frame_is_taken() -> None:
    content = encoded(picture(1), "WEBP", save_all=True, append_images=[picture(2)], lossless=True)
    assert read_picture(content).frames == 2
    assert np.array_equal(pixels(content), np.asarray(picture(1)))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_no_bytes_raise_anything_but_a_refusal(kind: str) -> None:
    """Files cut at any place, and with any bytes changed."""
    whole = encoded(picture(width=48, height=48), kind)
    draw = random.Random(0)
    for end in range(0, len(whole), max(len(whole) // 60, 1)):
        with pytest.raises(Refused) as refused:
            read_picture(whole[: min(end, len(whole) * 9 // 10)])
        assert refused.value.reason in ("empty", "cut short", "not a picture", "damaged")
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        with contextlib.suppress(Refused):
            read_picture(bytes(content), Limits(max_pixels=10**6))


@pytest.mark.filterwarnings("ignore:Image size .* exceeds limit")  # PIL's own, lower bound
def test_a_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(Refused, match=r"too many pixels: .*900000000 pixels"):
        read_picture(png_header(30_000, 30_000), Limits())
    with pytest.raises(Refused, match="too many pixels: 12000x12000; at most 89478485 are decoded"):
        read_picture(png_header(12_000, 12_000), Limits())
    with pytest.raises(Refused, match="too many pixels: 100x99; at most 9899"):
        read_picture(png_header(100, 99), Limits(max_pixels=9899))


@pytest.mark.parametrize(
    ("limits", "size", "reason"),
    [
        (Limits(min_size=16), (15, 99), "too small"),
        (Limits(min_size=16), (16, 99), None),
        (Limits(max_aspect=3), (31, 10), "too long"),
        (Limits(max_aspect=3), (10, 30), None),
        (Limits(max_aspect=3), (10, 31), "too long"),
    ],
)
def test_sizes_have_limits(limits: Limits, size: tuple[int, int], reason: str | None) -> None:
    content = encoded(picture(width=size[0], height=size[1]))
    if reason is None:
        assert read_picture(content, limits).image.size == size
        return
    with pytest.raises(Refused) as refused:
        read_picture(content, limits)
    assert refused.value.reason == reason


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_of_unknown_range_are_refused(mode: str) -> None:
    with pytest.raises(Refused, match="unknown colours: mode"):
        read_picture(encoded(Image.new(mode, (4, 4)), "TIFF"))


def test_class_maps() -> None:
    classes = np.array([[0, 7], [255, 3]], np.uint8)
    coloured = Image.fromarray(classes).convert("P")  # the palette's colours are for eyes only
    coloured.putpalette([channel for value in range(256) for channel in (value, 255 - value, 9)])
    for image in (Image.fromarray(classes), coloured):
        assert np.array_equal(read_classes(encoded(image)), classes)
    bits = Image.fromarray(classes > 5)
    assert read_classes(encoded(bits)).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(Refused, match="not a class map: mode RGB"):
        read_classes(encoded(picture()))
    with pytest.raises(Refused, match="too many pixels"):
        read_classes(png_header(30_000, 30_000), Limits())


def test_what_is_written_anew() -> None:
    image = picture(width=64, height=64)
    for suffix in ("png", "webp"):
        assert np.array_equal(pixels(encode(image, suffix)), np.asarray(image))
    assert np.abs(pixels(encode(image, "jpg")).astype(int) - np.asarray(image)).mean() < 6
    assert Image.open(io.BytesIO(encode(image, "jpg"))).format == "JPEG"
    assert set(STORED.values()) == {"jpg", "png", "webp"}
