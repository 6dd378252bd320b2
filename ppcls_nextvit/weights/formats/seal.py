"""The checksum at the end of a trainer's files: a flipped bit in a tensor breaks no syntax, and
would only show in what the model says.

It stands after the pickle, where paddle.load and pickle.load do not look. Files without one, of
other programs and of older versions, are read as they are.
"""

import os
import zlib
from typing import Union

from .errors import FormatError

__all__ = ["seal", "unsealed"]

START = b"\n# crc32 of all bytes before this line: "
LENGTH = len(START) + 9  # eight hexadecimal digits and a line break
BLOCK_BYTES = 1 << 20


def seal(path: Union[str, "os.PathLike[str]"]) -> None:
    """Append the checksum of a file to it, and have the disk hold both. OSError where it is full
    or fails.
    """
    checksum = 0
    with open(path, "rb+") as file:
        while block := file.read(BLOCK_BYTES):
            checksum = zlib.crc32(block, checksum)
        file.write(b"%s%08x\n" % (START, checksum))
        file.flush()
        os.fsync(file.fileno())


def unsealed(buffer: memoryview) -> memoryview:
    """A file's bytes without the checksum at their end, if there is one. FormatError where it is
    not that of the bytes.
    """
    content, end = buffer[:-LENGTH], bytes(buffer[-LENGTH:])
    if not end.startswith(START):
        return buffer
    if end[len(START) :] != b"%08x\n" % zlib.crc32(content):
        raise FormatError(
            "damaged: its checksum is another than when it was saved, so that its numbers are not "
            "those of the run; take another checkpoint or copy of it"
        )
    return content
