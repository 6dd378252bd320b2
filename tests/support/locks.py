"""Locks of other processes."""

import contextlib
import subprocess
import sys

HOLD = """
import sys, time
from ppcls_nextvit.engine.lock import FileLock
with FileLock(sys.argv[1]):
    print("mine", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextlib.contextmanager
def held(path, seconds=99):
    """Another process that has the lock of `path` for so long, or until the end of the block."""
    command = [sys.executable, "-c", HOLD, str(path), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "mine\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
