"""`nextvit COMMAND`: every command of the package, as one program."""

import argparse
import importlib
import os
import sys
from typing import Optional, Sequence

from .. import __version__
from .common import imported, program

__all__ = ["COMMANDS", "main"]

ABOUT = "Next-ViT on PaddlePaddle, from a YAML to a deployed model."
COMMANDS = (
    "check",
    "train",
    "eval",
    "infer",
    "explain",
    "export",
    "quantize",
    "convert",
    "reproduce",
    "benchmark",
    "shards",
    "models",
    "weights",
    "configs",
    "build-ops",
)


def parser_for(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of `argv`: all commands by name, and the arguments of the one that is called; to
    ask the others for theirs would import what they work with.
    """
    modules = {
        name: importlib.import_module("." + name.replace("-", "_"), __package__)
        for name in COMMANDS
    }
    texts = {name: module.__doc__ or "" for name, module in modules.items()}
    lines = [f"  {name:10} {text.partition(chr(10))[0]}" for name, text in texts.items()]
    parser = argparse.ArgumentParser(
        prog="nextvit",
        usage="nextvit [-h] [--version] COMMAND ...",
        description="\n".join([f"{ABOUT} Commands:", *lines]),
        epilog="nextvit COMMAND -h shows the options of a command and an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, help=argparse.SUPPRESS)
    called = next((word for word in argv if not word.startswith("-")), None)
    for name, module in modules.items():
        subparser = commands.add_parser(
            name,
            prog=f"nextvit {name}",
            description=texts[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(run=module.run)
        if name == called:
            module.add_arguments(subparser)
    return parser


@program
def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command, by default the one that the program was called with; the exit status."""
    words = imported(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    parser = parser_for(words)
    if not words:
        parser.print_help(sys.stderr)
        return 2
    args = parser.parse_args(words)
    return args.run(args)


def _complete() -> None:
    """Answer a shell that asks how a command line may go on, and end."""
    import argcomplete  # in the environment of a shell that asks so

    argcomplete.autocomplete(parser_for(os.environ["COMP_LINE"].split()[1:]))


if __name__ == "__main__":
    raise SystemExit(main())
