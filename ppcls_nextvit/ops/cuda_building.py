"""Compiling the operators for GPUs: a plain library without Paddle, by nvcc.

It holds code for every architecture that nvcc knows. No model uses it by itself: this project has
compiled it and tested its arithmetic on a CPU, but never run it on a GPU. benchmarks/gpu/ is for
that.
"""

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path
from typing import List

from .building import BuildError, cache_folder, kept_library, output_of

__all__ = ["build_cuda", "cuda_architectures", "cuda_library_path", "nvcc_name"]

SOURCES = Path(__file__).with_name("cuda")
LIBRARY = "operators_cuda.so"
FLAGS = ("-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", "--threads", "0")
MINUTES = 40  # a dozen architectures


def cuda_library_path() -> Path:
    """The library of these sources, whether it is there or not."""
    digest = hashlib.sha256()
    for flag in FLAGS:
        digest.update(flag.encode() + b"\0")
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return cache_folder() / f"cuda-{digest.hexdigest()[:16]}" / LIBRARY


def nvcc_name() -> str:
    """CUDA's compiler: $NVCC or nvcc. BuildError if it is not there."""
    name = os.environ.get("NVCC") or "nvcc"
    found = shutil.which(name)
    if not found:
        raise BuildError(f"no CUDA compiler ({name}) is there; install the CUDA toolkit")
    return found


def cuda_architectures(nvcc: str) -> List[str]:
    """The numbers of the architectures that it compiles for: ["75", "80", ...]."""
    found = re.findall(r"^compute_(\w+)$", output_of([nvcc, "--list-gpu-arch"]), re.MULTILINE)
    if not found:
        raise BuildError(f"{nvcc} --list-gpu-arch names no architecture")
    return found


def build_cuda(force: bool = False) -> bool:
    """Compile the operators for GPUs unless they are there, by this compiler, already; whether it
    compiled.

    BuildError says why it could not.
    """
    if not sys.platform.startswith("linux"):
        raise BuildError(f"the operators are for Linux; this is {sys.platform}")
    nvcc = nvcc_name()
    version = output_of([nvcc, "--version"]).strip().rpartition("\n")[2]

    def make(folder: Path) -> Path:
        library = folder / LIBRARY
        codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in cuda_architectures(nvcc)]
        sources = [str(path) for path in sorted(SOURCES.glob("*.cu"))]
        output_of([nvcc, *FLAGS, *codes, *sources, "-o", str(library)], MINUTES)
        return library

    return kept_library(cuda_library_path(), version, force, make)
