"""What the tests of the C++ programs share: building them once, and running them."""

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

from .paths import ROOT

PACKAGES = "apt-get install cmake g++ libjpeg-dev libpng-dev libyaml-cpp-dev"


def unavailable(reason, optional=False):
    """Skip the test, or fail it in CI, which installs what is not optional."""
    (pytest.fail if os.environ.get("CI") and not optional else pytest.skip)(f"{reason}; {PACKAGES}")


@functools.cache
def _build(source, *definitions):
    if not shutil.which("cmake") or not shutil.which("c++"):
        return "no CMake or no C++ compiler"
    folder = tempfile.TemporaryDirectory(prefix="build-")
    configure = subprocess.run(
        [
            "cmake",
            "-S",
            ROOT / source,
            "-B",
            folder.name,
            f"-DPython3_EXECUTABLE={sys.executable}",
            *definitions,
        ],
        capture_output=True,
        text=True,
    )
    missing = re.search(
        r"Could NOT find \w+|Could not find a package configuration file provided by\s+\S+",
        configure.stderr,
    )
    if missing:
        return " ".join(missing.group().split())
    assert configure.returncode == 0, configure.stderr
    done = subprocess.run(
        ["cmake", "--build", folder.name, "--parallel", "2"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "warning:" not in done.stderr, done.stderr
    return folder


def build(source, *definitions, optional=False):
    """The folder of the programs that `source`'s CMakeLists.txt builds with these `-D...`, without
    a warning; kept for the session.
    """
    folder = _build(source, *definitions)
    if isinstance(folder, str):
        unavailable(folder, optional)
    return folder.name


def run(*command, **arguments):
    """The finished process of a native program, its stdout and stderr as text (or bytes, with
    text=False).
    """
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        **{"text": True, "timeout": 300, **arguments},
    )
