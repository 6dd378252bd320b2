"""The compiled operators, built once for all tests (they stay for the next run), and what their
tests share.
"""

import contextlib
import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppcls_nextvit import ops
from ppcls_nextvit.ops import building, loading

from .goldens import max_difference
from .paths import ROOT


def require_ops():
    """Build and load them. Without a compiler the test is skipped."""
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler; apt-get install g++")
    building.build()
    # another test may have asked before they were there
    loading._failure.cache_clear()
    assert loading.is_loaded(), loading.status_line()


def require_onednn():
    """The same, and those by oneDNN among them."""
    require_ops()
    if not ops.has_onednn():
        pytest.skip(f"this Paddle is built without {building.ONEDNN}")


def result_and_gradients(function, arrays, settings, dtype="float32", still=()):
    """What it gives of the arrays as tensors, and their gradients of a weighted sum of that. still:
    the numbers of those that want none.
    """
    tensors = [
        paddle.to_tensor(array.astype(dtype), stop_gradient=number in still)
        for number, array in enumerate(arrays)
    ]
    out = function(*tensors, **settings)
    (out * paddle.cos(paddle.arange(out.size, dtype=dtype)).reshape(out.shape)).sum().backward()
    return [out, *(x.grad for x in tensors)]


def differences(found, expected):
    """The largest of each tensor, as a share of its scale."""
    pairs = [(a.numpy(), b.numpy()) for a, b in zip(found, expected, strict=True)]
    return [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs]


def check_frozen(function, arrays, settings, still):
    """Those of the numbers `still` get no gradient, the rest its own."""
    whole = result_and_gradients(function, arrays, settings)[1:]
    found = result_and_gradients(function, arrays, settings, still=still)[1:]
    for number, (grad, expected) in enumerate(zip(found, whole, strict=True)):
        assert grad is None if number in still else max_difference(grad, expected) == 0


@contextlib.contextmanager
def openmp_threads(number):
    """So many threads within the block, in the OpenMP that Paddle has loaded."""
    library = Path(paddle.sysconfig.get_lib()) / building.OPENMP
    if not library.is_file():
        pytest.skip(f"this Paddle is built without {building.OPENMP}")
    openmp = ctypes.CDLL(str(library))
    before = openmp.omp_get_max_threads()
    openmp.omp_set_num_threads(number)
    try:
        yield
    finally:
        openmp.omp_set_num_threads(before)


def run_onednn_check(name, folder):
    """What tests/native/NAME.cpp prints, compiled with the sources on oneDNN and sanitizers."""
    sources = ROOT / "ppcls_nextvit" / "ops" / "src"
    program = folder / name
    command = [building.compiler_name(), "-std=c++17", "-O1", "-g", "-fopenmp", "-w"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    command += [f"-I{sources}", f"-I{sources / 'onednn'}"]
    command += map(str, sorted((sources / "onednn").glob("*.cpp")))
    command += [str(ROOT / "tests" / "native" / f"{name}.cpp"), "-o", str(program)]
    libraries = paddle.sysconfig.get_lib()
    command += [f"-L{libraries}", f"-l:{building.ONEDNN}", f"-Wl,-rpath,{libraries}"]
    subprocess.run(command, check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
