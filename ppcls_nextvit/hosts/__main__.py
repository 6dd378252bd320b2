"""Run a program of a suite with our models registered: `python -m ppcls_nextvit.hosts paddleclas
tools/train.py -c my.yaml`.

In the suite's checkout, or with it on PYTHONPATH; what follows the program is the program's. What
it reads by paddle.load, checkpoints above all, is read by the package's own reader: no code of it
runs.
"""

import argparse
import os
import runpy
import sys
from typing import Optional, Sequence

from ..cli.common import add_imports, program
from ..tasks import import_parts
from . import paddleclas, paddledet, paddleseg
from .safety import safe_checkpoints

SUITES = {"paddleclas": paddleclas, "paddledet": paddledet, "paddleseg": paddleseg}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Register, then run the program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ppcls_nextvit.hosts", description=__doc__)
    add_imports(parser)
    parser.add_argument("suite", choices=tuple(SUITES))
    parser.add_argument("program", help="a program of the suite, e.g. tools/train.py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    if not os.path.isfile(args.program):
        parser.error(f"{args.program}: no such file")

    @program
    def register(_: Optional[Sequence[str]] = None) -> int:
        import_parts(args.imports)
        SUITES[args.suite].register()
        return 0

    if status := register(None):
        return status
    sys.argv = [args.program, *args.arguments]
    with safe_checkpoints():
        runpy.run_path(args.program, run_name="__main__")  # its errors are its own
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
