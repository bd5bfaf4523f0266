"""Pictures of pictures: what a run looks like."""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

SHOWN = 10_000_000  # index of the first scene on the sheets; training never gets there


def to_picture(image: Tensor) -> Image.Image:
    """3 H W in [-1, 1] (clamped) -> RGB picture."""
    levels = (image.float().clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(1, 2, 0)
    return Image.fromarray(levels.cpu().numpy())


def sheet(pictures: Sequence[Image.Image], *, columns: int, scale: int = 1) -> Image.Image:
    """Equal pictures in rows, two pixels apart, enlarged `scale` times without smoothing."""
    width, height = (side * scale for side in pictures[0].size)
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * (width + 2), rows * (height + 2)), "white")
    for number, picture in enumerate(pictures):
        place = (number % columns * (width + 2), number // columns * (height + 2))
        whole.paste(picture.resize((width, height), Image.Resampling.NEAREST), place)
    return whole


def side_by_side(image: Tensor, decoded: Tensor, *, scale: int = 1) -> Image.Image:
    """Rows of up to eight pictures (B 3 H W in [-1, 1]), each above a row of their reconstructions."""
    columns = min(8, len(image))
    rows = [
        [to_picture(one) for one in some]
        for pair in zip(image.split(columns), decoded.split(columns), strict=True)
        for some in pair
    ]
    blank = Image.new("RGB", rows[0][0].size, "white")
    return sheet([one for row in rows for one in (*row, *[blank] * (columns - len(row)))], columns=columns, scale=scale)
