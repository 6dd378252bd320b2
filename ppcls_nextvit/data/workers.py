"""Processes that load: each makes every n-th batch of an epoch, in memory that it shares with the
process that trains, so that nothing is sent but where the arrays are.

The memory is the processes' own (an anonymous mapping made before the fork), used again and again:
what containers give to /dev/shm does not matter, and no page is mapped anew for each batch, which
costs more than copying it.
"""

import functools
import gc
import itertools
import logging
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import paddle

from .images import ImageError
from .memory import address_of, return_freed_memory

__all__ = ["LostWorkerError", "Workers", "usable_workers"]

GRACE_S = 60  # how long a worker outlives a SIGTERM
ALIGNED = 64  # bytes: arrays begin at multiples of it
SMALL = 1 << 12  # bytes of an array that is sent as it is

log = logging.getLogger(__name__)

Batch = Dict[str, Any]
Make = Callable[[int, np.ndarray], Batch]  # which may put arrays into these bytes


class LostWorkerError(OSError):
    """A run that stopped as a data worker was lost. The message says what happened to it, and where
    the run was saved.
    """


@functools.cache
def usable_workers(asked: int) -> int:
    """How many of the processes that were asked for can load here: all, or none, with a warning."""
    if not asked or sys.platform == "linux":
        return asked
    log.warning("num_workers: %d: on this system the training process loads the images", asked)
    return 0


def start_worker(parent: int) -> None:
    """Runs first in a worker process. `parent`: process number of the trainer, with which the
    worker ends.

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


@dataclass(frozen=True)
class _Placed:
    """An array in the memory of a batch, from byte `start` on."""

    start: int
    shape: Tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class _Failed:
    """An exception in a worker: its class, its message and its traceback, empty where the message
    says all.
    """

    kind: type
    message: str
    trace: str

    def error(self) -> Exception:
        """The exception to raise in the trainer."""
        try:
            error = self.kind(self.message)
        except Exception:  # a class that takes other arguments
            error = RuntimeError(f"{self.kind.__name__}: {self.message}")
        if self.trace:
            error.__cause__ = RuntimeError(f"in a data worker:\n{self.trace}")
        return error


def _place(batch: Batch, memory: np.ndarray) -> Batch:
    """`batch` with the arrays that are not small in the bytes `memory`, while there is room. What
    stands there stays.
    """
    arrays = {key: value for key, value in batch.items() if isinstance(value, np.ndarray)}
    starts = {key: address_of(value) - address_of(memory) for key, value in arrays.items()}
    placed = {
        key: _Placed(starts[key], value.shape, value.dtype)
        for key, value in arrays.items()
        if value.flags.c_contiguous and 0 <= starts[key] <= len(memory) - value.nbytes
    }
    end = max([at.start + arrays[key].nbytes for key, at in placed.items()], default=0)
    for key in [key for key in arrays if key not in placed]:
        value, end = arrays[key], -(-end // ALIGNED) * ALIGNED
        if SMALL < value.nbytes <= len(memory) - end:
            placed[key] = _Placed(end, value.shape, value.dtype)
            np.copyto(_array(placed[key], memory), value)
            end += value.nbytes
    return {**batch, **placed}


def _array(at: _Placed, memory: np.ndarray) -> np.ndarray:
    """The array at its place in the bytes `memory`."""
    count = int(np.prod(at.shape))
    return np.frombuffer(memory, at.dtype, count, at.start).reshape(at.shape)


def _work(
    make: Make,
    items: Sequence[int],
    slots: List[np.ndarray],
    pipe: Connection,
    parent: int,
) -> None:
    """What a worker does: makes the batches `items`, each in the next of `slots`, which is the
    worker's again when the trainer says so.
    """
    start_worker(parent)
    for number, item in enumerate(items):
        if number >= len(slots):
            pipe.recv_bytes()
        slot = slots[number % len(slots)]
        try:
            found: Any = _place(make(item, slot), slot)
        except Exception as error:
            trace = "" if isinstance(error, ImageError) else traceback.format_exc()
            found = _Failed(type(error), str(error), trace)
        pipe.send(found)


def _shared(size: int) -> np.ndarray:
    """Bytes for this process and those that it forks; none, with a warning, where there is not so
    much memory.
    """
    try:
        return np.frombuffer(mmap.mmap(-1, size) if size else b"", np.uint8)
    except OSError as error:
        log.warning(
            "%d MB cannot be shared (%s): workers send batches through pipes instead, which is "
            "slower",
            size >> 20,
            error,
        )
        return np.empty(0, np.uint8)


class _Worker:
    """A process that makes the batches `items`, of which `ahead` wait for the trainer in `size`
    bytes each.
    """

    def __init__(self, make: Make, items: Sequence[int], ahead: int, size: int):
        memory = _shared(ahead * size)
        slots = [memory[k * size : (k + 1) * size] for k in range(ahead)]
        self.turn = itertools.cycle(slots)
        context = multiprocessing.get_context("fork")
        self.pipe, other = context.Pipe()
        self.process = context.Process(
            target=_work, args=(make, items, slots, other, os.getpid()), daemon=True
        )
        self.process.start()
        other.close()  # so that a dead worker's pipe is at its end

    def take(self) -> Batch:
        """The next batch, whose arrays stand in shared memory. EOFError if the worker is dead."""
        # the pipe alone would wait for a process forked meanwhile that has its other end, too
        if self.pipe not in wait([self.pipe, self.process.sentinel]) and not self.pipe.poll():
            raise EOFError
        found = self.pipe.recv()
        if isinstance(found, _Failed):
            raise found.error()
        memory = next(self.turn)
        return {
            key: _array(value, memory) if isinstance(value, _Placed) else value
            for key, value in found.items()
        }

    def give_back(self) -> None:
        """The memory of the last batch is the worker's again."""
        try:
            self.pipe.send_bytes(b"1")
        except OSError:  # it has ended: `take` tells whether too early
            pass


class Workers:
    """The batches make(0, memory) to make(total - 1, memory) in their order, by `count` processes,
    each with `ahead` of them made beforehand, of which `size` bytes stand in shared memory and the
    rest is sent.

    lost: what happened to a worker that ended too early, or None. end(): ends the processes,
    whatever they do.
    """

    def __init__(self, make: Make, total: int, count: int, ahead: int, size: int):
        self.lost: Optional[str] = None
        self._taken: Optional[_Worker] = None
        workers: List[_Worker] = []
        # also where whoever takes the batches never ends it
        self.end = weakref.finalize(self, _end, workers, os.getpid())
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        return_freed_memory()
        for first in range(min(count, total)):
            workers.append(_Worker(make, range(first, total, count), ahead, size))
        self._turn = itertools.cycle(workers)

    def take(self) -> Optional[Batch]:
        """The next batch, or None if the worker that makes it is lost: the others are of no more
        use then. Its arrays are good until `give_back`, or the next call.
        """
        self.give_back()
        worker = next(self._turn)
        try:
            batch = worker.take()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            end = _end_of(worker.process.exitcode)
            self.lost = f"a data worker (process {worker.process.pid}) {end}"
            return None
        self._taken = worker
        return batch

    def give_back(self) -> None:
        """The arrays of the last batch are no longer needed."""
        if self._taken:
            self._taken.give_back()
            self._taken = None


def _end(workers: List[_Worker], parent: int) -> None:
    """End the workers of the process `parent`, whatever they do."""
    if os.getpid() != parent:  # a copy of the list in another forked process
        return
    for worker in workers:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()


def _end_of(exitcode: Optional[int]) -> str:
    """How a process with that exit code ended, in words."""
    if exitcode is None or exitcode >= 0:
        return f"ended with status {exitcode}"
    try:
        hint = "; out of memory?" if signal.Signals(-exitcode).name == "SIGKILL" else ""
    except ValueError:  # a signal without a name
        hint = ""
    return f"was killed by signal {-exitcode}{hint}"
