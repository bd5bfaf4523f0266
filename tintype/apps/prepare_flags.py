"""The flags of `tintype prepare`, apart from what it does: `tintype --help` loads no torch."""

import argparse


def add_prepare_flags(command: argparse.ArgumentParser) -> None:
    """All flags of the command."""
    command.add_argument("source", metavar="SOURCE", help="a folder of pictures, of classes, of tar shards, or COCO's")
    command.add_argument(
        "out", metavar="OUT", nargs="?", help="a folder, there or to be made; an interrupted run goes on"
    )
    command.add_argument("--verify", action="store_true", help="check the files of the prepared folder SOURCE instead")
    command.add_argument("--kind", choices=("images", "classes", "coco", "shards"), help="where SOURCE does not tell")
    command.add_argument(
        "--captions",
        choices=("any", "given", "none"),
        default="any",
        help="any: from the file name where there is no other (default); given: not from names; none: not at all",
    )
    command.add_argument("--require-caption", action="store_true", help="leave out pictures without a caption")
    command.add_argument("--table", dest="tables", action="append", default=[], metavar="FILE", help="of captions")
    command.add_argument(
        "--file-column", metavar="NAME", help="of the table: which file (default: file_name and alike)"
    )
    command.add_argument(
        "--caption-column", metavar="NAME", help="of the table: what it shows (default: text, caption …)"
    )
    command.add_argument("--annotations", action="append", default=[], metavar="FILE", help="COCO JSON in SOURCE")
    command.add_argument("--masks", metavar="FOLDER", help="class maps (PNG) with the names of their pictures")
    command.add_argument(
        "--size", type=int, help="resize to that many pixels on the shorter side (default: keep bytes)"
    )
    command.add_argument("--crop", choices=("center", "none"), default="center", help="with --size (default: center)")
    command.add_argument(
        "--format", choices=("png", "webp", "jpg"), default="png", help="of resized pictures (default: png)"
    )
    command.add_argument("--min-size", type=int, default=1, help="leave out pictures with a shorter side")
    command.add_argument("--max-aspect", type=float, help="leave out pictures longer than that many times their width")
    command.add_argument("--max-pixels", type=int, help="leave out larger pictures (default: 89 million)")
    command.add_argument("--shard-size", type=int, default=1000, help="samples in a shard (default: 1000)")
    command.add_argument("--workers", type=int, default=0, help="threads (default: one for each processor)")
    command.add_argument("--json", action="store_true", help="print the report as JSON")
