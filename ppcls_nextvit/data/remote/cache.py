"""Pieces of data in a folder, at most so many bytes of them, shared by all processes and runs that
name it.

`usage` has the bytes that the entries take. It is changed under a lock, and before an entry is
written, so that they never take more than it says. A process that is killed may leave it too high
until entries are next removed, when all are counted anew.
"""

import contextlib
import hashlib
import logging
import os
import struct
import time
import zlib
from typing import Any, ContextManager, Iterator, List, NamedTuple, Optional

from ...schema import shown_text

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows has no such locks: processes there should not share a cache
    fcntl = None

__all__ = ["BlockCache", "locked"]

HEADER = struct.Struct("<4sIQ")  # of an entry: its kind, the data's CRC-32 and their number
KIND = b"nvc1"
KEPT = 0.9  # of the limit, when entries are removed: those that were not read for longest go
DRAFT = ".draft"
REST_S = 60.0  # without writing, after a disk refused it

log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Within the block no other process is in one of the same `folder`, which is made."""
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class _Entry(NamedTuple):
    used: float  # when it was last read
    size: int
    path: str


class BlockCache:
    """limit: the bytes that the entries in `folder` may take. Nothing raises: without a disk that
    takes them there are no entries, and a warning says so.
    """

    def __init__(self, folder: str, limit: int):
        self.folder = folder
        self.limit = limit
        self._rest_until = 0.0

    def get(self, key: str) -> Optional[bytes]:
        """The data that were put under `key`; None if they are not there, or no longer whole."""
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            return None
        data = _whole(content)
        if data is None:
            log.warning("%s: a damaged entry of the cache is removed", shown_text(path))
            with contextlib.suppress(OSError), self._locked():
                self._remove(path)
            return None
        with contextlib.suppress(OSError):  # another process may have just removed it
            os.utime(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, in the place of what was not read for longest."""
        size = HEADER.size + len(data)
        if size > self.limit or time.monotonic() < self._rest_until:
            return
        try:
            with self._locked():
                self._write(self._path(key), HEADER.pack(KIND, zlib.crc32(data), len(data)), data)
        except OSError as error:
            self._rest_until = time.monotonic() + REST_S
            log.warning(
                "%s: the cache cannot be written (%s); data are fetched anew each time",
                shown_text(self.folder),
                error.strerror,
            )

    def usage(self) -> int:
        """The bytes that the entries take, by the accounts."""
        with self._locked():
            return self._used()

    def _path(self, key: str) -> str:
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return os.path.join(self.folder, "entries", name[:2], name[2:])

    def _locked(self) -> ContextManager[None]:
        return locked(self.folder)

    def _write(self, path: str, header: bytes, data: bytes) -> None:
        """Write an entry that is not there yet, making room for it; all or nothing."""
        if os.path.exists(path):  # another process was quicker
            return
        size = len(header) + len(data)
        used = self._used()
        if used + size > self.limit:
            used = self._make_room(min(int(self.limit * KEPT), self.limit - size))
        self._account(used + size)
        draft = f"{path}{DRAFT}"
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(draft, "wb") as file:
                file.write(header)
                file.write(data)
            os.replace(draft, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            self._account(used)
            raise

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            size = os.path.getsize(path)
            os.unlink(path)
            self._account(self._used() - size)

    def _used(self) -> int:
        try:
            with open(os.path.join(self.folder, "usage"), "rb") as file:
                return max(0, int(file.read(32)))
        except (FileNotFoundError, ValueError):
            return sum(entry.size for entry in self._entries())

    def _account(self, used: int) -> None:
        descriptor = os.open(os.path.join(self.folder, "usage"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, b"%-32d" % max(0, used))  # always of one length: nothing is cut
        finally:
            os.close(descriptor)

    def _make_room(self, wanted: int) -> int:
        """Remove entries until they take at most `wanted` bytes; what they take then."""
        entries = sorted(self._entries())
        used = sum(entry.size for entry in entries)
        for entry in entries:
            if used <= wanted:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)
            used -= entry.size
        return used

    def _entries(self) -> List[_Entry]:
        """All entries. Drafts are removed: whoever wrote one was killed."""
        found: List[_Entry] = []
        for folder, _, names in os.walk(os.path.join(self.folder, "entries")):
            for name in names:
                path = os.path.join(folder, name)
                if name.endswith(DRAFT):
                    os.unlink(path)
                    continue
                stat = os.stat(path)
                found.append(_Entry(stat.st_mtime, stat.st_size, path))
        return found


def _whole(content: bytes) -> Optional[bytes]:
    """The data of an entry; None if they are not those that were written."""
    if len(content) < HEADER.size:
        return None
    kind, checksum, length = HEADER.unpack_from(content)
    data = content[HEADER.size :]
    whole = kind == KIND and len(data) == length and zlib.crc32(data) == checksum
    return data if whole else None
