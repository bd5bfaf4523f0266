import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import tintype.data.glyphs
from tintype.data.emoji import emoji_table
from tintype.data.glyphs import FONT_VARIABLE, Glyphs, find_font

SANS = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")


def test_without_the_font_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FONT_VARIABLE, raising=False)
    monkeypatch.setattr(tintype.data.glyphs, "FONT_PATHS", (str(tmp_path / "a.ttf"), "~/no/such.ttf"))
    with pytest.raises(ValueError, match="apt-get install fonts-noto-color-emoji") as caught:
        Glyphs()
    for part in (str(tmp_path / "a.ttf"), "~/no/such.ttf", "--font", f"${FONT_VARIABLE}", "does not need it"):
        assert part in str(caught.value)


def test_where_the_font_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual, other, given = (tmp_path / name for name in ("usual.ttf", "other.ttf", "given.ttf"))
    for path in (usual, other, given):
        path.touch()
    monkeypatch.delenv(FONT_VARIABLE, raising=False)
    monkeypatch.setattr(tintype.data.glyphs, "FONT_PATHS", (str(tmp_path / "absent.ttf"), "~/usual.ttf"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_font() == usual
    monkeypatch.setenv(FONT_VARIABLE, str(other))
    assert find_font() == other
    assert find_font(str(given)) == given
    with pytest.raises(
        ValueError, match=r"is not at .*nowhere\.ttf"
    ):  # a name that is given is not replaced by another
        find_font(str(tmp_path / "nowhere.ttf"))


def test_a_file_that_is_no_font(tmp_path: Path) -> None:
    path = tmp_path / "NotoColorEmoji.ttf"
    path.write_bytes(b"not a font")
    with pytest.raises(ValueError, match=r"NotoColorEmoji\.ttf is not the bitmap Noto Color Emoji font .*CBDT"):
        Glyphs(str(path))


def test_another_font(tmp_path: Path) -> None:
    path = tmp_path / "NotoColorEmoji.ttf"
    source = SANS if SANS.is_file() else _some_outline_font()
    shutil.copy(source, path)
    with pytest.raises(ValueError, match="is not the bitmap Noto Color Emoji font"):
        Glyphs(str(path))


def _some_outline_font() -> Path:
    import PIL

    return next(Path(PIL.__file__).parent.rglob("*.ttf"))


def test_an_emoji_the_font_lacks() -> None:
    with pytest.raises(ValueError, match="has no picture for ' '"):
        Glyphs().draw(" ", 40)


@pytest.mark.parametrize("size", [30, 64])
def test_glyphs_are_cut_tight_and_premultiplied(size: int) -> None:
    glyphs = Glyphs()
    for character in ("🍎", "🥕", "🐍", "⚽"):
        glyph = glyphs.draw(character, size)
        assert glyph.dtype == np.uint8
        assert glyph.shape[2] == 4
        assert max(glyph.shape[:2]) == size
        alpha = glyph[..., 3]
        for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]):
            assert edge.max() > 0
        assert (glyph[..., :3].max(axis=-1) <= alpha.astype(int) + 12).mean() > 0.99
        assert glyphs.draw(character, size) is glyph


@pytest.mark.parametrize("character", ["🍎", "🫧", "👻", "🥕"])
def test_nothing_visible_is_cut_off(character: str) -> None:
    """At its own size a glyph is the font's bitmap, every pixel of it that is not almost transparent."""
    font = ImageFont.truetype(str(find_font()), 109)
    canvas = Image.new("RGBA", (200, 200))
    ImageDraw.Draw(canvas).text((30, 30), character, font=font, embedded_color=True)
    drawn = np.asarray(canvas).astype(float)
    rows, columns = (np.flatnonzero((drawn[..., 3] > 8).any(axis=axis)) for axis in (1, 0))
    cut = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    glyph = Glyphs().draw(character, max(cut.shape[:2]))
    assert glyph.shape == cut.shape
    assert (glyph[..., 3] == cut[..., 3]).all()
    assert np.abs(glyph[..., :3] - cut[..., :3] * cut[..., 3:] / 255).max() <= 1


def test_the_apple_is_red() -> None:
    glyph = Glyphs().draw("🍎", 64).astype(float)
    red, green, blue = glyph[20:44, 20:44, :3].mean(axis=(0, 1))
    assert red > 150
    assert max(green, blue) < 90


def test_the_font_draws_the_whole_table_and_no_two_alike() -> None:
    glyphs = Glyphs()
    pictures = {glyphs.draw(emoji.character, 24).tobytes() for emoji in emoji_table()}
    assert len(pictures) == 984
