"""Arrays as views of a file's bytes, whose declared types and sizes are checked against the bytes
that are there.
"""

import functools
import math
from typing import Any, Sequence, Union

import numpy as np

from ...schema import shown
from .errors import FormatError

__all__ = ["BFLOAT16", "filling", "from_bytes", "itemsize", "numpy_dtype", "strided_array", "widen"]

Buffer = Union[bytes, bytearray, memoryview]

NUMBERS = {"b1", "f2", "f4", "f8", "c8", "c16", *(kind + size for kind in "iu" for size in "1248")}
BFLOAT16 = "bfloat16"  # numpy has no such type: read as uint16, widened to float32 without loss
MAX_DIMENSIONS = 32  # numpy's own limit before 2.0


def numpy_dtype(text: Any, order: str = "=") -> np.dtype:
    """The dtype that `text` ('f4', '<i8', ...) names; little-endian booleans and numbers only, else
    FormatError.
    """
    if not isinstance(text, str) or text.lstrip("<=|") not in NUMBERS or order not in ("<", "="):
        raise FormatError(
            f"an array of type {shown(text)} (byte order {shown(order)}); only little-endian "
            f"numbers are read"
        )
    return np.dtype(text)


@functools.cache  # of as few kinds as there are
def _stored(kind: str) -> np.dtype:
    """The dtype in which numbers of type `kind`, which may be BFLOAT16, lie in a file."""
    return numpy_dtype("u2" if kind == BFLOAT16 else kind)


def itemsize(kind: str) -> int:
    """Bytes of a number of type `kind`, which may be BFLOAT16."""
    return _stored(kind).itemsize


def _is_shape(shape: Any) -> bool:
    """Whether `shape` can be one; first of all how long it is, since numbers are multiplied."""
    return isinstance(shape, (tuple, list)) and len(shape) <= MAX_DIMENSIONS and _are_counts(shape)


def _are_counts(numbers: Sequence[Any]) -> bool:
    return set(map(type, numbers)) <= {int} and min(numbers, default=0) >= 0


def from_bytes(data: Any, dtype: np.dtype, shape: Any, order: Any = "C") -> np.ndarray:
    """The array of `shape` in the byte string `data`, without a copy where the machine's byte order
    allows it. FormatError where they do not fit each other.
    """
    if not isinstance(shape, tuple) or not _is_shape(shape):
        raise FormatError(f"an array of shape {shown(shape)}")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise FormatError(f"an array whose data is a {type(data).__name__}")
    needed = dtype.itemsize * math.prod(shape)
    if needed != len(data):
        raise FormatError(
            f"an array of shape {shown(shape)} and type {dtype} needs {shown(needed)} bytes, the "
            f"file has {len(data)} for it"
        )
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def filling(data: Buffer, kind: str, shape: Any) -> np.ndarray:
    """The array of type `kind`, which may be BFLOAT16, and `shape` that fills `data` exactly; else
    FormatError.
    """
    dtype = _stored(kind)
    if not _is_shape(shape):
        raise FormatError(f"an array of shape {shown(shape)}")
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(data):
        raise FormatError(
            f"shape {shown(list(shape))} of {kind} needs {shown(needed)} bytes, the file declares "
            f"{len(data)}"
        )
    array = np.frombuffer(data, dtype).reshape(shape)
    return widen(array) if kind == BFLOAT16 else array


def strided_array(
    data: Buffer,
    kind: str,
    offset: Any,
    shape: Any,
    strides: Any,
    limit: int,
) -> np.ndarray:
    """A view of the 1-D array-like storage `data` of numbers of type `kind` (BFLOAT16: its bits):
    `shape`, with `strides` and `offset` counted in elements.

    Raises FormatError when it would reach outside, or spread (stride 0) to more than `limit`
    elements.
    """
    dtype = _stored(kind)
    if not (_is_shape(shape) and _is_shape(strides) and _are_counts((offset,))) or (
        len(shape) != len(strides)
    ):
        raise FormatError(
            f"a tensor of shape {shown(shape)}, strides {shown(strides)}, offset {shown(offset)}"
        )
    count = math.prod(shape)
    if count == 0:
        return np.zeros(shape, dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides))
    stored = len(data) // dtype.itemsize
    if last >= stored or count > limit:
        raise FormatError(
            f"a tensor of shape {shown(shape)} at offset {shown(offset)} does not fit its storage "
            f"of {stored} elements"
        )
    steps = [n * dtype.itemsize for n in strides]
    array: np.ndarray = np.ndarray(shape, dtype, data, offset * dtype.itemsize, steps)
    array.flags.writeable = False
    return array


def widen(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits (uint16) -> float32: the upper half of a float32 of the same value."""
    array = (bits.astype(np.uint32) << 16).view(np.float32)
    array.flags.writeable = False
    return array
