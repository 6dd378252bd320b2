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
from typing import Any, Callable, Dict, Iterable, List, Optional

import numpy as np

from .static import describe, save_program
from .target import STEM, Target
from .verify import Batch, ExportError, Program, Signature

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


def converter() -> str:
    """The path of Paddle Lite's converter: what the environment variable PADDLE_LITE_OPT names, or
    paddle_lite_opt.

    ImportError without it.
    """
    found = shutil.which(os.environ.get(VARIABLE, PROGRAM))
    if not found:
        raise ImportError(
            "--to lite needs Paddle Lite's converter, a wheel for Python 3.7: python3.7 -m venv "
            "lite && lite/bin/pip install paddlelite==2.12 numpy, then "
            f"{VARIABLE}=lite/bin/{PROGRAM}"
        )
    return found


def write(
    layer: Callable,
    folder: Path,
    signature: Signature,
    precision: str,
    images: Iterable[np.ndarray],
    places: str,
) -> int:
    """inference.nb in `folder`; returns the number of operators. See Target.

    places: where it runs, in the words of Paddle Lite's converter.
    """
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


def load(folder: Path, signature: Signature, precision: str) -> Optional[Program]:
    """inference.nb in `folder` as a program (see verify.py), run by Paddle Lite for x86. None for a
    converter without the wheel around it.
    """
    python = Path(converter()).with_name("python")
    imports_engine = [str(python), "-c", "import paddlelite.lite"]
    if not python.is_file() or subprocess.run(imports_engine, capture_output=True).returncode:
        return None

    def run(batch: Batch) -> Dict[str, np.ndarray]:
        (values,) = batch.values()
        with tempfile.TemporaryDirectory() as work:
            given = Path(work) / "input.npy"
            outputs = [Path(work) / f"{index}.npy" for index in range(len(signature.outputs))]
            np.save(given, values)
            command = [python, "-c", RUN, folder / f"{STEM}.nb", given, *outputs]
            _run(command, "cannot run what it wrote")
            return {name: np.load(path) for name, path in zip(signature.outputs, outputs)}

    return run


def _run(command: List[Any], complaint: str) -> None:
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


def _cannot_run_here(folder: Path, signature: Signature, precision: str) -> None:
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
