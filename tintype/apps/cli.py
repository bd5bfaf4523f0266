"""The command line. `tintype --help` loads no torch: each command imports what it needs when it runs.

Exit codes: 0 done, 1 failed, 2 wrong usage (bad flags or values a request, model or recipe refuses), 130 interrupted.
"""

import argparse
import dataclasses
import logging
import os
import sys
import types
import typing
from collections.abc import Sequence

from tintype.apps.evaluate_flags import add_eval_flags
from tintype.apps.filter_flags import add_filter_flags
from tintype.apps.latents_flags import add_latents_flags
from tintype.apps.prepare_flags import add_prepare_flags
from tintype.apps.serve_flags import add_serve_flags
from tintype.tasks.request import LAID_OUT, MODELS, TASKS, Request, takes

MODEL = "an embedded model's name, a .safetensors or .ckpt file, a folder, or a hub name"
FIRST: dict[str, str | None] = {
    "class2img": "label",
    "map2img": None,
    "sample": None,
}  # what comes first, where it is no prompt
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def build_parser() -> argparse.ArgumentParser:
    """All commands. Those of a task get their flags from `Request`."""
    parser = argparse.ArgumentParser(
        prog="tintype", description="Latent diffusion: make pictures, train models, measure them."
    )
    from tintype import __version__

    parser.add_argument("--version", action="version", version=f"tintype {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    for task, help in TASKS.items():
        add_task_flags(commands.add_parser(task, help=help), task)
    add_travel_flags(commands.add_parser("travel", help="frames from prompt to prompt, and from seed to seed"))
    add_sheet_flags(commands.add_parser("sheet", help="pictures side by side, any fields of a request along its axes"))
    add_prepare_flags(commands.add_parser("prepare", help="make a data set to train on from pictures, with a report"))
    add_filter_flags(commands.add_parser("filter", help="select what of a prepared data set is worth training on"))
    add_latents_flags(commands.add_parser("latents", help="encode a prepared data set once, for all training steps"))

    command = commands.add_parser("train", help="run a recipe, or go on with it")
    command.add_argument("recipe", help="a recipe's name; `tintype train list` names them")
    command.add_argument("--out", help="folder of the run (default: runs/RECIPE)")
    command.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the recipe, such as train.steps=100, as often as needed; --show prints all of them",
    )
    command.add_argument("--font", help="the Noto Color Emoji font, where it is not found by itself")
    command.add_argument("--show", action="store_true", help="print the recipe as JSON and stop")

    add_eval_flags(commands.add_parser("eval", help="measure pictures, models, autoencoders, CLIPs"))

    add_serve_flags(commands.add_parser("serve", help="answer others: a page, and the interfaces that programs know"))

    command = commands.add_parser("info", help="what a model is")
    command.add_argument("model", nargs="?", default="default", help=MODEL)
    add_loading_flags(command)
    command.add_argument("--json", action="store_true")

    command = commands.add_parser("convert", help="write a checkpoint in another layout")
    command.add_argument("source", help=MODEL)
    command.add_argument("target", help="a .safetensors file (LDM's layout), or a folder (diffusers' layout)")
    command.add_argument("--layout", choices=["single", "diffusers", "tintype"], help="where the name does not say")
    add_loading_flags(command)
    command.add_argument("--json", action="store_true")

    command = commands.add_parser("tokens", help="how a prompt is understood: tokens, weights, chunks, phases")
    command.add_argument("prompt", metavar="PROMPT")
    command.add_argument("-m", "--model", help="whose towers read it (default: CLIP's vocabulary, no model)")
    command.add_argument("--prompt-style", choices=("a1111", "plain"), default="a1111")
    command.add_argument("--steps", type=int, default=20, help="of which schedules are shares (default: 20)")
    command.add_argument("--json", action="store_true")

    command = commands.add_parser("samplers", help="names for --sampler and --scheduler")
    command.add_argument("--json", action="store_true")

    command = commands.add_parser("doctor", help="check this installation")
    command.add_argument("--json", action="store_true")
    return parser


def add_task_flags(command: argparse.ArgumentParser, task: str) -> None:
    """What is shown, by which model, and where the picture goes."""
    first = FIRST.get(task, "prompt")
    if first is not None:
        command.add_argument("first", nargs="?", metavar=first.upper(), help=_help_of(first))
    command.set_defaults(task=task, first_field=first)
    add_request_flags(command, task)
    if task in LAID_OUT:
        command.add_argument("--layout", metavar="FILE", help='boxes as JSON: [{"name": …, "box": [l, t, r, b]}, …]')
    command.add_argument("-m", "--model", help=f"{MODEL} (default: {MODELS.get(task, 'default')})")
    add_loading_flags(command)
    command.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    command.add_argument("-o", "--output", help="a .png file, replaced if it is there, or a folder (default: outputs)")
    command.add_argument("--from", dest="source", metavar="PNG", help="repeat a picture of ours, byte for byte")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")


def add_travel_flags(command: argparse.ArgumentParser) -> None:
    """Those of txt2img, but for several prompts and seeds."""
    command.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to show, from the first to the last")
    command.add_argument("--frames", type=int, default=16, help="pictures, both ends counted (default: 16)")
    command.add_argument("--seeds", metavar="A,B,…", help="whose noise to go through (default: --seed alone)")
    command.add_argument("--fps", type=int, default=8, help="frames a second of a .gif or .webp (default: 8)")
    own = (
        "prompt",
        "batch_size",
        "variation_seed",
        "variation_strength",
        "hires_scale",
        "hires_strength",
        "hires_steps",
    )
    add_request_flags(command, "txt2img", without=own)
    command.add_argument("-m", "--model", default="default", help=f"{MODEL} (default: default)")
    add_loading_flags(command)
    command.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    command.add_argument("-o", "--output", required=True, help="a folder for numbered PNGs, or a .gif or .webp file")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a sentence")


def add_sheet_flags(command: argparse.ArgumentParser) -> None:
    """Those of every task, and the axes."""
    command.add_argument("prompt", nargs="?", metavar="PROMPT", help=_help_of("prompt"))
    command.add_argument("--task", choices=tuple(TASKS), help="of every cell (default: txt2img)")
    for side, place in (("x", "columns"), ("y", "rows"), ("z", "blocks")):
        command.add_argument(
            f"--{side}",
            action="append",
            default=[],
            metavar="FIELD=A,B,…",
            help=f"{place}: a field of a request and its values; prompt S/R replaces the first value by each",
        )
    add_request_flags(command, None, without=("prompt",))
    command.add_argument("-m", "--model", help=f"{MODEL} (default: default)")
    add_loading_flags(command)
    command.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    command.add_argument(
        "-o",
        "--output",
        required=True,
        help="a .png file, replaced if it is there; its cells go into a folder beside it",
    )
    command.add_argument("--from", dest="source", metavar="PNG", help="repeat a sheet of ours, byte for byte")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a sentence")


def add_loading_flags(parser: argparse.ArgumentParser) -> None:
    """How a checkpoint is to be opened."""
    parser.add_argument("--prediction", help="eps or v, for a file that does not tell (SD 2.x)")
    parser.add_argument("--vae", metavar="PATH", help="an autoencoder instead of the model's own")
    parser.add_argument("--variant", help="of the weights in a diffusers folder, such as fp16")
    parser.add_argument("--dtype", help="float32, float16 or bfloat16 (default: float32; convert: as it is)")


def _help_of(name: str) -> str:
    return next(field.metadata["help"] for field in dataclasses.fields(Request) if field.name == name)


def add_request_flags(parser: argparse.ArgumentParser, task: str | None, *, without: Sequence[str] = ()) -> None:
    """One flag for each field of `Request` that the task takes; without a task, for each."""
    hints = typing.get_type_hints(Request)
    for field in dataclasses.fields(Request):
        if field.name in ("task", *without) or (task is not None and not takes(task, field)):
            continue
        flags: tuple[str, ...] = (*field.metadata["flags"], "--" + field.name.replace("_", "-"))
        help: str = field.metadata["help"]
        if typing.get_origin(hints[field.name]) is typing.Literal:
            parser.add_argument(*flags, dest=field.name, choices=typing.get_args(hints[field.name]), help=help)
        elif typing.get_origin(hints[field.name]) is tuple:  # given once for each
            parser.add_argument(*field.metadata["flags"], dest=field.name, action=Several, help=help)
        elif hints[field.name] is bool:
            parser.add_argument(*flags, dest=field.name, action="store_true", default=None, help=help)
        else:
            parser.add_argument(*flags, dest=field.name, type=_scalar(hints[field.name]), help=help)


class Several(argparse.Action):
    """Values of a flag that is given once for each, as the tuple that a request holds."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, (*(getattr(namespace, self.dest) or ()), values))


def _scalar(hint: object) -> type[int] | type[float] | type[str]:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next(kind for kind in (int, float, str) if kind in kinds)


def serve(arguments: argparse.Namespace) -> int:
    try:
        from tintype.apps.serve import serve
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed; expected the server's packages: pip install 'tintype[serve]'"
        ) from error
    return serve(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the entry point of `tintype`."""
    parsed = build_parser().parse_args(arguments)
    level = logging.ERROR if getattr(parsed, "json", False) else logging.WARNING  # JSON carries its own warnings
    logging.addLevelName(logging.WARNING, "warning")
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s")
    try:
        if parsed.command == "tokens":  # needs no torch
            from tintype.apps.tokens import tokens

            return tokens(parsed)
        if parsed.command == "serve":  # torch comes behind the page
            return serve(parsed)
        from tintype.apps import commands

        code = commands.COMMANDS[parsed.command](parsed)
        sys.stdout.flush()
        return code
    except ValueError as error:
        print(f"tintype {parsed.command}: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # whoever read our output had enough of it; what was to be written is written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (OSError, FloatingPointError, MemoryError) as error:
        print(f"tintype {parsed.command}: {str(error) or type(error).__name__}", file=sys.stderr)
        return FAILED
    except RuntimeError as error:
        if not any(words in str(error) for words in ("out of memory", "can't allocate memory")):
            raise
        less = "a smaller train.batch_size" if parsed.command == "train" else "smaller or fewer pictures"
        print(f"tintype {parsed.command}: not enough memory; ask for {less}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as interrupt:
        print(f"tintype {parsed.command}: {' '.join(['stopped', *map(str, interrupt.args)])}", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
