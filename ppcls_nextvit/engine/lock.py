"""Who writes where: a lock on a file, which the system takes back from an owner that died."""

import contextlib
import errno
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Iterator, Optional, Type, Union

from .distributed import Processes
from .logger import logger

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows has no such locks, and nothing is kept from anyone
    fcntl = None

__all__ = ["FileLock", "LockedError", "own_folder"]

# of file systems that know no locks
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
RETRY_S = 0.05


class LockedError(ValueError):
    """Who has the lock, in words."""


class FileLock:
    """A lock of this process on the file `path`, which says who has it and goes when it is given
    back. As a context manager it is had within the block.

    It is the process's: it ends with it, however that ends, and forked processes, such as those
    that load data, do not inherit it. wait_s: how long to wait for one who has it.
    """

    def __init__(self, path: Union[str, Path], wait_s: float = 0.0):
        self.path = Path(path)
        self.wait_s = wait_s
        self._descriptor: Optional[int] = None

    def acquire(self) -> None:
        """Take the lock. LockedError says who has it; OSError where the file cannot be written."""
        deadline = time.monotonic() + self.wait_s
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not _locks(descriptor):
                    owner = _owner(descriptor)
                    if time.monotonic() >= deadline:
                        raise LockedError(owner)
                    time.sleep(RETRY_S)
                # else its last owner removed the file after it was opened here
                elif _is_at(descriptor, self.path):
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        told = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(told).encode())

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # the whole folder may be gone
                os.unlink(self.path)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "FileLock":
        self.acquire()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.release()


@contextlib.contextmanager
def own_folder(directory: Path, processes: Processes) -> Iterator[None]:
    """Within the block the run of these processes owns `directory`, which is made. LockedError, in
    every process, while another run does.
    """
    lock = FileLock(directory / "run.lock")
    refused = None
    if processes.is_main:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except LockedError as error:
            refused = error
    if processes.any(refused is not None):
        raise LockedError(
            f"{directory}: another run writes there: {refused or 'see the first process'}. Wait "
            f"for it, or give this one another Global.output_dir"
        )
    try:
        yield
    finally:
        lock.release()


def _locks(descriptor: int) -> bool:
    """Whether this process now has the lock of the open file, or there are none here."""
    if fcntl is None:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            return False
        logger.warning("this file system knows no locks: two runs in one folder are not noticed")
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(descriptor: int) -> str:
    """What the lock's file says of its owner."""
    try:
        told = json.loads(os.read(descriptor, 1 << 12))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(told["since"]))
        return f"process {int(told['pid'])} on {told['host']!s}, since {since}"
    except (ValueError, KeyError, TypeError, OverflowError):  # it has just been made
        return "another process"
