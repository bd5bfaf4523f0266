"""The flags of `tintype filter`, apart from what it does: `tintype --help` loads no torch."""

import argparse


def add_filter_flags(command: argparse.ArgumentParser) -> None:
    """All flags of the command, filters in the order in which they are applied."""
    command.add_argument("source", metavar="PREPARED", help="a folder of `tintype prepare`")
    command.add_argument("out", metavar="OUT", help="a folder for the selection and its report; nothing is copied")
    command.add_argument("--min-size", type=int, metavar="PIXELS", help="of the shorter side")
    command.add_argument("--max-aspect", type=float, metavar="RATIO", help="of the longer side to the shorter")
    command.add_argument("--min-caption", type=int, metavar="CHARACTERS")
    command.add_argument("--max-caption", type=int, metavar="CHARACTERS")
    command.add_argument("--with-mask", action="store_true", help="keep those that have a mask")
    command.add_argument("--max-watermark", type=float, metavar="P", help="p_watermark of the source's table")
    command.add_argument("--max-unsafe", type=float, metavar="P", help="p_unsafe of the source's table")
    command.add_argument(
        "--min-clip-score", type=float, metavar="COSINE", help="of picture and caption by --clip; LAION: 0.28"
    )
    command.add_argument("--clip", metavar="FILE", help="a CLIP of ours, of transformers or of open_clip")
    command.add_argument("--same-bytes", action="store_true", help="keep one of files that are equal")
    command.add_argument(
        "--duplicates",
        type=int,
        metavar="BITS",
        help="keep the largest of pictures whose perceptual hashes differ by BITS of 64 or less; 4 is usual",
    )
    command.add_argument("--device", help="of CLIP: cpu or cuda (default: cuda where there is one)")
    command.add_argument("--json", action="store_true", help="print the report as JSON")
