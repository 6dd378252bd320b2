"""numpy.savez: a zip archive of arrays in numpy's own format."""

import io
import struct
import zipfile
from collections.abc import Mapping
from typing import Dict

import numpy as np

from ...schema import shown
from .archive import member
from .arrays import filling
from .errors import FormatError

__all__ = ["SUFFIX", "read_npz"]

SUFFIX = ".npy"
MAGIC = b"\x93NUMPY"
MAX_HEADER = 65536  # bytes of an array's


def read_npz(buffer: memoryview, members: Mapping[str, zipfile.ZipInfo]) -> Dict[str, np.ndarray]:
    """The arrays of the archive, by name. FormatError where it is damaged."""
    return {
        name[: -len(SUFFIX)]: _array(member(buffer, info), name) for name, info in members.items()
    }


def _array(data: memoryview, name: str) -> np.ndarray:
    """One array in numpy's own format; an array of objects (a pickle inside) is refused."""
    version = bytes(data[:8])
    if version[:6] != MAGIC or version[6] not in (1, 2, 3):
        raise FormatError(f"member {shown(name)} is not an array")
    form = "<H" if version[6] == 1 else "<I"
    start = 8 + struct.calcsize(form)
    length = struct.unpack(form, data[8:start])[0]
    if length > MAX_HEADER:
        raise FormatError(f"member {shown(name)} has a header of {length} bytes")
    stream = io.BytesIO(bytes(data[8 : start + length]))
    if version[6] == 1:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    if dtype.hasobject:
        raise FormatError(f"refused: member {shown(name)} holds Python objects, a pickle")
    array = filling(data[start + length :], dtype.str, shape[::-1] if fortran else shape)
    return array.T if fortran else array
