"""A training in a process of its own, which a test may kill: forked from one that has imported
Paddle, so that a try takes a second.
"""

import multiprocessing
import os
import sys

from ppcls_nextvit.tasks import load_config, train


def _train(path, overrides, log):
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(train(load_config(path, overrides)))


def started(path, overrides=()):
    """The Process, with its output in `log` beside the configuration."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ppcls_nextvit.tasks"])
    process = context.Process(target=_train, args=(path, overrides, path.parent / "log"))
    process.start()
    return process
