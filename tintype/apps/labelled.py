"""Pictures in rows and columns, with labels in PIL's own font."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SMALLEST, LARGEST = 12, 40  # of the letters, pixels
LINES = 4  # of a label; more end with …


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where all is, in pixels: the left upper corner of each picture and of each line of text."""

    size: tuple[int, int]
    pictures: tuple[tuple[int, int], ...]
    texts: tuple[tuple[tuple[int, int], str], ...]
    letters: int


def laid_out(across: Sequence[str], down: Sequence[str], blocks: Sequence[str], *, cell: tuple[int, int]) -> Layout:
    """Labels of the columns, the rows and the blocks, each of which has all rows; empty ones take no place.

    cell: width and height of the largest picture; smaller ones keep their size, in the left upper corner.
    """
    letters = min(max(SMALLEST, cell[0] // 20), LARGEST)
    font = ImageFont.load_default(letters)
    line, gap = round(letters * 1.25), letters // 2

    # Sizes: pictures narrower than a label give it room
    width = max(cell[0], 8 * letters if any(across) else 0)
    heads = [wrapped(text, font, width) for text in across]
    sides = [wrapped(text, font, 12 * letters, lines=max(1, cell[1] // line)) for text in down]
    height = max(cell[1], line * max(map(len, sides)))
    left = gap + max((round(font.getlength(one)) + gap for lines in sides for one in lines), default=0)
    right = left + len(across) * (width + gap)
    titles = [wrapped(text, font, right - 2 * gap) for text in blocks]

    # Places
    pictures: list[tuple[int, int]] = []
    texts: list[tuple[tuple[int, int], str]] = []
    columns = [left + number * (width + gap) for number in range(len(across))]
    top = gap
    for title in titles:
        texts += _lines(title, (gap, top), line)
        top += len(title) * line
        for column, head in zip(columns, heads, strict=True):
            texts += _lines(head, (column, top), line)
        top += max(map(len, heads)) * line
        for side in sides:
            texts += _lines(side, (gap, top), line)
            pictures += [(column, top) for column in columns]
            top += height + gap
    return Layout(size=(right, top), pictures=tuple(pictures), texts=tuple(texts), letters=letters)


def _lines(lines: Sequence[str], corner: tuple[int, int], height: int) -> list[tuple[tuple[int, int], str]]:
    return [((corner[0], corner[1] + number * height), text) for number, text in enumerate(lines)]


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, lines: int = LINES) -> list[str]:
    """Lines no wider than this, broken between words where that can be; what is too much is left out, and … said."""
    made = [""]
    for word in text.split():
        if made[-1] and font.getlength(f"{made[-1]} {word}") <= width:
            made[-1] += f" {word}"
            continue
        made += [""] if made[-1] else []
        for letter in word:
            if made[-1] and font.getlength(made[-1] + letter) > width:
                made.append("")
            made[-1] += letter
            if len(made) > lines:
                return [*made[: lines - 1], _cut(made[lines - 1], font, width)]
    return made if made[-1] else []


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def drawn(layout: Layout, pictures: Iterable[Image.Image]) -> Image.Image:
    """Fewer pictures than there are places leave the last ones empty."""
    sheet = Image.new("RGB", layout.size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(layout.letters)
    for corner, text in layout.texts:
        draw.text(corner, text, fill="black", font=font)
    for corner, picture in zip(layout.pictures, pictures, strict=False):
        sheet.paste(picture, corner)
    return sheet
