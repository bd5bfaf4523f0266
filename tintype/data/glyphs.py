"""Pictures of emoji, drawn from the Noto Color Emoji font (SIL Open Font License 1.1; it is not part of tintype)."""

import os
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FONT_PATHS = (
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf",
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/noto-emoji/NotoColorEmoji.ttf",
    "~/.local/share/fonts/NotoColorEmoji.ttf",
    "~/Library/Fonts/NotoColorEmoji.ttf",
    "/Library/Fonts/NotoColorEmoji.ttf",
)
FONT_VARIABLE = "TINTYPE_EMOJI_FONT"
FAMILY = "Noto Color Emoji"
STRIKE = 109  # the only bitmap size in the font, in pixels per em; its glyphs are 136 x 128


def find_font(path: str | None = None) -> Path:
    """The Noto Color Emoji font: `path`, else $TINTYPE_EMOJI_FONT, else the usual places.

    Raises `ValueError` that says how to get the font when it is nowhere.
    """
    given = path or os.environ.get(FONT_VARIABLE)
    for candidate in (given,) if given else FONT_PATHS:
        if (found := Path(os.path.expanduser(candidate))).is_file():
            return found
    where = given or ", ".join(FONT_PATHS)
    raise ValueError(
        f"the Noto Color Emoji font is not at {where}. It draws the training scenes; generating pictures does not "
        "need it. Install it (Debian: apt-get install fonts-noto-color-emoji; Fedora: dnf install "
        "google-noto-color-emoji-fonts; else NotoColorEmoji.ttf from the noto-emoji project) or name the file with "
        f"--font or ${FONT_VARIABLE}."
    )


class Glyphs:
    """Draws emoji cut to their visible pixels; results are cached, so treat the arrays as read-only."""

    def __init__(self, font: str | None = None) -> None:
        self.path = find_font(font)
        try:
            content = BytesIO(self.path.read_bytes())  # given a name, PIL also takes an installed font of that name
            self._font = ImageFont.truetype(content, STRIKE)
        except OSError as error:
            raise self._wrong(f"no {STRIKE}-pixel strike: {error}") from error
        family = self._font.getname()[0]
        if family != FAMILY:
            raise self._wrong(f"its name is {family}")
        if np.ptp(np.asarray(self._draw("🍎"))[..., :3], axis=-1).max() == 0:  # outlines come out in one colour
            raise self._wrong("it has no coloured bitmaps")
        self._full = lru_cache(maxsize=None)(self._draw)
        self.draw = lru_cache(maxsize=40_000)(self._resize)

    def _wrong(self, why: str) -> ValueError:
        return ValueError(
            f"{self.path} is not the bitmap Noto Color Emoji font ({why}); "
            "use NotoColorEmoji.ttf with CBDT bitmaps, as Debian ships it"
        )

    def _draw(self, character: str) -> Image.Image:
        canvas = Image.new("RGBA", (2 * STRIKE, 2 * STRIKE))
        ImageDraw.Draw(canvas).text((20, 20), character, font=self._font, embedded_color=True)
        box = canvas.getchannel("A").point([255 * (alpha > 8) for alpha in range(256)]).getbbox()
        if box is None:
            raise ValueError(f"{self.path} has no picture for {character!r}; use a newer font (2.042 is known to do)")
        return canvas.crop(box).convert("RGBa")  # premultiplied: resizing then leaves no dark fringe

    def _resize(self, character: str, size: int) -> NDArray[np.uint8]:
        """H W 4 premultiplied RGBA whose longer side is `size` pixels."""
        full = self._full(character)
        scale = size / max(full.size)
        width, height = (max(1, round(side * scale)) for side in full.size)
        return np.asarray(full.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=None))
