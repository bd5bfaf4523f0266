"""The flags of `tintype latents`, apart from what it does: `tintype --help` loads no torch."""

import argparse


def add_latents_flags(command: argparse.ArgumentParser) -> None:
    """All flags of the command."""
    command.add_argument("source", metavar="SOURCE", help="a folder of `tintype prepare` or `tintype filter`")
    command.add_argument(
        "out", metavar="OUT", nargs="?", help="a folder, there or to be made; what was stopped goes on"
    )
    command.add_argument("--verify", action="store_true", help="check the shards of the latents in SOURCE instead")
    command.add_argument("-m", "--model", help="whose autoencoder encodes: a model, or an autoencoder's file or folder")
    command.add_argument(
        "--buckets",
        type=int,
        metavar="SIDE",
        help="scale and cut each picture to the size nearest its aspect ratio, of at most SIDE x SIDE pixels "
        "(default: as prepared)",
    )
    command.add_argument("--multiple", type=int, default=64, help="of both sides of a bucket (default: 64)")
    command.add_argument("--max-aspect", type=float, default=2.0, help="of a bucket (default: 2)")
    command.add_argument("--mirrored", action="store_true", help="store those of the mirrored pictures as well")
    command.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="(default: float16)")
    command.add_argument("--batch-size", type=int, default=16, help="pictures encoded at once (default: 16)")
    command.add_argument("--workers", type=int, default=2, help="threads that read pictures (default: 2)")
    command.add_argument("--shard-mib", type=int, default=16, help="size of a shard in MiB, at most (default: 16)")
    command.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
