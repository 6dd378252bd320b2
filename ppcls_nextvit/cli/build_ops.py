"""Compile the operators that make TransNeXt faster on a CPU.

    nextvit build-ops --strict

They are kept for this version of Paddle; what is there is not compiled again. Models take them by
themselves. Without a C++ compiler everything works as before, slower.
"""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strict", action="store_true", help="end with an error if they cannot be compiled"
    )
    parser.add_argument(
        "--force", action="store_true", help="compile again what has been compiled already"
    )


def run(args: argparse.Namespace) -> int:
    from .. import ops

    try:
        ops.build(force=args.force)
    except ops.BuildError as error:
        if args.strict:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(error)
    print(ops.status_line())
    return 0
