"""The sources of the operators for a GPU, compiled for a CPU: the arithmetic, the grid and the
checks, all but the launch itself.
"""

import shutil
import subprocess

import pytest

from ppcls_nextvit.ops import building
from support.paths import ROOT

SOURCES = ROOT / "ppcls_nextvit" / "ops" / "cuda"


def build(folder, *flags):
    """Its library in `folder`. Without a compiler the test is skipped."""
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler; apt-get install g++")
    library = folder / "emulated.so"
    sources = [str(SOURCES / f"{name}.cu") for name in ("attention", "deformable")]
    command = [building.compiler_name(), "-std=c++17", "-O1", "-fPIC", "-shared", *flags]
    subprocess.run([*command, "-x", "c++", *sources, "-o", str(library)], check=True)
    return library
