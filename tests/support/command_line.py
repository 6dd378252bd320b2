"""`nextvit` commands, one after the other in a process of their own, so that what they import and
register reaches no other test.
"""

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_commands(folder, *commands):
    """What each command, without `nextvit` before it, prints when run in `folder`. AssertionError
    with its last words for one that fails.
    """
    done = subprocess.run(
        [sys.executable, __file__, *commands],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def main(commands):
    from ppcls_nextvit.cli.main import main as nextvit

    printed = []
    for command in commands:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            status = nextvit(shlex.split(command))
        if status:
            print(text.getvalue(), f"status {status}: {command}")
            return status
        printed.append(text.getvalue())
    print(json.dumps(printed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
