"""The targets `lite` (ARM CPU), `lite-opencl` (its GPU) and `lite-x86`: a program for Paddle Lite.

    inference.nb     program and weights, for a Paddle Lite of the version that wrote it
    inference.yml    what export.json says, for deploy/lite

Paddle Lite's converter and x86 engine are a wheel for older Pythons, so both run in a process of
that Python. Where others raise, they end by a signal, which only a process of their own survives.
"""

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from .static import describe, save_program
from .target import STEM, Target
from .verify import ExportError

__all__ = ["TARGETS"]

PROGRAM = "paddle_lite_opt"
VARIABLE = "PADDLE_LITE_OPT"
OPTIONS = {
    "fp32": (),
    "fp16": ("--enable_fp16=true",),
    "int8": ("--quant_model=true", "--quant_type=QUANT_INT8"),
}
RUN = """
import sys, numpy
from paddlelite.lite import MobileConfig, create_paddle_predictor
config = MobileConfig()
config.set_model_from_file(sys.argv[1])
predictor = create_paddle_predictor(config)
predictor.get_input(0).from_numpy(numpy.load(sys.argv[2]))
predictor.run()
for index, path in enumerate(sys.argv[3:]):
    numpy.save(path, predictor.get_output(index).numpy())
"""


def converter():
    """The path of Paddle Lite's converter: what the environment variable PADDLE_LITE_OPT names, or
    paddle_lite_opt.

    ImportError without it.
    """
    found = shutil.which(os.environ.get(VARIABLE, PROGRAM))
    if not found:
        raise ImportError(
            "--to lite needs Paddle Lite's converter, a wheel for Python 3.7: python3.7 -m venv "
            "lite && "
            f"lite/bin/pip install paddlelite==2.12 numpy, then {VARIABLE}=lite/bin/{PROGRAM}"
        )
    return found


def write(layer, folder, signature, precision, images, places):
    opt = converter()
    with tempfile.TemporaryDirectory() as work:
        prefix = Path(work) / STEM
        nodes = save_program(layer, prefix, signature, "pdmodel")
        _run(
            [
                opt,
                f"--model_file={prefix}.pdmodel",
                f"--param_file={prefix}.pdiparams",
                f"--optimize_out={folder / STEM}",
                "--optimize_out_type=naive_buffer",
                f"--valid_targets={places}",
                *OPTIONS[precision],
            ],
            "cannot convert this program",
        )
    if not (folder / f"{STEM}.nb").is_file():
        raise ExportError(
            f"{Path(opt).name} reported success and wrote no file; its version may lack an operator"
        )
    return nodes


def load(folder, signature, precision):
    python = Path(converter()).with_name("python")
    with_engine = (
        python.is_file()
        and subprocess.run([python, "-c", "import paddlelite.lite"], capture_output=True).returncode
        == 0
    )
    # a converter without the wheel around it
    if not with_engine:
        return None

    def run(batch):
        with tempfile.TemporaryDirectory() as work:
            (values,), outputs = (
                batch.values(),
                [Path(work) / f"{index}.npy" for index in range(len(signature.outputs))],
            )
            np.save(Path(work) / "input.npy", values)
            _run(
                [python, "-c", RUN, folder / f"{STEM}.nb", Path(work) / "input.npy", *outputs],
                "cannot run what it wrote",
            )
            return {name: np.load(path) for name, path in zip(signature.outputs, outputs)}

    return run


def _run(command, complaint):
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines() or [""]
        raise ExportError(f"Paddle Lite {complaint} (exit status {done.returncode}): {lines[-1]}")


def _cannot_run_here(folder, signature, precision):
    return None


TARGETS = (
    Target(
        "lite",
        ("fp32", "fp16", "int8"),
        functools.partial(write, places="arm"),
        _cannot_run_here,
        calibrates=False,
        describe=describe,
    ),
    Target(
        "lite-opencl",
        ("fp32",),
        functools.partial(write, places="opencl,arm"),
        _cannot_run_here,
        describe=describe,
    ),
    Target(
        "lite-x86",
        ("fp32", "int8"),
        functools.partial(write, places="x86"),
        load,
        calibrates=False,
        describe=describe,
    ),
)
