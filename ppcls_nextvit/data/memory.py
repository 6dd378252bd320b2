"""The memory of a process that computes with large arrays again and again."""

import ctypes
import sys
from typing import Any, List, Optional

import numpy as np

__all__ = ["address_of", "keep_freed_memory", "return_freed_memory", "stacked"]

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let this process, and those that it forks, use again what they freed.

    The C library gives arrays of megabytes back to the system at once, which clears and maps every
    page of the next one anew: a tenth of a training step on a CPU, and more than half of the time
    of copying a batch. The process then keeps its largest size until it returns it.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)  # none


def return_freed_memory() -> None:
    """Give back to the system what this process freed: before it forks others, which would hold on
    to it, so that the process needed as much again.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> Optional[Any]:
    """The C library, if it is the one that can be told."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def address_of(array: np.ndarray) -> int:
    """Where the first element is in the memory of this process."""
    return int(array.__array_interface__["data"][0])


def stacked(images: List[np.ndarray]) -> np.ndarray:
    """np.stack(images). Nothing is copied where they stand one after the other in one array, as
    `EpochBatches.made` puts them (data/batches.py).
    """
    first = images[0]
    start, size, same = address_of(first), first.nbytes, (first.shape, first.dtype)
    if first.base is not None and all(
        image.base is first.base
        and (image.shape, image.dtype) == same
        and image.flags.c_contiguous
        and address_of(image) == start + k * size
        for k, image in enumerate(images)
    ):
        shape, strides = (len(images), *first.shape), (size, *first.strides)
        return np.lib.stride_tricks.as_strided(first, shape, strides)
    return np.stack(images)
