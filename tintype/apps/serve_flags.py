"""The flags of `tintype serve`, apart from what it does."""

import argparse


def add_serve_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--host", help="address to bind to; beyond this machine a token is needed (default: 127.0.0.1)"
    )
    command.add_argument("--port", type=int, help="default: 7860")
    command.add_argument("--models", metavar="FOLDER", help="checkpoints that can be asked for, by their names in it")
    command.add_argument("--data", metavar="FOLDER", help="of the queue and the pictures (default: server)")
    command.add_argument(
        "--token", action="append", default=[], metavar="[USER=]TOKEN", help="who asks must know it; or TINTYPE_TOKEN"
    )
    command.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="another name that it is reached by"
    )
    command.add_argument(
        "--allow-frame",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a site that may show the page in a frame, such as https://huggingface.co",
    )
    command.add_argument("--queue", type=int, help="how many jobs may wait (default: 64)")
    command.add_argument("--batch", type=int, help="pictures drawn together at most (default: 4)")
    command.add_argument("--largest", type=int, help="pixels of a picture's longer side at most (default: 2048)")
    command.add_argument("--grace", type=float, help="seconds for the last picture when it stops (default: 30)")
    command.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    command.add_argument("--log-prompts", action="store_true", help="write prompts to the log as well")
