"""engine/memory.py: what a process freed is used again."""

import json
import subprocess
import sys

import pytest

from support.paths import ROOT

ARRAYS = """
import json, resource
import paddle
from ppcls_nextvit.engine import distributed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        paddle.full([16 << 20], 1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
distributed.start_processes("cpu")
faults()
print(json.dumps([before, faults()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told")
def test_pages_are_mapped_once():
    """Of arrays of 64 MB, one after the other, once a command of ours has begun."""
    done = subprocess.run(
        [sys.executable, "-c", ARRAYS], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    before, after = json.loads(done.stdout)
    assert after < before / 8, done.stderr
