"""One picture of many, for people: rows with a title each."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from tintype.data.samples import Sample
from tintype.evaluation.pictures import Pictures

SIDE, GAP, TITLE = 128, 4, 20
COLUMNS = 8


def spread(pictures: Pictures, count: int) -> list[Sample]:
    """`count` of them (or all), evenly spaced."""
    total = len(pictures)
    places = sorted({number * total // count for number in range(count)})
    return [pictures.batch(place, 1)[0] for place in places]


def contact_sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """Each row: its title, and pictures below it in lines of eight; smaller ones are enlarged without smoothing."""
    heights = [TITLE + -(-len(pictures) // COLUMNS) * (SIDE + GAP) for _, pictures in rows]
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP), sum(heights)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    top = 0
    for (title, pictures), height in zip(rows, heights, strict=True):
        draw.text((2, top + 3), title, fill="black", font=font)
        for number, picture in enumerate(pictures):
            line, column = divmod(number, COLUMNS)
            sheet.paste(_thumbnail(picture), (column * (SIDE + GAP), top + TITLE + line * (SIDE + GAP)))
        top += height
    return sheet


def pictures_of(samples: Sequence[Sample]) -> list[Image.Image]:
    """Those of the samples that have one."""
    return [Image.fromarray(sample.picture) for sample in samples if sample.picture is not None]


def _thumbnail(picture: Image.Image) -> Image.Image:
    scale = SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
