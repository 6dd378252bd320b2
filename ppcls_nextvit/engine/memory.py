"""The memory of a process that computes with large arrays again and again."""

import contextlib
import ctypes
import sys

__all__ = ["keep_freed_memory"]

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let this process, and those that it forks, use again what they freed.

    The C library gives arrays of megabytes back to the system at once, which clears and maps every
    page of the next one anew: a tenth of a training step on a CPU, and more than half of the time
    of copying a batch. The process then keeps its largest size until it ends.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # none
