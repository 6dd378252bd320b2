"""Run a program of a suite with our models registered: `python -m ppcls_nextvit.hosts paddleclas
tools/train.py -c my.yaml`.

In the suite's checkout, or with it on PYTHONPATH; what follows the program is the program's. What
it reads by paddle.load, checkpoints above all, is read by the package's own reader: no code of it
runs. PaddleX is a program itself: `python -m ppcls_nextvit.hosts paddlex --pipeline my.yaml ...`.
"""

import argparse
import os
import runpy
import sys
from typing import List, Optional, Sequence

from ..cli.common import add_imports, program
from ..tasks import import_parts
from . import paddleclas, paddledet, paddleseg, paddlex
from .safety import safe_checkpoints

SUITES = {
    "paddleclas": paddleclas,
    "paddledet": paddledet,
    "paddleseg": paddleseg,
    "paddlex": paddlex,
}
COMMAND = "paddlex"  # the suite that is a command, not a folder of programs


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Register, then run the program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ppcls_nextvit.hosts", description=__doc__)
    add_imports(parser)
    parser.add_argument("suite", choices=tuple(SUITES))
    parser.add_argument(
        "program",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="a program of the suite, e.g. tools/train.py, and its arguments; of paddlex those of "
        "the command itself",
    )
    args = parser.parse_args(argv)
    words: List[str] = args.program
    if args.suite != COMMAND and not (words and os.path.isfile(words[0])):
        parser.error(f"{words[0]}: no such file" if words else "name a program of the suite")

    @program
    def register(_: Optional[Sequence[str]] = None) -> int:
        import_parts(args.imports)
        SUITES[args.suite].register()
        return 0

    if status := register(None):
        return status
    with safe_checkpoints():  # errors of the program are its own
        if args.suite == COMMAND:
            sys.argv = [COMMAND, *words]
            runpy.run_module(COMMAND, run_name="__main__")
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
