"""Members of a zip archive as views of the mapped file, with their checksums compared and their
sizes bounded: all together before any is read.
"""

import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Dict

from ...files import UNPACKED_BYTES, UNPACKED_FREE, UNPACKED_SHARE, parsing
from ...schema import shown
from .errors import FormatError

__all__ = ["member", "unpacked_size", "zip_members"]


class _View(io.RawIOBase):
    """A memoryview as a file, for `zipfile`."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = max(0, offset + (0, self.position, len(self.view))[whence])
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, target: Any) -> int:
        part = self.view[self.position : self.position + len(target)]
        target[: len(part)] = part
        self.position += len(part)
        return len(part)


def member(buffer: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of a zip member, a view where it is stored; its checksum is compared. FormatError
    where it is damaged.
    """
    start = info.header_offset
    local = buffer[start : start + 30]
    if bytes(local[:4]) != b"PK\x03\x04":
        raise FormatError(f"member {shown(info.filename)} is not where the archive says")
    name_length, extra_length = struct.unpack("<HH", local[26:30])
    start += 30 + name_length + extra_length
    data = buffer[start : start + info.compress_size]
    if (
        len(data) != info.compress_size
        or info.flag_bits & 1
        or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ):
        raise FormatError(
            f"member {shown(info.filename)} reaches beyond the file, is encrypted or compressed "
            f"in a way that is not read"
        )
    if info.compress_type == zipfile.ZIP_DEFLATED:
        data = memoryview(zlib.decompressobj(-15).decompress(data, info.file_size + 1))
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise FormatError(f"member {shown(info.filename)} is damaged (its checksum differs)")
    _release(buffer, info.header_offset, start + info.compress_size)
    return data


def _release(buffer: memoryview, start: int, end: int) -> None:
    """Let the system take back the pages read for the checksum: most tensors of a training
    checkpoint are never looked at again.
    """
    if hasattr(mmap, "MADV_DONTNEED") and isinstance(buffer.obj, mmap.mmap):
        start -= start % mmap.PAGESIZE
        buffer.obj.madvise(mmap.MADV_DONTNEED, start, end - start)


def zip_members(buffer: memoryview) -> Dict[str, zipfile.ZipInfo]:
    """{name: zipfile.ZipInfo} of the archive in `buffer`. FormatError where it is damaged, and for
    one that would unpack to more than the budgets of files.py allow.
    """
    with parsing("a damaged or incomplete zip archive (a download that broke off?)", FormatError):
        with zipfile.ZipFile(io.BufferedReader(_View(buffer))) as archive:
            infos = archive.infolist()
    members = {info.filename: info for info in infos}
    if len(members) != len(infos):
        raise FormatError("a zip archive that names a member twice")
    if sum(info.compress_size for info in infos) > len(buffer):
        raise FormatError("a zip archive whose members overlap")
    packed = sum(info.file_size for info in infos if info.compress_type != zipfile.ZIP_STORED)
    limit = min(UNPACKED_BYTES, max(UNPACKED_FREE, UNPACKED_SHARE * len(buffer)))
    if packed > limit:
        raise FormatError(
            f"unpacks to {packed} bytes, more than the limit of {limit} for a file of "
            f"{len(buffer)} bytes; store its members uncompressed (numpy.savez), or write it as "
            f".safetensors"
        )
    return members


def unpacked_size(members: Mapping[str, zipfile.ZipInfo]) -> int:
    """The bytes of all members, unpacked."""
    return sum(info.file_size for info in members.values())
