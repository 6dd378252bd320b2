"""The processes that load: how they begin and end, and whether shared memory suffices for them."""

import logging
import os
import signal
import threading
import time
from typing import Any

__all__ = ["end_workers", "fits_shared_memory", "start_worker"]

GRACE_S = 60  # how long a worker outlives a SIGTERM

log = logging.getLogger(__name__)


def start_worker(parent: int, worker: int) -> None:
    """Runs first in a worker process. `parent`: process number of the trainer, with which the
    worker ends.

    Paddle's own watch for a killed parent sits behind a blocking read and never runs (3.3.1).
    Ctrl-C in a terminal and a scheduler's SIGTERM reach workers too. They go on, so that the
    trainer can finish its step, save and end them; a lost worker would end the trainer at once.
    """

    def leave_later(number: int, frame: Any) -> None:
        timer = threading.Timer(GRACE_S, os._exit, [128 + number])
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave_later)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # workers are the parallelism: OpenCV's threads would only compete with them
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(0)


def end_workers(source: Any) -> None:
    """End the workers of an iterator that may not be exhausted. Paddle links the last iterator
    globally, so that it would not do it yet.
    """
    if hasattr(source, "_workers"):
        source._try_shutdown_all(1)
        for worker in source._workers:
            worker.kill()


def fits_shared_memory(needed_bytes: int) -> bool:
    """Whether /dev/shm has room for the batches in flight; containers often give it 64 MB. If not,
    a warning says so.
    """
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return False
    free_bytes = stat.f_bavail * stat.f_frsize
    if free_bytes >= needed_bytes:
        return True
    log.warning(
        "/dev/shm has %d MB free, %d MB may be needed: workers send batches through pipes instead",
        free_bytes >> 20,
        needed_bytes >> 20,
    )
    return False
