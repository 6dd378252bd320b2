"""Compile the operators that make models faster on a CPU.

    nextvit build-ops --strict

They are kept for this version of Paddle; what is there is not compiled again. Models take them by
themselves. Without a C++ compiler everything works as before, slower. With --cuda, or by itself
where Paddle is one for GPUs and nvcc is there, the operators for GPUs are compiled too, into a
library that no model uses yet: see benchmarks/gpu/.
"""

import argparse
import shutil
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strict", action="store_true", help="end with an error if they cannot be compiled"
    )
    parser.add_argument(
        "--force", action="store_true", help="compile again what has been compiled already"
    )
    parser.add_argument(
        "--cuda", action="store_true", help="compile those for GPUs too, with nvcc (some minutes)"
    )


def run(args: argparse.Namespace) -> int:
    import paddle

    from .. import ops

    try:
        ops.build(force=args.force)
        if args.cuda or (paddle.is_compiled_with_cuda() and shutil.which("nvcc")):
            ops.build_cuda(force=args.force)
    except ops.BuildError as error:
        if args.strict:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(error)
    print(ops.status_line())
    if ops.cuda_library_path().is_file():
        print(f"ops for GPUs: compiled, not used by models ({ops.cuda_library_path()})")
    return 0
