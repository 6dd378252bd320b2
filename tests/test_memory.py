"""data/memory.py: what a process freed is used again, and is not kept by those that it forks."""

import json
import subprocess
import sys

import pytest

from support.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told")
HELPERS = """
import json, resource
from pathlib import Path
import paddle
from ppcls_nextvit.data.workers import Workers
from ppcls_nextvit.engine import distributed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        paddle.full([16 << 20], 1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def anonymous_kb():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
"""


def told(lines):
    """What a process printed in which these lines ran."""
    done = subprocess.run(
        [sys.executable, "-c", HELPERS + lines],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_pages_are_mapped_once():
    """Of arrays of 64 MB, one after the other, once a command of ours has begun."""
    before, after = told("""
before = faults()
distributed.start_processes("cpu")
faults()
print(json.dumps([before, faults()]))
""")
    assert after < before / 8


def test_workers_do_not_keep_what_the_trainer_freed():
    kept, shared = told("""
distributed.start_processes("cpu")
faults()
kept = anonymous_kb()
workers = Workers(lambda number, memory: {"kb": anonymous_kb()}, 1, 1, 1, 0)
print(json.dumps([kept, workers.take()["kb"]]))
""")
    assert shared < kept - 32 * 1024  # of the 64 MB
