"""Run a program of a suite with Next-ViT registered: `python -m ppcls_nextvit.hosts paddleclas
tools/train.py -c my.yaml`.

In the suite's checkout, or with it on PYTHONPATH; what follows the program is the program's.
"""

import argparse
import importlib
import os
import runpy
import sys

from ..cli.common import program


@program
def register(suite) -> int:
    importlib.import_module(f"ppcls_nextvit.hosts.{suite}").register()
    return 0


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ppcls_nextvit.hosts", description=__doc__)
    parser.add_argument("suite", choices=("paddleclas", "paddledet", "paddleseg"))
    parser.add_argument("program", help="a program of the suite, e.g. tools/train.py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    if not os.path.isfile(args.program):
        parser.error(f"{args.program}: no such file")
    if register(args.suite):
        return 1
    sys.argv = [args.program, *args.arguments]
    runpy.run_path(args.program, run_name="__main__")  # its errors are its own
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
