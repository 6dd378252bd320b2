"""The processes that load: how they begin and end, what happened to one that is lost, and whether
shared memory suffices for them.
"""

import gc
import logging
import os
import signal
import threading
import time
from typing import Any, Optional

import paddle

__all__ = [
    "LostWorkerError",
    "WorkerWatch",
    "end_workers",
    "fits_shared_memory",
    "local_processes",
    "start_worker",
]

GRACE_S = 60  # how long a worker outlives a SIGTERM
WATCH_S = 1.0  # how often it is looked whether the workers live
DYING_S = 5.0  # how long a killed worker may take to be gone: Paddle's handler prints a stack first

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

    # what was inherited is shared until it is written to, as collecting garbage does
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave_later)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # workers are the parallelism: threads of Paddle's and OpenCV's would only compete with them
    paddle.base.core.set_num_threads(1)
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


class LostWorkerError(OSError):
    """A run that stopped as a data worker was lost. The message says what happened to it, and where
    the run was saved.
    """


class WorkerWatch:
    """Looks after the workers of `source`, an iterator of paddle.io.DataLoader that was just made.

    By itself Paddle raises a SystemError in the trainer wherever it happens to be when a worker
    dies, and nothing while it waits for a batch, which can then be for ever. Here that is taken out
    of Paddle's hands: a thread looks, ends the waiting, and `lost` says what happened.
    """

    def __init__(self, source: Any):
        self.source = source
        self.lost: Optional[str] = None
        self._done = threading.Event()
        paddle.base.core._erase_process_pids(id(source))
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._done.wait(WATCH_S) and not self.look():
            continue

    def look(self) -> Optional[str]:
        """What happened to a worker that is dead, or None; the iterator then gives no more."""
        dead = [worker for worker in self.source._workers if not worker.is_alive()]
        if dead and not self._done.is_set() and self.lost is None:
            self.lost = f"a data worker (process {dead[0].pid}) {_end_of(dead[0].exitcode)}"
            self.source._exit_thread_unexpectedly()  # whoever waits for a batch gets an error
        return self.lost

    def why(self) -> Optional[str]:
        """What happened to the worker that made the iterator fail, or None if all live. One that
        is killed may take away a batch on its way before it counts as dead.
        """
        end = time.monotonic() + DYING_S
        while not self.look() and time.monotonic() < end:
            time.sleep(0.05)
        return self.lost

    def end(self) -> None:
        """Look no more: the workers are about to be ended."""
        self._done.set()


def _end_of(exitcode: Optional[int]) -> str:
    """How a process with that exit code ended, in words."""
    if exitcode is None or exitcode >= 0:
        return f"ended with status {exitcode}"
    hints = {"SIGKILL": "; out of memory?", "SIGBUS": "; is /dev/shm full?"}
    try:
        hint = hints.get(signal.Signals(-exitcode).name, "")
    except ValueError:  # a signal without a name
        hint = ""
    return f"was killed by signal {-exitcode}{hint}"


def local_processes(world_size: int) -> int:
    """How many of a run's processes may be on this machine: what Paddle's launcher says, or all."""
    told = os.environ.get("PADDLE_LOCAL_SIZE", "")
    return min(int(told), world_size) if told.isdecimal() and int(told) else world_size


def fits_shared_memory(needed_bytes: int) -> bool:
    """Whether /dev/shm has room for the batches in flight; containers often give it 64 MB. If not,
    a warning says so.
    """
    try:
        stat = os.statvfs("/dev/shm")
    except (OSError, AttributeError):  # Windows has neither
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
