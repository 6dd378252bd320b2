"""The house style that a program can check."""

import subprocess
import sys

from tiny import ROOT


def test_ruff_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "."], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout
