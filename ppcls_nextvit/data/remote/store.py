"""Reading from a server through fsspec: within a time, again while it fails, several at once."""

import logging
import os
import re
import threading
import time
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from ...files import IMAGE_BYTES, described, is_mistake
from ...schema import ConfigError, shown_text
from .cache import BlockCache
from .options import RemoteOptions

__all__ = ["RemoteError", "RemoteStore"]

FIRST_PAUSE_S = 0.2  # doubled at each attempt
LONGEST_PAUSE_S = 10.0
UNIT_BYTES = 1 << 20  # of which a read may take RemoteOptions.timeout_s
TOLD_EVERY_S = 30.0  # how often a process says that a server fails or is slow
SLOW_SHARE = 0.5  # of the time is spent waiting: then it says how fast data come
TEMPORARY = (408, 425, 429)  # statuses below 500 that another attempt may not meet
MISSING = (404, 410)
RANGE = re.compile(r"bytes=(\d+)-(\d+)")
SLEEP: Callable[[float], None] = time.sleep

log = logging.getLogger(__name__)


class RemoteError(OSError):
    """Why data could not be read, in words, without their address."""


class _Piece(NamedTuple):
    """size bytes of a file from start on; the whole file for None."""

    path: str
    start: Optional[int]
    size: Optional[int]
    checksum: Optional[int]  # CRC-32, where it is known

    @property
    def key(self) -> str:
        return f"{self.path} {self.start} {self.size} {self.checksum}"

    def is_right(self, data: bytes) -> bool:
        return self.checksum is None or zlib.crc32(data) == self.checksum


class RemoteStore:
    """Files below the address `root`. ImportError names the extra, ConfigError an address that
    nothing reads.

    Each process connects for itself, so that a store may be had across a fork.
    """

    def __init__(self, root: str, options: RemoteOptions):
        self.root = root
        self.options = options
        self.protocol = root.partition("://")[0]
        self.cache = BlockCache(options.folder, options.cache_bytes)
        self._own: Optional[_Connection] = None
        self._inherited: List[_Connection] = []
        _file_system_class(self.protocol, root)

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_own": None, "_inherited": []}

    @property
    def own(self) -> "_Connection":
        """The connection of this process."""
        if self._own is None or self._own.process != os.getpid():
            if self._own is not None:  # its threads did not come along: closing it would hang
                self._inherited.append(self._own)
            self._own = _Connection(self.protocol, self.root, self.options)
        return self._own

    def read(
        self,
        path: str,
        start: Optional[int] = None,
        size: Optional[int] = None,
        checksum: Optional[int] = None,
    ) -> bytes:
        """`size` bytes of the file at the address `path` from byte `start` on, or all of it; from
        the cache, from what `read_ahead` began, or from the server. RemoteError.

        checksum: their CRC-32. Bytes that have another are fetched once more and not kept.
        """
        piece = _Piece(path, start, size, checksum)
        since = time.monotonic()
        begun = self.own.begun.pop(piece, None)
        data = begun.result() if begun is not None else self._read(piece)
        self.own.meter.waited(time.monotonic() - since)
        return data

    def read_ahead(self, *piece: Any) -> None:
        """Begin to read what will soon be asked for: the arguments are `read`'s."""
        wanted = _Piece(*piece)
        if wanted not in self.own.begun:
            self.own.begun[wanted] = self.own.threads.submit(self._read, wanted)

    def forget(self) -> None:
        """Give up what `read_ahead` began and nobody asked for."""
        for begun in self.own.begun.values():
            begun.cancel()
        self.own.begun.clear()

    def _read(self, piece: _Piece) -> bytes:
        data = self.cache.get(piece.key) if self.cache.limit else None
        if data is None:
            data = self.fetch(piece.path, piece.start, piece.size)
            if not piece.is_right(data):
                data = self.fetch(piece.path, piece.start, piece.size)
            if self.cache.limit and piece.is_right(data):
                self.cache.put(piece.key, data)
        return data

    def fetch(self, path: str, start: Optional[int] = None, size: Optional[int] = None) -> bytes:
        """As `read`, from the server itself."""
        timeout_s = self.options.timeout_s * max(1.0, (size or 0) / UNIT_BYTES)
        return self._patiently(lambda: self.own.bytes(path, start, size, timeout_s))

    def info(self, path: str) -> Dict[str, Any]:
        """What the server says of a file: its size and its version. RemoteError."""
        return self._patiently(lambda: self.own.info(path, self.options.timeout_s))

    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        """What `attempt` returns, once it does. RemoteError for what no further attempt mends, and
        when patience is at its end.
        """
        pause, failed_since, attempts = FIRST_PAUSE_S, time.monotonic(), 0
        while True:
            attempts += 1
            try:
                found = attempt()
            except Exception as failure:  # the protocols' plug-ins raise anything
                if is_mistake(failure):
                    raise
                error = _root(failure)
                if not _may_pass(error):
                    raise RemoteError(_reason(error)) from error
                left_s = failed_since + self.options.patience_s - time.monotonic()
                if left_s <= 0:
                    raise RemoteError(
                        f"{_reason(error)}, in each of {attempts} attempts within "
                        f"{self.options.patience_s:g} s (remote.patience_s)"
                    ) from error
                self.own.meter.failed(_reason(error), left_s)
                SLEEP(min(pause, max(left_s, 0.01)))
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            size = len(found) if isinstance(found, bytes) else 0
            self.own.meter.read(size)
            return found


class _WrongSizeError(OSError):
    """More bytes than were asked for."""


def _bounded_response() -> type:
    """aiohttp's answers, of which no more is kept than was asked for, or IMAGE_BYTES."""
    from aiohttp import ClientResponse

    class Bounded(ClientResponse):
        async def read(self) -> bytes:
            """See the base class. _WrongSizeError."""
            if self._body is None:
                self._body = await _bounded_body(self)
            return await super().read()

    return Bounded


async def _bounded_body(answer: Any) -> bytes:
    wanted = RANGE.fullmatch(answer.request_info.headers.get("Range", ""))
    limit = int(wanted[2]) - int(wanted[1]) + 1 if wanted else IMAGE_BYTES
    parts, size = [], 0
    try:
        async for part in answer.content.iter_any():
            size += len(part)
            if size > limit:
                raise _WrongSizeError(
                    f"the server gave {size} bytes where {limit} were asked for; it must answer "
                    f"requests for a range of bytes"
                    if wanted
                    else f"more than the limit of {limit} bytes"
                )
            parts.append(part)
    except BaseException:
        answer.close()
        raise
    return b"".join(parts)


class _Connection:
    """What one process has of a server."""

    def __init__(self, protocol: str, root: str, options: RemoteOptions):
        self.process = os.getpid()
        made, given = _file_system_class(protocol, root), dict(options.options)
        if protocol in ("http", "https"):
            sessions = {"response_class": _bounded_response(), **given.get("client_kwargs", {})}
            given["client_kwargs"] = sessions
        self.system = made(skip_instance_cache=True, use_listings_cache=False, **given)
        self.is_here = protocol in ("file", "local")
        self.threads = ThreadPoolExecutor(options.connections)
        self.begun: Dict[_Piece, Future] = {}
        self.meter = _Meter(root)

    def bytes(
        self, path: str, start: Optional[int], size: Optional[int], timeout_s: float
    ) -> bytes:
        """A piece of a file, or all of it; of the size that was asked for, or an error."""
        if size == 0:
            return b""
        if self.is_here:  # where opening a pipe would wait for ever
            self.info(path, timeout_s)
        if start is None or size is None:
            return bytes(self._call("cat_file", timeout_s, path))
        data = bytes(self._call("cat_file", timeout_s, path, start=start, end=start + size))
        if len(data) > size:
            raise _WrongSizeError(
                f"the server gave {len(data)} bytes where {size} were asked for; it must answer "
                f"requests for a range of bytes"
            )
        if len(data) < size:
            raise EOFError(f"the server gave {len(data)} of {size} bytes")
        return data

    def info(self, path: str, timeout_s: float) -> Dict[str, Any]:
        """What the file system knows of a file. IsADirectoryError for what is none."""
        told = dict(self._call("info", timeout_s, path))
        if told.get("type") == "other":
            raise IsADirectoryError("not a regular file")
        return told

    def _call(self, name: str, timeout_s: float, path: str, **more: int) -> Any:
        """A call of the file system's, ended after `timeout_s` where it can be. more: by name,
        since the order differs between the protocols.
        """
        if not getattr(self.system, "async_impl", False):
            return getattr(self.system, name)(path, **more)
        from fsspec.asyn import sync

        call = getattr(self.system, f"_{name}")
        return sync(self.system.loop, call, path, timeout=timeout_s, **more)


class _Meter:
    """Says, now and then, that a server fails or how fast data come from it."""

    def __init__(self, root: str):
        self.root = root
        self.lock = threading.Lock()
        self.failures = 0
        self.told_failures: Optional[float] = None
        self._begin()

    def _begin(self) -> None:
        self.begun, self.reads, self.bytes, self.waited_s = time.monotonic(), 0, 0, 0.0

    def failed(self, reason: str, left_s: float) -> None:
        """Count a failed read."""
        with self.lock:
            self.failures += 1
            now = time.monotonic()
            if self.told_failures is None or now - self.told_failures >= TOLD_EVERY_S:
                self.told_failures = now
                log.warning(
                    "%s: %s (%d failed reads so far); it is tried again for %.0f s",
                    shown_text(self.root),
                    reason,
                    self.failures,
                    left_s,
                )

    def read(self, size: int) -> None:
        """Count a read of so many bytes."""
        with self.lock:
            if self.told_failures is not None:
                self.told_failures = None
                log.warning("%s: answers again", shown_text(self.root))
            self.reads += 1
            self.bytes += size

    def waited(self, seconds: float) -> None:
        """Count the time for which the loader had nothing to do but wait."""
        with self.lock:
            self.waited_s += seconds
            passed_s = time.monotonic() - self.begun
            if passed_s < TOLD_EVERY_S:
                return
            if self.waited_s > SLOW_SHARE * passed_s:
                log.warning(
                    "%s: data come at %.2f MB/s, %.1f reads/s; this process waited for them "
                    "%.0f %% of the last %.0f s",
                    shown_text(self.root),
                    self.bytes / passed_s / 1e6,
                    self.reads / passed_s,
                    100 * self.waited_s / passed_s,
                    passed_s,
                )
            self._begin()


def _root(error: Exception) -> Exception:
    """What went wrong: fsspec's `info` of HTTP calls everything a missing file."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    return error if _status(error) in MISSING else cause


def _status(error: Exception) -> Any:
    """The status that a server answered with, if it did: aiohttp's errors have it, botocore's have
    it in what they say of the answer, and s3fs puts others before them.
    """
    for one in (error, error.__cause__):
        told = getattr(one, "response", None)
        if isinstance(told, dict):
            return told.get("ResponseMetadata", {}).get("HTTPStatusCode")
        status = getattr(one, "status", None)
        if status is not None:
            return status
    return None


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may do without this error."""
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, _WrongSizeError)):
        return False
    if isinstance(error, (ImportError, TypeError, ValueError, NotImplementedError)):
        return False
    status = _status(error)
    return not (isinstance(status, int) and 400 <= status < 500 and status not in TEMPORARY)


def _reason(error: Exception) -> str:
    """What `error` says, without an address in it."""
    status = _status(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(status, int):
        return f"the server answers with status {status}"
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no answer in time (remote.timeout_s)"
    return described(error)


def _file_system_class(protocol: str, root: str) -> Any:
    """fsspec's class for a protocol."""
    try:
        import fsspec
    except ImportError as error:
        raise ImportError(
            f"{shown_text(root)}: reading from there needs fsspec: install ppcls_nextvit[remote]"
        ) from error
    try:
        return fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise ConfigError(f"{shown_text(root)}: {described(error)}") from error
    except ImportError as error:
        raise ImportError(f"{shown_text(root)}: {described(error)}") from error
