"""Every task of the embedded models by its command line: docs/gallery.png, docs/gallery.md, and the seconds of each.

    make gallery     # or: .venv/bin/python benchmarks/gallery.py

Commands run as a user's would, one after another in a fresh folder, each a process of its own. Exits with 1 where one
fails, or takes longer than 10 seconds (`--seconds`).
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).parents[1] / "docs"
BOXES = (
    '--box "sunflower:0,0,0.5,0.5" --box "frog:0.5,0,1,0.5" --box "soccer ball:0,0.5,0.5,1" --box "star:0.5,0.5,1,1"'
)
HEIGHT, WIDTH, LETTERS = 128, 1100, 14  # of a picture, of the gallery, of a title: pixels


@dataclass(frozen=True, slots=True)
class Shown:
    """A task: its title, the arguments of `tintype`, and the pictures that it reads and makes."""

    title: str
    command: str
    inputs: tuple[str, ...]
    output: str


GALLERY = (
    Shown("text", 'txt2img "a red apple on a sky blue background" --seed 7 -o apple.png', (), "apple.png"),
    Shown(
        "img2img",
        'img2img "a green apple on a yellow background" -i apple.png --strength 0.8 --seed 1 -o green.png',
        ("apple.png",),
        "green.png",
    ),
    Shown(
        "inpaint",
        'inpaint "a frog on a sky blue background" -i apple.png --mask mask.png --seed 3 -o frog.png',
        ("apple.png", "mask.png"),
        "frog.png",
    ),
    Shown(
        "outpaint",
        'outpaint "a red apple on a sky blue background" -i apple.png --left 32 --right 32 --seed 1 -o wide.png',
        ("apple.png",),
        "wide.png",
    ),
    Shown("boxes", f"layout2img {BOXES} --seed 1 -o boxes.png", (), "boxes.png"),
    Shown("class", 'class2img "panda" --seed 3 -o panda.png', (), "panda.png"),
    Shown("unconditional", "sample --seed 4 -o sample.png", (), "sample.png"),
    Shown("upscale", "upscale -i apple.png --seed 1 -o large.png", ("apple.png",), "large.png"),
    Shown(
        "variations",
        'sheet "a frog on a pink background" --seed 7 --variation-seed 3 --x variation_strength=0,0.4,0.8 -o near.png',
        (),
        "near.png",
    ),
    Shown(
        "prompt travel",
        'travel "a red apple on a sky blue background" "a frog on a pink background" --frames 5 --seed 7 -o way',
        (),
        "way",
    ),
    Shown(
        "panorama",
        'txt2img "a frog on a green background" -W 160 -H 64 --window 64 --steps 12 --seed 5 -o panorama.png',
        (),
        "panorama.png",
    ),
    Shown(
        "texture, twice each way",
        'txt2img "a sunflower on a teal background" --tiling --seed 3 -o texture.png',
        (),
        "texture.png",
    ),
    Shown(
        "sheet",
        'sheet "a frog on a pink background" --seed 7 --x cfg_scale=1,3 --y "steps=5,25" -o sheet.png',
        (),
        "sheet.png",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="that a command may take (default: 10)")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of gallery.png and gallery.md (default: docs)")
    arguments = parser.parse_args()
    cells: list[Image.Image] = []
    slow: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mask = Image.new("L", (64, 64))
        ImageDraw.Draw(mask).rectangle((0, 0, 51, 51), fill=255)
        mask.save(folder / "mask.png")
        for one in GALLERY:
            started = time.perf_counter()
            told = [sys.executable, "-m", "tintype", *shlex.split(one.command)]
            ended = subprocess.run(told, cwd=folder, capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - started
            print(f"{seconds:5.1f} s  tintype {one.command}", flush=True)
            if ended.returncode:
                print(ended.stderr, file=sys.stderr)
                return 1
            if seconds > arguments.seconds:
                slow.append(one.title)
            cells.append(cell(one, folder))
    whole = stacked(cells)
    arguments.out.mkdir(parents=True, exist_ok=True)
    whole.quantize(256, dither=Image.Dither.NONE).save(arguments.out / "gallery.png", optimize=True)
    (arguments.out / "gallery.md").write_text(page())
    print(arguments.out / "gallery.png")
    if slow:
        print(f"longer than {arguments.seconds:g} s: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


def page() -> str:
    commands = "\n".join(f"tintype {one.command}" for one in GALLERY)
    return (
        "# What the embedded models do\n\n"
        "Made by `make gallery`, which runs these commands, one after another; `mask.png` is white where the frog "
        "comes. What a task begins with stands before an arrow.\n\n"
        f"![every task of the embedded models](gallery.png)\n\n```sh\n{commands}\n```\n"
    )


def cell(one: Shown, folder: Path) -> Image.Image:
    """The task's pictures side by side under its title; those that it begins with before an arrow."""
    made = folder / one.output
    files = sorted(made.glob("*.png")) if made.is_dir() else [made]
    before, after = [shown(folder / name) for name in one.inputs], [shown(file) for file in files]
    if one.title.startswith("texture"):
        after = [twice(after[0])]
    pictures = [*before, *([arrow()] if before else []), *after]
    font = ImageFont.load_default(LETTERS)
    width = max(sum(picture.width + 6 for picture in pictures), round(font.getlength(one.title)))
    whole = Image.new("RGB", (width, max(picture.height for picture in pictures) + 24), "white")
    ImageDraw.Draw(whole).text((0, 2), one.title, fill="black", font=font)
    left = 0
    for picture in pictures:
        whole.paste(picture, (left, 22))
        left += picture.width + 6
    return whole


def shown(path: Path) -> Image.Image:
    """As high as all are, enlarged without smoothing; sheets, which have labels, as they are."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if picture.height not in (64, 128):
        return picture
    return picture.resize((picture.width * HEIGHT // picture.height, HEIGHT), Image.Resampling.NEAREST)


def twice(picture: Image.Image) -> Image.Image:
    small = picture.resize((HEIGHT // 2, HEIGHT // 2))
    whole = Image.new("RGB", (HEIGHT, HEIGHT))
    for place in ((0, 0), (1, 0), (0, 1), (1, 1)):
        whole.paste(small, (place[0] * small.width, place[1] * small.height))
    return whole


def arrow() -> Image.Image:
    drawn, middle = Image.new("RGB", (24, HEIGHT), "white"), HEIGHT // 2
    pen = ImageDraw.Draw(drawn)
    pen.line((2, middle, 21, middle), fill="black", width=2)
    pen.line((15, middle - 6, 21, middle, 15, middle + 6), fill="black", width=2)
    return drawn


def stacked(cells: list[Image.Image]) -> Image.Image:
    """From left to right, in rows as long as they may be."""
    rows: list[list[Image.Image]] = [[]]
    for one in cells:
        if rows[-1] and sum(other.width + 20 for other in (*rows[-1], one)) > WIDTH:
            rows.append([])
        rows[-1].append(one)
    heights = [max(one.height for one in row) + 12 for row in rows]
    whole = Image.new("RGB", (WIDTH, sum(heights)), "white")
    for number, row in enumerate(rows):
        left = 12
        for one in row:
            whole.paste(one, (left, sum(heights[:number]) + 6))
            left += one.width + 20
    return whole


if __name__ == "__main__":
    sys.exit(main())
